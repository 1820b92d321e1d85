// The host in a browser: models of the server that sent this page, or of this computer; runtimes in workers.

import { Fault } from "./numbers.js";
import { hashBytes } from "./result.js";

const NONE = "a browser tells neither cores, clocks and temperatures nor power";
const FORMATS = { ".onnx": "onnx", ".tflite": "litert" };
const RUNTIMES = { onnx: "onnxruntime-web", litert: "LiteRT.js" };
const OPS = /custom|unresolved|unsupported|no op registered|registration failed|not (implemented|registered)|no kernel/i;

const picked = new Map(); // files of this computer, by id
let pickedBefore = 0;
const kept = new Map(); // {handle, name} of results that this page sent, by our name: the server gives its own
const runners = new Set();
let wasHidden = document.hidden;
let wake = null;
let unlock = () => null;

document.addEventListener("visibilitychange", () => { wasHidden = wasHidden || document.hidden; });
if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the token, void by now

export const host = {
  name: "browser",
  warning: `These are a browser's figures, of WebAssembly: the same device is faster by its own runtimes.${
    self.crossOriginIsolated ? "" : " This page is not isolated across origins: whatever is asked for, it has one thread, and a coarse clock."}`,
  sources: ["gallery", "camera"],

  async about() {
    return { ...await ask("about"), device: `browser:${await nameBrowser()}` };
  },

  models: () => ask("models"),

  async pick() {
    const file = await choose(Object.keys(FORMATS).join(","));
    if (!file) return null;
    const format = FORMATS[file.name.slice(file.name.lastIndexOf(".")).toLowerCase()];
    if (!format) throw new Fault(file.name, `a file that ends in ${Object.keys(FORMATS).join(" or ")}`);
    const model = {
      id: `picked-${pickedBefore += 1}`, name: file.name, format, bytes: file.size, precision: "", preprocessing: null,
      labels: null, bundle: "", isGiven: true, sha256: hashBytes(new Uint8Array(await file.arrayBuffer())),
    };
    picked.set(model.id, file);
    const runner = await this.open(model, { name: null }, { threads: 1 }); // whether it is one
    const names = runner.ready.methods.length > 1 ? runner.ready.methods : [null];
    await runner.close();
    return { ...model, methods: names.map((name) => ({ name, keep: null, delegated_share: null })) };
  },

  async forget(model) {
    picked.delete(model.id);
  },

  async machine() {
    const told = await askAgent(["architecture", "bitness", "model", "platformVersion"]);
    const core = {
      online: true, midr: "", name: "", capacity: null, min_khz: null, max_khz: null, current_khz: null, governor: "",
      domain: null,
    };
    const count = navigator.hardwareConcurrency || 0;
    return {
      cpu: "", board: told.model || "", compatible: [], isa: [], clusters: [], zones: [], clocks: [], pmus: [],
      sensors: [], architecture: [told.architecture, told.bitness].filter(Boolean).join(" "),
      cores: Array.from({ length: count }, (_, number) => ({ number, ...core })),
      memory_bytes: null, available_bytes: null, throttled: null, perf_event_paranoid: null, kernel: "",
      os: [told.platform || navigator.platform, told.platformVersion].filter(Boolean).join(" "),
      limits: {
        allowed: null, group: "", cpuset: null, quota_cores: null, throttled_periods: null, throttled_us: null,
        usable: self.crossOriginIsolated ? count || null : 1,
      },
      unread: [{ path: "browser", why: NONE }],
    };
  },

  async open(model, method, policy) {
    const worker = new Worker("worker.js");
    const waiting = new Map();
    let ended = null;
    const fail = (text) => {
      ended = new Error(text);
      for (const { reject } of waiting.values()) reject(ended);
      waiting.clear();
    };
    worker.onmessage = ({ data: { number, value, error } }) => {
      const { resolve, reject } = waiting.get(number) || {};
      waiting.delete(number);
      if (resolve) (error === undefined ? resolve(value) : reject(new Error(error)));
    };
    worker.onerror = (event) => fail(`its runtime ended (${event.message || "out of memory, perhaps"})`);
    let count = 0;
    const call = (verb, words) => new Promise((resolve, reject) => {
      if (ended) throw ended; // nobody is left to answer
      waiting.set(count += 1, { resolve, reject });
      worker.postMessage({ number: count, verb, words });
    });
    const runner = {
      run: (seconds, images, period_ms) => call("run", { seconds, images, period_ms }),
      frames: (seconds, images, period_ms) => call("frames", { seconds, images, period_ms, how: model.preprocessing }),
      memory: () => call("memory"),
      answer: (image) => call("answer", { image }),
      async close() {
        worker.terminate();
        runners.delete(runner);
        fail("it was closed");
      },
    };
    runners.add(runner);
    const source = picked.get(model.id) || `models/${model.id}`;
    try {
      runner.ready = await call("open", {
        format: model.format, source, method: method.name, threads: policy.threads, origin: performance.timeOrigin,
      });
    } catch (error) {
      await runner.close();
      throw explain(model, error);
    }
    if (runner.ready.threads < policy.threads) {
      await runner.close();
      throw new Fault(`${policy.threads} threads for ${model.name}`, `${runner.ready.threads}: so many ${RUNTIMES[model.format]} has on this page`);
    }
    return runner;
  },

  profile: async () => null,

  async surroundings() {
    const foreground = !(wasHidden || document.hidden);
    wasHidden = document.hidden;
    return {
      foreground, cpuset: "", thermal_status: null, thermal_headroom: null, agent: navigator.userAgent,
      isolated: self.crossOriginIsolated,
    };
  },

  energy: async () => "not available: a browser tells no power",

  async picture(source) {
    const file = await choose("image/*", source === "camera");
    if (!file) return null;
    // Upright, and in the file's own colours, as the command line reads it.
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" })
      .catch(() => { throw new Fault(`${file.name}, which this browser cannot read`, "a picture, as PNG or JPEG"); });
    const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    return context.getImageData(0, 0, canvas.width, canvas.height);
  },

  async classify(model, method, pixels) {
    const runner = await this.open(model, method, { threads: 1 });
    try {
      return Array.from(await runner.answer(pixels));
    } finally {
      await runner.close();
    }
  },

  async keep(name, text) {
    const known = kept.get(name);
    const headers = { "content-type": "application/json" };
    const answer = await ask(known ? `results/${known.handle}` : "results", {
      method: known ? "PUT" : "POST", headers, body: text,
    });
    if (!known) kept.set(name, answer);
  },

  async results() {
    const ours = new Map(Array.from(kept, ([name, each]) => [each.name, name]));
    return (await ask("results")).map((name) => {
      const [, y, m, d, h, min, s] = name.match(/^web-(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)/);
      return { name: ours.get(name) || name, date: `${y}-${m}-${d}T${h}:${min}:${s}+00:00` };
    });
  },

  async read(name) {
    const there = kept.has(name) ? kept.get(name).name : name;
    return (await get(`results/${encodeURIComponent(there)}`)).text();
  },

  async remove(name) {
    if (!kept.has(name)) throw new Error(`${name} was sent by another page: delete it on the computer that served it`);
    await get(`results/${kept.get(name).handle}`, { method: "DELETE" });
    kept.delete(name);
  },

  async share(name) {
    const address = URL.createObjectURL(new Blob([await this.read(name)], { type: "application/json" }));
    Object.assign(document.createElement("a"), { href: address, download: name }).click();
    URL.revokeObjectURL(address);
  },

  /** While it measures the screen stays on, where the browser lets a page ask for that. */
  async hold() {
    await lock();
    wake = navigator.wakeLock ? await navigator.wakeLock.request("screen").catch(() => null) : null;
  },

  async release() {
    for (const runner of [...runners]) await runner.close();
    if (wake) await wake.release();
    wake = null;
    unlock();
  },

  pause: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  task: async () => null,
  done: async () => null,
};

