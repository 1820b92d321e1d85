// A file in its WebAssembly runtime, in a worker of its own: `bve-run serve` of a browser. A classic worker, because
// LiteRT.js loads its runtime by importScripts; it ends with its memory when the page ends it.

const TICKS = 20; // of the clock, that a time takes at least: it is the mean of as many images as that needs
const SEED = 0; // of the image: any would do
const ARRAYS = { float32: Float32Array, uint8: Uint8Array }; // an image of that type
const FAINTEST = 2 ** -126; // of a probability whose logarithm is asked, as bigvit_edge/artifact.py's
const FRAME = [1080, 1920]; // pixels of a camera's frame that is held upright
const NEAR_MS = 5; // before an image is due: from then on the clock is watched, as timers are late

const workers = [];
const memories = [];
// What a runtime started and took is read back here; neither says so itself.
self.Worker = class extends self.Worker {
  constructor(...words) {
    super(...words);
    this.told = 0;
    workers.push(this);
  }

  postMessage(...words) {
    this.told += 1;
    super.postMessage(...words);
  }
};
const countThreads = () => 1 + workers.filter((worker) => worker.told > 1).length; // told to load first, then to run
const { Memory } = WebAssembly;
WebAssembly.Memory = function (...words) {
  memories.push(new Memory(...words));
  return memories[memories.length - 1];
};
WebAssembly.Memory.prototype = Memory.prototype;

let origin_ms; // of the page's clock, on this one's
let opened;
const now = () => performance.now();

const VERBS = {
  async open({ format, source, method, threads, origin }) {
    origin_ms = origin - performance.timeOrigin;
    const bytes = new Uint8Array(source instanceof Blob ? await source.arrayBuffer() : await get(source));
    opened = await RUNTIMES[format](bytes, method, threads);
    const { shape, dtype } = opened;
    if (!ARRAYS[dtype]) throw new Error(`it takes ${dtype}, expected ${Object.keys(ARRAYS).join(" or ")}`);
    if (!shape.every((side) => Number.isInteger(side) && side > 0)) {
      throw new Error(`it takes an image of shape [${shape}], expected one of a fixed size; export the model for one`);
    }
    opened.image = drawNoise(shape.reduce((a, b) => a * b), dtype);
    const start = now();
    await opened.run(opened.image);
    const first_ms = now() - start;
    opened.tick_ms = measureTick();
    const started = countThreads();
    return {
      runtime: opened.runtime, version: opened.version, load_ms: opened.load_ms, first_ms, cached_share: null,
      threads: started, cores_allowed: [], image_floats: opened.image.length, session: {},
      methods: opened.methods,
      build: {
        backend: opened.backend, threads: started, isolated: self.crossOriginIsolated,
        tick_us: Math.round(opened.tick_ms * 1e4) / 10, mean_ms: Math.round(TICKS * opened.tick_ms * 1e4) / 1e4,
        times: `back to back, each the mean of images that took mean_ms together; paced, each of one`,
        memory: "of the runtime's heap alone",
      },
    };
  },

  /** Paced images are timed one by one, however coarse the clock is. */
  async run({ seconds, images, period_ms }) {
    const least_ms = period_ms ? 0 : TICKS * opened.tick_ms;
    const times_ms = [];
    await opened.run(opened.image); // what rested meanwhile is awake again
    const start = now();
    const end = start + seconds * 1e3;
    let [due, last] = [start + period_ms, start];
    while (times_ms.length < images || last < end) {
      if (period_ms) await waitFor(due);
      due += period_ms;
      const before = now();
      let count = 0;
      do {
        await opened.run(opened.image);
        last = now();
        count += 1;
      } while (last - before < least_ms);
      times_ms.push(Math.max(last - before, opened.tick_ms / 2) / count);
    }
    return {
      start_ns: toNs(start), end_ns: toNs(last), times_ms, cpu_ms: null, clock_mhz: [null, null], cores: {},
      thread_ms: {}, throttled_periods: null,
    };
  },

  /** From what a page gets of a camera to the class: prepared by picture.js, run, the largest logit found. */
  async frames({ seconds, images, period_ms, how }) {
    if (!how) return { lack: "neither the file nor its bundle says how pictures are prepared" };
    const { preparePicture } = await import("./picture.js");
    const frame = opened.frame || (opened.frame = drawFrame());
    const label = async () => {
      const before = now();
      const { pixels } = preparePicture(frame, how);
      const prepared = now();
      findLargest(await opened.run(checkImage(pixels)));
      return [before, prepared, now()];
    };
    await label(); // what rested meanwhile is awake again
    const start = now();
    const end = start + seconds * 1e3;
    const [label_ms, prepare_ms] = [[], []];
    let [due, last] = [start + period_ms, start];
    while (label_ms.length < images || last < end) {
      if (period_ms) await waitFor(due);
      due += period_ms;
      let [before, prepared] = [0, 0];
      [before, prepared, last] = await label();
      prepare_ms.push(Math.max(prepared - before, opened.tick_ms / 2));
      label_ms.push(Math.max(last - before, opened.tick_ms / 2));
    }
    return {
      frame: `${FRAME.join("x")} RGBA, upright`, prepared_by: "picture.js", start_ns: toNs(start), end_ns: toNs(last),
      label_ms, prepare_ms,
    };
  },

  async memory() {
    const bytes = opened.heap() || memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
    return { peak_bytes: bytes, anonymous_bytes: bytes }; // a heap never shrinks
  },

  /** Logits; of a file that answers probabilities their logarithms, which are those less a number. */
  async answer({ image }) {
    const answer = Float32Array.from(await opened.run(checkImage(image)));
    return opened.output === "probabilities" ? answer.map((each) => Math.log(Math.max(each, FAINTEST))) : answer;
  },
};

