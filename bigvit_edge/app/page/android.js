// The host on a phone: the app's Java behind window.bveAndroid, and bve-run, which it starts.

import { subtract } from "./meters.js";
import { Fault } from "./numbers.js";

const POWER_MS = 10e3; // of the idle machine and of images: the meters of an app's are read seldom
const MOST_MEGAPIXELS = 50;

const waiting = new Map();
let last = 0;
let open = null; // the program that measures now
let away = 0; // how often the app had left the screen, when it was asked last
let tool = ""; // bve-run's version, which is bigvit-edge's
let command = ["bigvit-bench"];

window.bve = {
  ...window.bve,
  answer(id, ok, json) {
    const [resolve, reject] = waiting.get(id);
    waiting.delete(id);
    if (ok) resolve(JSON.parse(json));
    else reject(new Error(JSON.parse(json).replace(/^bve-run: /, "")));
  },
};

const call = (verb, words = {}) => new Promise((resolve, reject) => {
  const id = String(++last);
  waiting.set(id, [resolve, reject]);
  window.bveAndroid.call(id, verb, JSON.stringify(words));
});

/** What a program prints until its end. Error with its last words where it fails. */
async function runWords(words) {
  const { process } = await call("start", { words });
  const lines = [];
  try {
    for (;;) {
      const { line, end } = await call("read", { process });
      if (end && end.status) throw new Error(explain(end));
      if (end) return lines.join("\n");
      lines.push(line);
    }
  } finally {
    await call("stop", { process });
  }
}

const explain = ({ error }) => error.trim().split("\n").pop().replace(/^bve-run: /, "") || "bve-run has ended";

/** A model as a .bve says of itself, and its bundle's manifest, if there is one. */
function describe({ id, name, format, bytes, sha256, info, entry }) {
  const { metadata, precision, entries } = info.program;
  tool = info.machine.version;
  const methods = entry ? entry.methods.map((method) => ({
    name: method.name, keep: method.keep,
    delegated_share: Math.max(0, 1 - method.leftovers.reduce((total, each) => total + each.mac_share, 0)),
  })) : entries.map((each) => ({ name: each.name, keep: each.keep || null, delegated_share: null }));
  return {
    id, name, format, bytes, sha256, precision: entry ? entry.precision : precision, methods,
    isGiven: id.startsWith("given/"),
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
    const { line, end } = await call("read", { process: this.process });
    if (end) throw new Error(explain(end));
    return JSON.parse(line);
  }

  async ask(line) {
    await call("write", { process: this.process, line });
    return this.read();
  }

  run(seconds, images, period_ms) {
    return this.ask(`run ${seconds} ${images} ${period_ms}`);
  }

  frames(seconds, images, period_ms) {
    return this.ask(`frame ${seconds} ${images} ${period_ms}`);
  }

  memory() {
    return this.ask("memory");
  }

  close() {
    if (open === this.process) open = null;
    return call("stop", { process: this.process });
  }
}

const spellPolicy = ({ threads, cores, little_threads, choose }) => [
  "--threads", String(threads), ...(cores ? ["--cores", cores.join(",")] : []),
  ...(little_threads ? ["--little-threads", String(little_threads)] : []), ...(choose ? ["--choose"] : []),
];

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
    const met = `a picture of ${Math.round(megapixels)} megapixels`;
    throw new Fault(met, `${MOST_MEGAPIXELS} at the most`, "choose another");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

export const host = {
  name: "app",
  sources: ["gallery", "camera"],
  warning: "",
  about: async () => ({ device: `app:${(await call("machine")).phone.name}`, tool, command }),
  models: async () => (await call("models")).map(describe),
  pick: async () => {
    const told = await call("pick");
    return told && describe(told);
  },
  forget: (model) => call("forget", { model: model.id }),
  machine: async () => (await call("machine")).machine,
  open: async (model, method, policy, { evict }) => {
    const words = ["serve", { model: model.id }, ...spellPolicy(policy), ...spellKeep(method)];
    if (evict) words.push("--evict");
    const runner = new Runner((await call("start", { words })).process);
    open = runner.process;
    try {
      runner.ready = await runner.read();
    } catch (error) {
      await runner.close();
      throw error;
    }
    return runner;
  },
  profile: async (model, method, input, { policy, runs }) => {
    const given = input ? await put(input) : [];
    const words = ["profile", { model: model.id }, ...given, ...spellPolicy(policy), "--runs", String(runs)];
    return JSON.parse(await runWords([...words, ...spellKeep(method)]));
  },
  classify: async (model, method, input) => (
    JSON.parse(await runWords(["run", { model: model.id }, ...await put(input), ...spellKeep(method)])).logits
  ),
  surroundings: async () => {
    const { agent, ...told } = await call("surroundings", open ? { process: open } : {});
    const stayed = told.away === away;
    away = told.away;
    return { ...told, foreground: told.foreground && stayed };
  },
  energy: async (runner, fps) => {
    const before = await call("power");
    await call("pause", { ms: POWER_MS });
    const idle = await call("power");
    const turn = await runner.run(POWER_MS / 1e3, 3, fps ? 1e3 / fps : 0);
    const after = await call("power");
    const { power_w: idle_w } = subtract(before, idle, POWER_MS);
    const { power_w, seconds, names } = subtract(idle, after, POWER_MS);
    const image_s = (turn.end_ns - turn.start_ns) / 1e9 / turn.times_ms.length;
    return {
      image_mj: power_w * image_s * 1e3, above_idle_mj: (power_w - idle_w) * image_s * 1e3, power_w, idle_w, seconds,
      samples: 2, source: `Android's power monitors: ${names.join(", ")}`,
      scale: "microwatt-seconds, as PowerMonitorReadings documents",
    };
  },
  picture: async (source) => {
    const told = await call("picture", { source });
    return told && decode(told.url);
  },
  keep: (name, text) => call("keep", { name, text }),
  results: () => call("results"),
  read: async (name) => (await call("read_result", { name })).text,
  share: (name) => call("share", { name }),
  remove: (name) => call("remove", { name }),
  hold: (text) => call("hold", { text }),
  release: () => call("release"),
  pause: (ms) => call("pause", { ms }),
  task: async () => {
    const plan = await call("task");
    if (!plan) return null;
    command = plan.command || command;
    return { ...plan, models: plan.models.map(({ model, ...named }) => ({ ...describe(model), ...named })) };
  },
  done: (name, error, refused = false) => call("done", { name, error, refused }),
};
