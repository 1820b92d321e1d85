#include "main_arguments.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "select.h"
#include "system_files.h"

namespace bve {
namespace {

struct Option {
  const char* name;
  const char* value;  // null: it takes none
  const char* verbs;
  const char* help;
  void (*set)(Arguments&, const std::string& name, const std::string& text);
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

double parse_number(const std::string& name, const std::string& text, double above, double most) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end || !(value > above && value <= most)) {
    throw UserError(name + " " + text + ", expected a number above " + std::to_string(int(above)) +
                    ", at most " + std::to_string(int(most)) + "; check the value");
  }
  return value;
}

uint32_t parse_count(const std::string& name, const std::string& text, uint32_t least) {
  constexpr uint32_t kMost = 1000000;
  char* end = nullptr;
  const unsigned long value = std::strtoul(text.c_str(), &end, 10);
  if (text.empty() || text.find_first_not_of("0123456789") != text.npos || *end || value < least ||
      value > kMost) {
    throw UserError(name + " " + text + ", expected a whole number from " + std::to_string(least) +
                    " to " + std::to_string(kMost) + "; check the value");
  }
  return static_cast<uint32_t>(value);
}

// '0,4-7'.
std::vector<int> parse_cores(const std::string& name, const std::string& text) {
  const std::optional<std::vector<int>> cores = bve::parse_cores(text);
  if (!cores || cores->empty() || cores->back() >= CPU_SETSIZE) {
    throw UserError(name + " " + text + ", expected cores below " + std::to_string(CPU_SETSIZE) +
                    ", as 0,4-7; check the value");
  }
  return *cores;
}

std::string name_isa(uint32_t isa) {
  char text[128];
  bve_name_isa(isa, text, sizeof text);
  return text;
}

uint32_t parse_isa(const std::string& text) {
  const uint32_t has = bve_detect_isa();
  uint32_t chosen = 0;
  for (const std::string& name : split(text)) {
    uint32_t bit = name == "scalar" ? BVE_ISA_SCALAR : 0;
    for (uint32_t b = 1; b && !bit; b <<= 1) {
      if ((has & b) && name == name_isa(b)) bit = b;
    }
    if (!bit) {
      throw UserError("--isa " + name + ", expected of scalar " + (has ? name_isa(has) : "") +
                      ", as this CPU has them; leave --isa out to use all");
    }
    chosen |= bit;
  }
  return chosen;
}

const Option kOptions[] = {
    {"--keep", "R", "run bench profile serve", "keep ratio; the file's first entry if not given",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.keeps = {static_cast<float>(parse_number(name, text, 0, 1))};
     }},
    {"--keeps", "R,R", "bench", "several keep ratios, their runs interleaved",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.keeps.clear();
       for (const std::string& keep : split(text)) {
         to.keeps.push_back(static_cast<float>(parse_number(name, keep, 0, 1)));
       }
     }},
    {"--input", "PATH", "run profile", "image: raw float32, [3, size, size]; 'random' if not given",
     [](Arguments& to, const std::string&, const std::string& text) { to.input = text; }},
    {"--nv21", "WxH", "run", "PICTURE is a camera's frame, raw NV21 of that size without gaps",
     [](Arguments& to, const std::string& name, const std::string& text) {
       const size_t middle = text.find('x');
       if (middle == text.npos)
         throw UserError(name + " " + text + ", expected as 1920x1080; check the value");
       to.nv21[0] = parse_count(name, text.substr(0, middle), 1);
       to.nv21[1] = parse_count(name, text.substr(middle + 1), 1);
     }},
    {"--rotation", "DEGREES", "run", "of that frame, clockwise, which turn it upright; 0",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.rotation = parse_count(name, text, 0);
     }},
    {"--threads", "T", "run bench profile serve", "threads, at most the cores it may use; 1",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.options.threads = parse_count(name, text, 1);
     }},
    {"--little-threads", "L", "run bench profile serve",
     "of these, how many run the LITTLE lane; 0: none",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.options.little_threads = parse_count(name, text, 0);
     }},
    {"--pin", nullptr, "run bench profile serve", "pin threads to cores, big ones first",
     [](Arguments& to, const std::string&, const std::string&) { to.options.pin = 1; }},
    {"--spin-us", "US", "run bench profile serve",
     "how long threads watch for work, else BVE_SPIN_US; 100",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.options.spin_us = parse_count(name, text, 1);
     }},
    {"--choose", nullptr, "run bench profile serve",
     "try what is fastest of up to so many threads, keep that",
     [](Arguments& to, const std::string&, const std::string&) { to.options.choose = 1; }},
    {"--isa", "NAMES", "run bench profile serve",
     "instruction sets to use, as scalar or neon,neondot; all",
     [](Arguments& to, const std::string&, const std::string& text) {
       to.options.isa = parse_isa(text);
     }},
    {"--cores", "LIST", "profile serve clock", "cores that it may run on, as 0,4-7; as it is",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.cores = parse_cores(name, text);
     }},
    {"--evict", nullptr, "serve", "the file leaves the system's cache before it is loaded",
     [](Arguments& to, const std::string&, const std::string&) { to.evict = true; }},
    {"--runs", "N", "bench profile", "timed runs; 200",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.runs = parse_count(name, text, 1);
     }},
    {"--seconds", "S", "bench kernels", "bench: so long, instead of --runs; kernels: for each, 0.1",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.seconds = parse_number(name, text, 0, 86400);
     }},
    {"--warmup", "N", "bench profile", "runs before these; 20",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.warmup = parse_count(name, text, 0);
     }},
    {"--pause-ms", "MS", "bench", "sleep so long before each run, as images come; 0",
     [](Arguments& to, const std::string& name, const std::string& text) {
       to.pause_ms = parse_count(name, text, 0);
     }},
    {"--ops", nullptr, "bench", "time by op and layer too, from as many runs more",
     [](Arguments& to, const std::string&, const std::string&) { to.ops = true; }},
    {"--by", "WHO", "hold", "what whoever comes meanwhile is told",
     [](Arguments& to, const std::string&, const std::string& text) { to.by = text; }},
    {"--filter", "TEXT", "kernels", "only kernels whose name contains it",
     [](Arguments& to, const std::string&, const std::string& text) { to.filter = text; }},
    {"--root", "DIR", "probe", "saved text of another machine: a folder with proc, sys and etc",
     [](Arguments& to, const std::string&, const std::string& text) { to.root = text; }},
};