self.onmessage = async ({ data: { number, verb, words } }) => {
  try {
    self.postMessage({ number, value: await VERBS[verb](words) });
  } catch (error) {
    self.postMessage({ number, error: explain(error) });
  }
};

// ---- runtimes: (bytes, method, threads) =>
// {runtime, version, backend, methods, shape, dtype, output: what it calls its answer, load_ms, heap, run}

const RUNTIMES = {
  async onnx(bytes, method, threads) {
    const ort = await import("./npm/ort.wasm.min.mjs");
    const part = (end) => new URL(`npm/ort-wasm-simd-threaded.${end}`, self.location).href;
    ort.env.wasm.wasmPaths = { mjs: part("mjs"), wasm: part("wasm") };
    ort.env.wasm.numThreads = threads;
    ort.env.logLevel = "fatal";
    await ort.InferenceSession.create(new Uint8Array(1)).catch(() => null); // refused, but the runtime is there then
    const start = now();
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    const load_ms = now() - start;
    const { name, shape, type } = takeOnly(session.inputMetadata, session.outputNames);
    const [output] = session.outputNames;
    return {
      runtime: "onnx", version: `onnxruntime-web ${ort.env.versions.web}`, backend: "WebAssembly",
      methods: [], shape, dtype: type, output, load_ms, heap: () => 0,
      async run(image) {
        const answer = (await session.run({ [name]: new ort.Tensor(type, image, shape) }))[output];
        const logits = answer.data;
        answer.dispose();
        return logits;
      },
    };
  },

  async litert(bytes, method, threads) {
    const foreign = listCustomOps(bytes);
    if (foreign.length) throw new Error(`custom op ${foreign.join(", ")}`);
    const core = await import("./npm/litert.js");
    const isThreaded = threads > 1 && self.crossOriginIsolated && await core.supportsFeature("relaxedSimd");
    const names = ["_compat", ""]; // without relaxed SIMD there are no threads either
    const kind = isThreaded ? "_threaded" : names[Number(await core.supportsFeature("relaxedSimd"))];
    const said = [];
    const locate = (file) => new URL(`npm/${file}`, self.location).href;
    self.Module = {
      locateFile: locate, mainScriptUrlOrBlob: locate(`litert_wasm${kind}_internal.js`),
      printErr: (line) => /^(ERROR|FATAL)/.test(line) && said.push(line), print: () => null,
    };
    Object.defineProperty(navigator, "gpu", { value: { requestAdapter: async () => null } }); // nor is one woken
    const wasm = (await core.loadLiteRt(locate(""), { threads: isThreaded })).liteRtWasm;
    const asked = isThreaded ? threads : 1;
    const start = now();
    const model = await core.loadAndCompile(bytes, { accelerator: "wasm", cpuOptions: { numThreads: asked } })
      .catch((error) => { throw new Error([...said, explain(error)].map(strip).filter(Boolean).join(" ")); });
    const load_ms = now() - start;
    const methods = Object.keys(model.signatures);
    if (methods.length > 1 && method && !methods.includes(method)) throw new Error(`it has no entry point ${method}`);
    const runner = methods.length > 1 ? model.signatures[method || methods[0]] : model;
    const { shape, dtype } = takeOnly(runner.getInputDetails(), runner.getOutputDetails());
    const sides = Array.from(shape);
    return {
      runtime: "litert", version: `@litertjs/core ${VERSION}`, backend: "WebAssembly, XNNPACK",
      methods, shape: sides, dtype, output: runner.getOutputDetails()[0].name, load_ms,
      heap: () => wasm.HEAPU8.buffer.byteLength,
      async run(image) {
        const tensor = new core.Tensor(image, sides);
        const [answer] = await runner.run(tensor);
        const logits = answer.toTypedArray().slice();
        tensor.delete();
        answer.delete();
        return logits;
      },
    };
  },
};
const strip = (line) => line.replace(/(ERROR|FATAL): (\[[^\]]*\] *)?/g, "").trim();
const VERSION = "2.5.3"; // which LiteRT.js does not say itself