/** One run at a time, of all tabs, where the browser has locks. */
const lock = () => navigator.locks && new Promise((resolve, reject) => {
  navigator.locks.request("measuring", { ifAvailable: true }, (held) => {
    if (!held) return reject(new Error("another tab of this browser is measuring: both would be slower"));
    resolve();
    return new Promise((free) => { unlock = free; });
  });
});

async function get(path, options) {
  const response = await fetch(path, options).catch(() => { throw new Error("the server that sent this page is gone"); });
  if (!response.ok) throw new Error(await response.text());
  return response;
}

const ask = async (path, options) => (await get(path, options)).json();

function explain(model, error) {
  const runtime = RUNTIMES[model.format];
  const why = OPS.test(error.message) ? `${runtime} lacks an op of it, in WebAssembly` : `${runtime} cannot open it`;
  return new Error(`${model.name}: ${why} (${error.message})`);
}

/** A file of this computer, or null. */
const choose = (accept, isCamera = false) => new Promise((resolve) => {
  const input = Object.assign(document.createElement("input"), { type: "file", accept });
  if (isCamera) input.capture = "environment";
  input.onchange = () => resolve(input.files[0] || null);
  input.oncancel = () => resolve(null);
  input.click();
});

/** What the browser says of its machine, where it does at all. */
async function askAgent(hints) {
  const data = navigator.userAgentData;
  return data ? await data.getHighEntropyValues(hints).catch(() => ({})) : {};
}

async function nameBrowser() {
  const { brands = [], platform } = navigator.userAgentData || {};
  const known = brands.filter(({ brand }) => !/not.?a.?brand/i.test(brand));
  const best = known.find(({ brand }) => brand !== "Chromium") || known[0];
  if (best) return `${best.brand} ${best.version}${platform ? ` on ${platform}` : ""}`;
  const [, name, version] = navigator.userAgent.match(/(Edg|Firefox|Chrome|Version)\/(\d+)/) || [];
  return name ? `${name === "Version" ? "Safari" : name} ${version}` : "unknown";
}
