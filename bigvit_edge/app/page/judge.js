// Whether a row may be believed, and if not, why: bigvit_edge/results.py and bench/verdicts.py, word for word.

import { fix, general, join, median, percent, quartiles, sum, sumExactly } from "./numbers.js";

export const [VALID, NOISY, THROTTLED, QUOTA, NOT_PINNED, FAILED] = [
  "valid", "noisy", "throttled", "quota", "not pinned", "failed",
];
const LEAST_TURNS = 8; // below which neither drift nor spread is told from chance
const SLOWED = 1.05; // the last quarter's time of the first's, where the clock fell as well
const SLOWED_ALONE = 1.15; // the same, where the clock is not known
const DRIFTED = 1.1; // either way, at the same clock
const CLOCK_FELL = 0.96; // the last quarter's clock of the first's
const CLOCK_LOW = 0.8; // of what the slowest of its cores can, back to back
const PACE_MISSED = 0.97; // of the images a second that were asked for
const STRAYED = 0.02; // of the CPU time, on cores that were not asked for
const TAIL = 1.25; // p90 of p50
const SPREAD = 0.1; // of the middle half of the turns' medians, of p50
const MINUTE_NS = 60e9;
const PI_BITS = { 0: "under-voltage", 1: "the clock capped", 2: "throttled", 3: "the soft temperature limit" };
const [PI_NOW, PI_SINCE] = [0xf, 16]; // bits that say what is so now; by how much those of since the start are higher

/** The distribution of times by rank, as results.describe_times. */
export function describeTimes(times_ms) {
  const ordered = Float64Array.from(times_ms).sort();
  const count = ordered.length;
  if (!count) throw new RangeError("no times");
  const [p90, p99] = [0.9, 0.99].map((share) => ordered[Math.ceil(share * count) - 1]);
  return {
    p50: median(ordered), p90, p99, min: ordered[0], mean: sumExactly(ordered) / count, max: ordered[count - 1],
    images: count,
  };
}

export const listTimes = (turns) => join(turns.map((turn) => turn.times_ms));

/** A row with its distribution, and what speaks against it, as verdicts.judge. */
export function judge(row, machine, bits = [], fps = 0) {
  const turns = row.turns;
  if (row.error || !turns.length) {
    return { ...row, verdicts: [FAILED], reasons: [row.error || "it was not run"] };
  }
  let found = [...findMisplaced(row), ...findQuota(row, machine), ...findThrottling(turns, bits)];
  if (!found.length && !fps) found = findLowClock(row, machine);
  if (!found.length) found = [...findNoise(turns, row.warm), ...findMissedPace(turns, fps)];
  const [first_minute_ms, last_minute_ms] = takeMinutes(turns);
  const images = sum(turns.map((turn) => turn.times_ms.length));
  const isTold = turns.every((turn) => turn.cpu_ms !== null);
  return {
    ...row, first_minute_ms, last_minute_ms, latency_ms: describeTimes(listTimes(turns)),
    cpu_ms: isTold ? sum(turns.map((turn) => turn.cpu_ms * turn.times_ms.length)) / images : null,
    throttled_share: shareThrottled(turns), frame: describeFrames(row),
    verdicts: found.length ? [...new Set(found.map(([verdict]) => verdict))] : [VALID],
    reasons: found.map(([, reason]) => reason),
  };
}

/** Beside the turns that they followed: whatever the machine did then fell on both. */
function describeFrames({ frame, turns }) {
  if (!frame || !frame.turns || !frame.turns.length) return frame;
  const [label_ms, prepare_ms] = [frame.label_times_ms, frame.prepare_times_ms].map(describeTimes);
  const model_ms = takeMedian(frame.turns.map((number) => turns[number]));
  return { ...frame, label_ms, prepare_ms, model_ms, ratio: label_ms.p50 / model_ms };
}

function findMisplaced(row) {
  if (row.cores_asked === null) return [];
  const asked = new Set(row.cores_asked);
  const allowed = new Set(row.cores_allowed);
  if (allowed.size && (allowed.size !== asked.size || [...allowed].some((core) => !asked.has(core)))) {
    return [[NOT_PINNED, `cores ${list(asked)} were asked for, the system left ${list(row.cores_allowed)}`]];
  }
  const ran = new Set();
  const spent = {};
  for (const turn of row.turns) {
    for (const core of Object.keys(turn.cores)) if (core !== "-1") ran.add(Number(core));
    for (const core of Object.keys(turn.thread_ms)) spent[core] = (spent[core] || 0) + turn.thread_ms[core];
  }
  const total = sum(Object.values(spent));
  for (const core of Object.keys(spent)) if (spent[core] > STRAYED * total) ran.add(Number(core));
  const away = [...ran].filter((core) => !asked.has(core));
  return away.length ? [[NOT_PINNED, `it ran on cores ${list(away)}, asked were ${list(asked)}`]] : [];
}