struct Verb {
  const char* name;
  const char* what;
  const char* help;
};

const Verb kVerbs[] = {
    {"info", "FILE.bve", "check all of the file; what it holds, and what this CPU has"},
    {"run", "FILE.bve [PICTURE]", "one image to logits; PICTURE: PPM, JPEG or PNG"},
    {"bench", "FILE.bve", "latency, memory and cold load"},
    {"profile", "FILE.bve", "where its time goes: every op of 20 traced runs, the machine's roof"},
    {"serve", "FILE.bve", "load, then time images as stdin asks: for bigvit-edge bench"},
    {"watch", "FILE...", "what these files hold, as stdin asks: for bigvit-edge bench"},
    {"probe", "", "what this machine is: cores, clocks, limits, temperatures, power sensors"},
    {"hold", "FILE", "lock it until stdin ends: for bigvit-edge bench"},
    {"clock", "", "the clock that this core runs at, measured; periods that a quota has cut"},
    {"kernels", "", "each kernel's speed, checked before it is timed"},
};

// Levenshtein's.
size_t measure_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t corner = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = corner + (a[i] != b[j]);
      corner = row[j + 1];
      row[j + 1] = std::min({replaced, corner + 1, row[j] + 1});
    }
  }
  return row.back();
}

std::string find_nearest(const std::string& name, const std::vector<std::string>& known) {
  return *std::min_element(known.begin(), known.end(), [&](const auto& a, const auto& b) {
    return measure_distance(name, a) < measure_distance(name, b);
  });
}

std::string join(const std::vector<std::string>& words) {
  std::string joined;
  for (const std::string& word : words) joined += (joined.empty() ? "" : ", ") + word;
  return joined;
}

bool takes(const Option& option, const std::string& verb) {
  return (" " + std::string(option.verbs) + " ").find(" " + verb + " ") != std::string::npos;
}

const Option& find_option(const std::string& verb, const std::string& name) {
  std::vector<std::string> known;
  for (const Option& option : kOptions) {
    if (!takes(option, verb)) continue;
    if (name == option.name) return option;
    known.push_back(option.name);
  }
  if (known.empty()) throw UserError(name + ", expected no option for " + verb + "; leave it out");
  throw UserError(name + ", expected an option of " + verb + ": " + join(known) +
                  "; did you mean " + find_nearest(name, known) + "?");
}