/** Ops of a .tflite that are none of LiteRT's own. LiteRT.js passes over them without a word, and answers with what
 * lay in memory. Read as bigvit_edge/runtime/tflite.py does. */
function listCustomOps(bytes) {
  const view = new DataView(bytes.buffer);
  const find = (table, field) => {
    const layout = table - view.getInt32(table, true);
    const slot = 4 + 2 * field;
    const offset = slot < view.getUint16(layout, true) ? view.getUint16(layout + slot, true) : 0;
    return offset ? table + offset : 0;
  };
  const follow = (place) => place + view.getUint32(place, true);
  try {
    const place = find(follow(0), 1);
    const codes = place && follow(place);
    return !codes ? [] : Array.from({ length: view.getUint32(codes, true) }, (_, i) => {
      const code = follow(codes + 4 + 4 * i);
      const name = find(code, 1);
      const text = name && follow(name);
      return text ? new TextDecoder().decode(bytes.subarray(text + 4, text + 4 + view.getUint32(text, true))) : "";
    }).filter(Boolean);
  } catch (error) {
    throw new Error("it is no .tflite, or a damaged one");
  }
}

function takeOnly(inputs, outputs) {
  if (inputs.length === 1 && outputs.length === 1) return inputs[0];
  throw new Error(`${inputs.length} inputs and ${outputs.length} outputs, expected an image and its logits`);
}

// ---- the clock

/** The clock's step, in ms: 0.005 where the page is isolated, 0.1 elsewhere, or coarser. */
function measureTick() {
  let least = Infinity;
  for (let i = 0; i < 10; i++) {
    const start = now();
    let next = start;
    while (next === start) next = now();
    least = Math.min(least, next - start);
  }
  return least;
}

async function waitFor(due) {
  const far = due - now() - NEAR_MS;
  if (far > 0) await new Promise((resolve) => setTimeout(resolve, far));
  while (now() < due); // an image that comes too early would find the core awake
}

const toNs = (ms) => Math.round((ms - origin_ms) * 1e6);

// ---- the rest

async function get(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(await response.text());
  return await response.arrayBuffer();
}

/** [-2, 2) in float32, all levels in uint8. */
function drawNoise(count, dtype) {
  let state = SEED;
  return ARRAYS[dtype].from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return dtype === "uint8" ? state >>> 24 : state / 2 ** 30;
  });
}

/** An ImageData's fields, as a page has a camera's frame from a canvas. */
function drawFrame() {
  const [width, height] = FRAME;
  const data = new Uint8ClampedArray(4 * width * height);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i += 4) {
      data[i] = (31 * x + 17 * y) & 255;
      data[i + 1] = (7 * x + 11 * y) & 255;
      data[i + 2] = (13 * x + 5 * y) & 255;
      data[i + 3] = 255;
    }
  }
  return { width, height, data };
}

/** An image that the file takes; Error otherwise. */
function checkImage(image) {
  const tell = (array) => `${array.length} numbers in ${array.constructor.name}`;
  if (tell(image) !== tell(opened.image)) throw new Error(`an image of ${tell(image)}; expected ${tell(opened.image)}`);
  return image;
}

const findLargest = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

const explain = (error) => String((error && error.message) || error).split("\n")[0].slice(0, 400);