function findQuota(row, machine) {
  const periods = sum(row.turns.map((turn) => turn.throttled_periods || 0));
  const quota = machine.limits.quota_cores;
  const grants = quota === null ? "" : ` of ${general(quota)} cores`;
  return periods ? [[QUOTA, `the cgroup's quota${grants} stopped it in ${periods} periods`]] : [];
}

function findThrottling(turns, bits) {
  const [before, after] = bits.length ? [bits[0] || 0, bits[bits.length - 1] || 0] : [0, 0];
  const words = (before & PI_NOW) | (after & PI_NOW) | ((after & ~before) >> PI_SINCE);
  const told = Object.keys(PI_BITS).filter((bit) => words & (1 << bit)).map((bit) => PI_BITS[bit]);
  const found = told.length ? [[THROTTLED, `the firmware says: ${told.join(", ")}`]] : [];
  if (turns.length < LEAST_TURNS) return found;
  const [first, last] = takeQuarters(turns);
  const slower = takeMedian(last) / takeMedian(first);
  const [usual, now] = [takeClock(first), takeClock(last)];
  if (usual && now) {
    const fell = now / usual;
    if (slower > SLOWED && fell < CLOCK_FELL) {
      return [...found, [THROTTLED, `${fix(slower, 2)} times the time at the end, at ${fix(fell, 2)} of the clock`]];
    }
  } else if (slower > SLOWED_ALONE) {
    return [...found, [THROTTLED, `${fix(slower, 2)} times the time at the end; the clock is not known`]];
  }
  return found;
}

/** The share of the time, of turns whose clock fell from the first quarter's; null where it is not known. */
function shareThrottled(turns) {
  if (turns.length < LEAST_TURNS) return null;
  const usual = takeClock(takeQuarters(turns)[0]);
  const spans = turns.map((turn) => [takeClock([turn]), turn.end_ns - turn.start_ns]);
  const known = sum(spans.map(([clock, ns]) => (clock ? ns : 0)));
  if (!usual || !known) return null;
  return sum(spans.map(([clock, ns]) => (clock && clock < CLOCK_FELL * usual ? ns : 0))) / known;
}

/** A device that was held back from the first turn to the last. */
function findLowClock(row, machine) {
  const asked = row.cores_asked || [];
  const most = machine.cores.filter((core) => asked.includes(core.number) && core.max_khz).map((core) => core.max_khz);
  const clock = takeClock(row.turns);
  if (!most.length || !clock || clock >= (CLOCK_LOW * Math.min(...most)) / 1e3) return [];
  const could = `${fix(Math.min(...most) / 1e3, 0)} MHz that its cores can`;
  return [[THROTTLED, `it ran at ${fix(clock, 0)} of the ${could}: a governor, heat or a power limit holds them`]];
}

function findMissedPace(turns, fps) {
  if (!fps) return [];
  const seconds = sum(turns.map((turn) => turn.end_ns - turn.start_ns)) / 1e9;
  const pace = seconds ? sum(turns.map((turn) => turn.times_ms.length)) / seconds : fps;
  if (pace >= PACE_MISSED * fps) return [];
  return [[NOISY, `${general(pace, 3)} images a second, of ${general(fps)} asked for`]];
}

function findNoise(turns, warm) {
  if (!warm) return [[NOISY, "its times had not settled when warming up ended"]];
  const times = describeTimes(listTimes(turns));
  if (times.p90 > TAIL * times.p50) return [[NOISY, `p90 is ${fix(times.p90 / times.p50, 2)} times p50`]];
  const medians = turns.map((turn) => median(turn.times_ms));
  if (medians.length < LEAST_TURNS) return [[NOISY, `${medians.length} turns are too few to tell`]];
  const [low, , high] = quartiles(medians);
  if (high - low > SPREAD * times.p50) {
    return [[NOISY, `the middle half of its turns differs by ${percent((high - low) / times.p50)}`]];
  }
  const [first, last] = takeQuarters(turns);
  const drift = takeMedian(last) / takeMedian(first);
  if (drift >= 1 / DRIFTED && drift <= DRIFTED) return [];
  return [[NOISY, `${fix(drift, 2)} times the time at the end, at the same clock`]];
}

/** The medians of the first and of the last minute, of a row that took two or more in one go. */
function takeMinutes(turns) {
  const [start, end] = [turns[0].start_ns, turns[turns.length - 1].end_ns];
  if (new Set(turns.map((turn) => turn.part)).size > 1 || end - start < 2 * MINUTE_NS) return [null, null];
  const first = turns.filter((turn) => turn.end_ns - start <= MINUTE_NS);
  const last = turns.filter((turn) => end - turn.start_ns <= MINUTE_NS);
  return first.length && last.length ? [takeMedian(first), takeMedian(last)] : [null, null];
}

const takeQuarters = (turns) => [turns.slice(0, turns.length >> 2), turns.slice(-(turns.length >> 2))];
const takeMedian = (turns) => median(listTimes(turns));

function takeClock(turns) {
  const clocks = join(turns.map((turn) => turn.clock_mhz)).filter((mhz) => mhz);
  return clocks.length ? median(clocks) : null;
}

const list = (cores) => [...cores].sort((a, b) => a - b).join(", ");