const Verb& find_verb(const std::string& name) {
  std::vector<std::string> known;
  for (const Verb& verb : kVerbs) {
    if (name == verb.name) return verb;
    known.push_back(verb.name);
  }
  throw UserError(name + ", expected one of " + join(known) + "; did you mean " +
                  find_nearest(name, known) + "?");
}

std::string pad(std::string text, size_t width) {
  text.resize(std::max(width, text.size() + 2), ' ');
  return text;
}

}  // namespace

Arguments parse(const std::vector<std::string>& words) {
  Arguments to;
  for (const std::string& word : words) {
    if (word == "--help" || word == "-h") to.verb = "help";
    if (word == "--version") to.verb = "version";
    if (!to.verb.empty()) return to;
  }
  if (words.empty()) throw UserError("no command, expected one; see bve-run --help");
  const Verb& verb = find_verb(words[0]);
  to.verb = verb.name;
  std::vector<std::string> given;
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i].rfind("--", 0) != 0) {
      if (std::string_view(verb.what) == "FILE...") {
        to.files.push_back(words[i]);
        continue;
      }
      if (to.verb == "run" && !to.file.empty() && to.picture.empty()) {
        to.picture = words[i];
        continue;
      }
      if (!*verb.what || !to.file.empty()) {
        throw UserError(words[i] + ", expected " + (*verb.what ? "one file" : "no file") + " for " +
                        to.verb + "; leave it out");
      }
      to.file = words[i];
      continue;
    }
    const size_t equals = words[i].find('=');
    const std::string name = words[i].substr(0, equals);
    const Option& option = find_option(to.verb, name);
    const bool joined = equals != std::string::npos;
    if (!option.value && joined) {
      throw UserError(words[i] + ", expected " + name + " without a value; leave that out");
    }
    if (option.value && !joined && i + 1 == words.size()) {
      throw UserError(name + " at the end, expected a value; write " + name + " " + option.value);
    }
    if (std::count(given.begin(), given.end(), name)) {
      throw UserError(name + " twice, expected it once; leave one out");
    }
    option.set(to, name,
               joined         ? words[i].substr(equals + 1)
               : option.value ? words[++i]
                              : std::string());
    given.push_back(name);
  }
  for (const auto& [one, other] : {std::pair{"--keep", "--keeps"}, {"--runs", "--seconds"}}) {
    if (std::count(given.begin(), given.end(), one) &&
        std::count(given.begin(), given.end(), other)) {
      throw UserError(std::string(one) + " and " + other + ", expected one of them; leave one out");
    }
  }
  if (!to.picture.empty() && std::count(given.begin(), given.end(), "--input"))
    throw UserError("--input beside " + to.picture + ", expected one of them; leave one out");
  if (to.nv21[0] == 0 && to.rotation != 0)
    throw UserError("--rotation, expected a frame by --nv21 with it; leave it out");
  if (to.picture.empty() && to.nv21[0] != 0)
    throw UserError(
        "--nv21, expected the frame's file; write bve-run run FILE.bve FRAME --nv21 WxH");
  if (*verb.what && to.file.empty() && to.files.empty()) {
    throw UserError("no file, expected one; write bve-run " + to.verb + " " + verb.what);
  }
  return to;
}

std::string describe_usage() {
  std::string text = "bve-run: runs and measures .bve programs; prints JSON\n\n";
  for (const Verb& verb : kVerbs) {
    text += pad("  bve-run " + std::string(verb.name) + " " + verb.what, 30) + verb.help + "\n";
  }
  text += "\n";
  for (const Option& option : kOptions) {
    const std::string value = option.value ? " " + std::string(option.value) : "";
    text += pad("  " + std::string(option.name) + value, 24) +
            pad("[" + std::string(option.verbs) + "]", 28) + option.help + "\n";
  }
  return text + R"(
bench's figures
  load_ms, first_ms opening the file and starting a session, first run; from the page cache if it is there
  dispatch          the ops whose name ends in .router, as a share of all ops' time
  cpu_ms            CPU time a run, of all threads together, their watching for work included
  ops, layers       medians of further runs that take each op's time, summed over threads; run_ms is
                    those runs' median
  anonymous_bytes   peak bytes but for mapped files: the larger of the most anonymous memory seen (RssAnon
                    after each step) and the peak of all memory less the files' (VmHWM - RssFile)
)";
}

}  // namespace bve
