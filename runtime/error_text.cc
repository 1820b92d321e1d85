#include "error_text.h"

#include <cstring>

namespace bve {
namespace {

// In the last bytes of a bve_error: how many bytes its text has of each.
struct Lengths {
  uint16_t met, expected;
};
constexpr size_t kRoom = BVE_ERROR_BYTES - sizeof(Lengths) - 1;  // the text's, without its 0

// How many bytes of it are kept of a part for which there is so much room.
size_t cut(std::string_view part, size_t room) {
  if (part.size() <= room) return part.size();
  while (room > 0 && (part[room] & 0xc0) == 0x80) --room;
  return room;
}

void copy(char (&to)[BVE_ERROR_BYTES], std::string_view part) {
  std::memcpy(to, part.data(), part.size());
  to[part.size()] = '\0';
}

}  // namespace

void set_error(bve_error* error, std::string_view met, std::string_view expected,
               std::string_view to_do) {
  if (!error) return;
  size_t end = 0;
  const auto append = [&](std::string_view before, std::string_view part) -> size_t {
    const size_t start = end + before.size();
    const size_t kept = start < kRoom ? cut(part, kRoom - start) : 0;
    if (kept == 0) return 0;
    std::memcpy(error->text + end, before.data(), before.size());
    std::memcpy(error->text + start, part.data(), kept);
    end = start + kept;
    return kept;
  };
  Lengths lengths{};
  lengths.met = static_cast<uint16_t>(append("", met));
  lengths.expected = static_cast<uint16_t>(append(kBeforeExpected, expected));
  append(kBeforeToDo, to_do);
  error->text[end] = '\0';
  std::memcpy(error->text + kRoom + 1, &lengths, sizeof lengths);
}

}  // namespace bve

// An error that an app has written itself, or copied up to its 0, has no lengths that fit.
void bve_error_parts(const bve_error* error, bve_parts* parts) {
  using namespace bve;
  const std::string_view text(error->text, strnlen(error->text, BVE_ERROR_BYTES - 1));
  Lengths lengths;
  std::memcpy(&lengths, error->text + kRoom + 1, sizeof lengths);
  std::string_view met = text.substr(0, lengths.met), rest = text.substr(met.size()), expected;
  const auto begins = [&](std::string_view before) {
    return rest.substr(0, before.size()) == before;
  };
  bool fits = text.size() <= kRoom && met.size() == lengths.met;
  if (lengths.expected > 0) {
    fits &= begins(kBeforeExpected) && rest.size() - kBeforeExpected.size() >= lengths.expected;
    if (fits) {
      expected = rest.substr(kBeforeExpected.size(), lengths.expected);
      rest = rest.substr(kBeforeExpected.size() + lengths.expected);
    }
  }
  fits &= rest.empty() || begins(kBeforeToDo);
  copy(parts->met, fits ? met : text);
  copy(parts->expected, fits ? expected : "");
  copy(parts->to_do, fits && !rest.empty() ? rest.substr(kBeforeToDo.size()) : "");
}
