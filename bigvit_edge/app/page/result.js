// A measurement as a file, version 1: what bigvit_edge/results.py reads, compare too.

export const VERSION = 1;
export const NOT_AVAILABLE = "not available";

/** A row before it was measured. what: file, sha256, bytes, format, precision, keep, method, delegated_share, policy,
 * threads, cores_asked, launch. */
export const makeRow = (what) => ({
  ...what, runtime: "", build: null, cores_allowed: [], warmup_images: 0, warm: false, turns: [], latency_ms: null,
  cpu_ms: null, first_minute_ms: null, last_minute_ms: null, load: null, memory: null, energy: NOT_AVAILABLE,
  answers: NOT_AVAILABLE, verdicts: [], reasons: [], error: "", throttled_share: null, surroundings: null,
  frame: NOT_AVAILABLE,
});

/** A row's name apart from its neighbours, as results.Row.name. */
export function nameRow(row) {
  const keep = row.keep === null ? "" : ` keep ${row.keep}`;
  return `${row.file}${keep} on ${row.policy}, ${row.threads} thread${row.threads > 1 ? "s" : ""}`;
}

/** The text of a result file, and its hash in it, for read_result. */
export function writeResult(result) {
  const { sha256: _, ...data } = result;
  return `${layOut({ ...data, sha256: hashText(spell(data)) }, 0)}\n`;
}

/** The result in a text. Error if it is none, or was edited after the measurement. */
export function readResult(text) {
  const { sha256, ...data } = JSON.parse(text);
  if (data.version !== VERSION) throw new Error("no result of this version");
  if (sha256 !== hashText(spell(data))) throw new Error("it was edited after the measurement, or only a part is there");
  return { ...data, sha256 };
}

/** json.dumps(value, sort_keys=True), as Python would spell the same JSON after it was read. */
export function spell(value) {
  if (Array.isArray(value)) return `[${value.map(spell).join(", ")}]`;
  if (typeof value === "number") return spellNumber(value);
  if (typeof value === "string") return spellText(value);
  if (value === null || typeof value === "boolean") return String(value);
  const keys = Object.keys(value).sort(comparePoints);
  return `{${keys.map((key) => `${spellText(key)}: ${spell(value[key])}`).join(", ")}}`;
}

function spellNumber(x) {
  if (!Number.isFinite(x)) throw new RangeError(`a result cannot hold the number ${x}`);
  const size = Math.abs(x);
  const [mantissa, power] = (size < 1e-4 && size > 0 ? x.toExponential() : String(x)).split("e");
  if (power === undefined) return mantissa;
  return `${mantissa}e${power[0]}${power.slice(1).padStart(2, "0")}`;
}

const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f", "\b": "\\b", '"': '\\"', "\\": "\\\\" };

const spellText = (text) => `"${text.replace(/[^ !#-[\]-~]/g, (letter) => (
  SHORT[letter] || `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`
))}"`;

/** By code points, as Python sorts; UTF-16's surrogates stand before U+E000, what they mean stands behind. */
function comparePoints(one, other) {
  const [a, b] = [Array.from(one), Array.from(other)];
  const at = a.findIndex((letter, i) => letter !== b[i]);
  if (at < 0) return a.length - b.length;
  return at < b.length ? a[at].codePointAt(0) - b[at].codePointAt(0) : 1;
}

/** Indented by one, with lists of plain values on one line: they are most of the file. */
function layOut(value, indent) {
  const [inner, outer] = [" ".repeat(indent + 1), " ".repeat(indent)];
  if (Array.isArray(value)) {
    if (!value.some((item) => item !== null && typeof item === "object")) return spell(value);
    return `[\n${value.map((item) => inner + layOut(item, indent + 1)).join(",\n")}\n${outer}]`;
  }
  if (value === null || typeof value !== "object" || !Object.keys(value).length) return spell(value);
  const fields = Object.keys(value).map((key) => `${inner}${spellText(key)}: ${layOut(value[key], indent + 1)}`);
  return `{\n${fields.join(",\n")}\n${outer}}`;
}

const isPrime = (n) => {
  for (let factor = 2; factor * factor <= n; factor++) if (n % factor === 0) return false;
  return true;
};
const PRIMES = Array.from({ length: 310 }, (_, i) => i + 2).filter(isPrime);
const takeBits = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0; // of a fraction, the first 32
const ROUNDS = PRIMES.map((prime) => takeBits(Math.cbrt(prime)));
const START = PRIMES.slice(0, 8).map((prime) => takeBits(Math.sqrt(prime)));
const turn = (x, by) => (x >>> by) | (x << (32 - by));

/** SHA-256 of a text in UTF-8, in hexadecimal. */
export const hashText = (text) => hashBytes(new TextEncoder().encode(text));

/** SHA-256 of bytes, in hexadecimal (FIPS 180-4). crypto.subtle is missing on plain http. */
export function hashBytes(data) {
  const bytes = new Uint8Array(((data.length + 72) >> 6) << 6);
  bytes.set(data);
  bytes[data.length] = 0x80;
  const view = new DataView(bytes.buffer);
  view.setUint32(bytes.length - 8, Math.floor(data.length / 2 ** 29));
  view.setUint32(bytes.length - 4, (data.length << 3) >>> 0);
  const state = Int32Array.from(START);
  const words = new Int32Array(64);
  for (let at = 0; at < bytes.length; at += 64) hashBlock(view, at, words, state);
  return Array.from(state, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}

function hashBlock(view, at, words, state) {
  for (let i = 0; i < 16; i++) words[i] = view.getInt32(at + 4 * i);
  for (let i = 16; i < 64; i++) {
    const [x, y] = [words[i - 15], words[i - 2]];
    const low = turn(x, 7) ^ turn(x, 18) ^ (x >>> 3);
    words[i] = words[i - 16] + low + words[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const one = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[i] + words[i]) | 0;
    const two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g; g = f; f = e; e = (d + one) | 0; d = c; c = b; b = a; a = (one + two) | 0;
  }
  [a, b, c, d, e, f, g, h].forEach((value, i) => { state[i] += value; });
}
