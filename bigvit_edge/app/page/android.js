// The host on a phone: the app's Java behind window.bveAndroid, and bve-run, which it starts.

import { Fault } from "./numbers.js";
import { NOT_AVAILABLE } from "./result.js";

const POWER_MS = 10e3; // of the idle machine and of images: the meters of an app's are read seldom
const MOST_MEGAPIXELS = 50;
const LEAST_SHARE = 0.5; // of that, that a meter's own clock must have gone on by

const waiting = new Map();
let last = 0;

window.bve = {
  ...window.bve,
  answer(id, ok, json) {
    const [resolve, reject] = waiting.get(id);
    waiting.delete(id);
    if (ok) resolve(JSON.parse(json));
    else reject(new Error(JSON.parse(json)));
  },
};

const call = (verb, words = {}) => new Promise((resolve, reject) => {
  waiting.set(++last, [resolve, reject]);
  window.bveAndroid.call(last, verb, JSON.stringify(words));
});

/** A program's lines until its end. Error with its last words where it fails. */
async function runWords(words) {
  const { process } = await call("start", { words });
  const lines = [];
  for (;;) {
    const told = await call("read", { process });
    if (told.line === undefined) {
      if (told.status) throw new Error(explain(told));
      return lines.join("\n");
    }
    lines.push(told.line);
  }
}

function explain({ status, error }) {
  const words = error.trim().split("\n").pop().replace(/^bve-run: /, "");
  if (words) return words;
  return status === 137 || status === -9 ? "the system ended it: its memory does not suffice" : `bve-run ended with status ${status}`;
}

/** A model as a .bve says of itself, and its bundle's manifest, if there is one. */
async function describe({ id, name, bytes, sha256, bundle, entry }) {
  const { program } = JSON.parse(await runWords(["info", { model: id }]));
  const { metadata } = program;
  const methods = entry ? entry.methods.map((method) => ({
    name: method.name, keep: method.keep,
    delegated_share: Math.max(0, 1 - method.leftovers.reduce((total, each) => total + each.mac_share, 0)),
  })) : program.entries.map((each) => ({ name: each.name, keep: each.keep || null, delegated_share: null }));
  return {
    id, name, format: "bve", bytes, sha256, precision: entry ? entry.precision : program.precision, bundle, methods,
    preprocessing: parse(metadata.preprocessing), labels: parse(metadata.labels) || [],
  };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    return null;
  }
}

class Runner {
  constructor(process) {
    this.process = process;
  }

  async read() {
    const told = await call("read", { process: this.process });
    if (told.line === undefined) throw new Error(explain(told));
    return JSON.parse(told.line);
  }

  async ask(line) {
    await call("write", { process: this.process, line });
    return this.read();
  }

  run(seconds, images, period_ms) {
    return this.ask(`run ${seconds} ${images} ${period_ms}`);
  }

  memory() {
    return this.ask("memory");
  }

  close() {
    return call("stop", { process: this.process });
  }
}

const spellKeep = (method) => (method.keep ? ["--keep", String(method.keep)] : []);

async function put(input) {
  const bytes = new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  await call("put", { name: "image.f32", base64: btoa(text) });
  return ["--input", { scratch: "image.f32" }];
}

async function decode(url) {
  const image = new Image();
  image.src = url;
  await image.decode().catch(() => {
    throw new Fault("what cannot be read as a picture", "a photo, such as a JPEG or PNG", "choose another");
  });
  const megapixels = (image.naturalWidth * image.naturalHeight) / 1e6;
  if (megapixels > MOST_MEGAPIXELS) {
    throw new Fault(`a picture of ${Math.round(megapixels)} megapixels`, `${MOST_MEGAPIXELS} at the most`, "choose another");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

const sumRails = (rails) => rails.reduce((total, rail) => total + rail.uj, 0);

/** Joules and seconds between two readings of the meters, by their own clock. */
function subtract(before, after) {
  const seconds = (Math.max(...after.map((rail) => rail.t_ms)) - Math.max(...before.map((rail) => rail.t_ms))) / 1e3;
  if (seconds < (LEAST_SHARE * POWER_MS) / 1e3) throw new Error("the phone's power meters did not go on meanwhile");
  return [(sumRails(after) - sumRails(before)) / 1e6, seconds];
}

export const host = {
  name: "app",
  sources: ["gallery", "camera"],
  warning: "",
  about: async () => {
    const { device, tool } = await call("about");
    return { device: `app:${device}`, tool, command: ["bigvit-bench"] };
  },
  models: async () => {
    const models = [];
    for (const told of await call("models")) models.push(await describe(told));
    return models;
  },
  pick: async () => {
    const told = await call("pick");
    if (!told) return null;
    try {
      return await describe(told);
    } catch (error) {
      await call("forget", { model: told.id });
      throw new Error(`${told.name} is no model that runs here: ${error.message}`);
    }
  },
  machine: async () => JSON.parse(await runWords(["probe"])),
  open: async (model, method, policy, { evict }) => {
    const words = ["serve", { model: model.id }, "--threads", String(policy.threads)];
    if (policy.cores) words.push("--cores", policy.cores.join(","));
    if (evict) words.push("--evict");
    words.push(...spellKeep(method));
    if (policy.little_threads) words.push("--little-threads", String(policy.little_threads));
    if (policy.choose) words.push("--choose");
    const runner = new Runner((await call("start", { words })).process);
    try {
      runner.ready = await runner.read();
    } catch (error) {
      await runner.close();
      throw error;
    }
    return runner;
  },
  profile: async (model, method, input, { threads }) => {
    const given = input ? await put(input) : [];
    return JSON.parse(await runWords(["profile", { model: model.id }, ...given, "--threads", String(threads), ...spellKeep(method)]));
  },
  classify: async (model, method, input) => (
    JSON.parse(await runWords(["run", { model: model.id }, ...await put(input), ...spellKeep(method)])).logits
  ),
  surroundings: () => call("surroundings"),
  energy: async (runner, fps) => {
    const before = await call("power").catch((error) => error.message);
    if (typeof before === "string") return `${NOT_AVAILABLE}: ${before}`;
    await call("pause", { ms: POWER_MS });
    const idle = await call("power");
    const turn = await runner.run(POWER_MS / 1e3, 3, fps ? 1e3 / fps : 0);
    const [idle_j, idle_s] = subtract(before, idle);
    const [run_j, run_s] = subtract(idle, await call("power"));
    const image_s = (turn.end_ns - turn.start_ns) / 1e9 / turn.times_ms.length;
    const [power_w, idle_w] = [run_j / run_s, idle_j / idle_s];
    return {
      image_mj: power_w * image_s * 1e3, above_idle_mj: (power_w - idle_w) * image_s * 1e3, power_w, idle_w,
      seconds: run_s, samples: 2, source: `Android's power monitors: ${idle.map((rail) => rail.rail).join(", ")}`,
      scale: "microwatt-seconds, as PowerMonitorReadings documents",
    };
  },
  picture: async (source) => {
    const told = await call("picture", { source });
    return told && decode(told.url);
  },
  keep: (name, text) => call("keep", { name, text }),
  results: () => call("results"),
  read: (name) => call("read_result", { name }),
  share: (name) => call("share", { name }),
  remove: (name) => call("remove", { name }),
  hold: (text) => call("hold", { text }),
  release: () => call("release"),
  pause: (ms) => call("pause", { ms }),
  task: () => call("task"),
  done: (name, error) => call("done", { name, error }),
};
