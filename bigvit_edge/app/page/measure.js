// A bench, from models and a host to a result: rows take turns, each in a process of its own, as bigvit_edge/bench/
// measurement.py has it. docs/devices.md has the protocol and its reasons; what an app does otherwise, docs/app.md.
// Nothing here waits on a timer of the page's: they stop when the screen is off. All waits are the host's.

import { judge } from "./judge.js";
import { fix, median, thousands } from "./numbers.js";
import { listPolicies } from "./policies.js";
import { NOT_AVAILABLE, VERSION, hashText, makeRow, spell, writeResult } from "./result.js";

export const [ROUNDS, TURN_S, LONG_TURN_S, TURN_IMAGES] = [30, 0.1, 1, 3];
const MEMORY_IMAGES = 3;
const REST_MS = 5; // between turns: what a pool does after a turn, as watching for work, falls on nobody
const DRAWN_MS = 60; // after something was shown, until the screen stands still again
const SHOW_MS = 1000; // between two looks of the screen, at least
const [SAVE_MS, SAVE_SHARE] = [10e3, 0.01]; // between writes of what was measured so far; of the time, at most
const FRAMES_SHARE = 0.125; // of the time of a row's turns, that frames may take
const [IMAGES, SLOW_MS, SLOW_IMAGES] = [10, 200, 3]; // of a block whose median must be stable; of what takes longer
const [BLOCKS, SETTLED, MOST_S, MOST_IMAGES] = [3, 1.03, 30, 1000];

/** Why measuring ended before its time: the person asked for it. */
export class Cancelled extends Error {}

/**
 * Measure, and keep the result at the host; return it, judged.
 *
 * plan: {cases: [{model, method}], clusters: [words], threads | null, rounds | 0, minutes, fps, energy, name}: as the
 * words of `bigvit-edge bench`. show: {step(text), round(done, of, share)}, both once a second at most. asked: () =>
 * whether the person wants it to end; then, and after a failure, what was measured so far is kept, complete: false.
 * Error with a text for the person; its `result`: what was measured and could not be kept.
 */
export async function measure(host, plan, show, asked = () => false) {
  const bench = new Bench(host, plan, show, asked);
  await host.hold(`measuring ${plan.cases.map((each) => each.model.name).join(", ")}`);
  try {
    await bench.begin();
    await bench.run();
    return await bench.finish();
  } catch (error) {
    if (error.result || !bench.hasTurns()) throw error;
    const part = await bench.finish(false);
    if (error instanceof Cancelled) return part;
    throw error;
  } finally {
    await bench.close();
    await host.release();
  }
}

class Bench {
  constructor(host, plan, show, asked) {
    Object.assign(this, { host, plan, show, asked, rows: [], what: [], runners: new Map(), watched: [] });
    this.shown = this.saved = this.saveTook = 0;
    const isLong = plan.minutes || plan.fps;
    this.protocol = {
      turn_s: isLong ? LONG_TURN_S : TURN_S, turn_images: TURN_IMAGES,
      rounds: plan.minutes ? 0 : plan.rounds || ROUNDS, minutes: plan.minutes || 0, fps: plan.fps || 0, cool_c: null,
      pictures: "none",
    };
  }

  hasTurns() {
    return this.rows.some((row) => row.turns.length);
  }

  /** The machine, and the rows that are to be. */
  async begin() {
    await this.tell("looking at this device");
    const { host, plan } = this;
    this.machine = await host.machine();
    const policies = listPolicies(this.machine, plan.clusters, plan.threads);
    this.what = [].concat(...policies.map((policy) => (
      plan.cases.filter(({ model }) => model.format === "bve" || !policy.choose).map((each) => ({ ...each, policy }))
    )));
    if (!this.what.length) throw new Error(`the cores '${policies[0].name}' are for .bve files alone; choose others`);
    this.rows = this.what.map(({ model, method, policy }) => makeRow({
      file: model.name, sha256: model.sha256, bytes: model.bytes, format: model.format, precision: model.precision,
      keep: method.keep, method: method.name, delegated_share: method.delegated_share, policy: policy.name,
      threads: policy.threads, cores_asked: policy.cores, launch: host.name,
    }));
    const about = await host.about();
    const files = this.rows.map(({ sha256, method }) => [sha256, method]);
    const told = [about.tool, about.device, plan.clusters, plan.threads, this.protocol, files];
    this.result = {
      device: about.device, machine: this.machine, protocol: this.protocol, rows: this.rows,
      date: new Date().toISOString().replace(/\.\d+Z$/, "+00:00"), tool: about.tool, command: about.command,
      key: hashText(spell(told)).slice(0, 16), complete: false, notes: [], throttled_bits: [null, null],
      version: VERSION,
    };
  }

  /** All passes, those that would disturb the turns last. */
  async run() {
    await this.tell("loading it cold, and its memory");
    await this.each((i) => this.measureCold(i));
    this.checkMemory();
    await this.tell("warming up");
    await this.each(async (i) => this.runners.set(i, await this.open(i)));
    await this.each((i) => this.warm(i));
    this.checkLeft();
    await this.takeTurns();
    await this.tell("energy");
    await this.each((i) => this.measureEnergy(i));
  }

  /** Judge the rows, and keep the result whole. complete: whether all its turns were taken. */
  async finish(complete = true) {
    const { host, plan, protocol, machine, watched } = this;
    const surroundings = watched.length ? describeSurroundings(watched) : null;
    const rows = this.rows.map((row) => ({ ...judge(row, machine, [], protocol.fps), surroundings }));
    this.result = { ...this.result, rows, complete };
    try {
      await host.keep(plan.name, writeResult(this.result));
    } catch (error) {
      throw Object.assign(error, { result: this.result });
    }
    return this.result;
  }

  async close() {
    for (const runner of this.runners.values()) await runner.close().catch(() => null);
  }

  // ---- the passes, a row at a time

  /** Do something for each row that has not failed; one that fails says why, and the others go on. */
  async each(action, order = this.rows.map((_, i) => i)) {
    for (const i of order) {
      if (this.rows[i].error) continue;
      this.checkAsked();
      try {
        await action(i);
      } catch (error) {
        if (error instanceof Cancelled) throw error;
        this.change(i, { error: error.message || String(error) });
      }
    }
    this.checkLeft();
  }

  change(i, fields) {
    this.rows[i] = { ...this.rows[i], ...fields };
  }

  open(i, evict = false) {
    const { model, method, policy } = this.what[i];
    return this.host.open(model, method, policy, { evict });
  }

  async measureCold(i) {
    const runner = await this.open(i, true);
    try {
      const { load_ms, first_ms, cached_share } = runner.ready;
      await runner.run(0, MEMORY_IMAGES, 0);
      const load = { cold_ms: load_ms, cold_first_ms: first_ms, cached_share, warm_ms: 0, first_ms: 0 };
      this.change(i, { load, memory: await runner.memory() });
    } finally {
      await runner.close();
    }
  }

  /** Refuse rows beyond what is free there: all processes live at once, as turns want it. */
  checkMemory() {
    let left = this.machine.available_bytes;
    const files = new Set();
    this.rows.forEach((row, i) => {
      if (left === null || row.error || !row.memory) return;
      const wanted = row.memory.anonymous_bytes + (files.has(row.sha256) ? 0 : row.bytes);
      files.add(row.sha256);
      const spell_mb = (bytes) => `${thousands(bytes / 2 ** 20)} MB`;
      if (wanted > left) {
        this.change(i, { error: `its ${spell_mb(wanted)} are more than the ${spell_mb(left)} that are free here` });
      } else {
        left -= wanted;
      }
    });
    this.checkLeft();
  }

  checkLeft() {
    if (this.rows.every((row) => row.error)) throw new Error(this.rows[0].error);
  }

  checkAsked() {
    if (this.asked()) throw new Cancelled("cancelled");
  }

  /** Warm a row's process up, and note what it is. */
  async warm(i) {
    const runner = this.runners.get(i);
    const { ready } = runner;
    const { ops, cores, ...session } = ready.session || {};
    const { images, isWarm } = await warmUp(runner, () => this.checkAsked());
    const told = await tryFrames(runner, 0, 1, 0); // not counted: whether there are any
    this.change(i, {
      frame: told.lack === undefined ? beginFrames(told) : `${NOT_AVAILABLE}: ${told.lack}`,
      runtime: `${ready.runtime} ${ready.version}`.trim(), build: { ...ready.build, ...session },
      cores_allowed: ready.cores_allowed, warmup_images: images, warm: isWarm,
      load: this.rows[i].load && { ...this.rows[i].load, warm_ms: ready.load_ms, first_ms: ready.first_ms },
    });
  }

  async takeTurns() {
    const { host, protocol } = this;
    const period_ms = protocol.fps ? 1e3 / protocol.fps : 0;
    const start = Date.now();
    const spent = this.rows.map(() => ({ turns_ns: 0, frames_ns: 0 }));
    this.watched.push({ ...await host.surroundings(), foreground: null }); // which it tells of the time since
    for (let done = 0, share = 0; share < 1;) {
      await this.each(async (i) => {
        await host.pause(REST_MS);
        const turn = await this.runners.get(i).run(protocol.turn_s, protocol.turn_images, period_ms);
        const { turns } = this.rows[i];
        turns.push({ ...checkTurn(turn), temp_c: null, part: 0 });
        if (turns.length === 1) this.change(i, { turns });
        await this.addFrames(i, spent[i], period_ms);
      }, drawOrder(this.rows.length));
      done += 1;
      share = protocol.minutes ? (Date.now() - start) / (60e3 * protocol.minutes) : done / protocol.rounds;
      await this.save();
      if (share >= 1 || Date.now() - this.shown >= SHOW_MS) {
        this.watched.push(await host.surroundings());
        this.show.round(done, protocol.rounds, Math.min(1, share), this.rows);
        await this.stand();
      }
    }
  }

  /** Frames follow a row's last turn, where they have had no more than their share, as bigvit_edge/bench/frames.py. */
  async addFrames(i, spent, period_ms) {
    const { frame, turns } = this.rows[i];
    const { start_ns, end_ns } = turns[turns.length - 1];
    spent.turns_ns += end_ns - start_ns;
    if (typeof frame === "string" || spent.frames_ns > FRAMES_SHARE * spent.turns_ns) return;
    const told = await tryFrames(this.runners.get(i), this.protocol.turn_s, this.protocol.turn_images, period_ms);
    if (told.lack !== undefined) {
      this.change(i, { frame: `${NOT_AVAILABLE}: ${told.lack}` });
      return;
    }
    spent.frames_ns += told.end_ns - told.start_ns;
    frame.turns.push(turns.length - 1);
    frame.label_times_ms.push(...told.label_ms);
    frame.prepare_times_ms.push(...told.prepare_ms);
  }

  async measureEnergy(i) {
    if (this.plan.energy === false) {
      this.change(i, { energy: `${NOT_AVAILABLE}: not asked for` });
      return;
    }
    try {
      this.change(i, { energy: await this.host.energy(this.runners.get(i), this.protocol.fps) });
    } catch (error) {
      this.change(i, { energy: `${NOT_AVAILABLE}: ${error.message}` });
    }
  }

  // ---- between the turns

  async tell(text) {
    this.checkAsked();
    this.show.step(text);
    await this.stand();
  }

  /** Give the screen time to show it: while images run it stands still, as what moves changes the clock. */
  async stand() {
    this.shown = Date.now();
    await this.host.pause(DRAWN_MS);
  }

  async save() {
    const start = Date.now();
    if (start - this.saved <= Math.max(SAVE_MS, this.saveTook / SAVE_SHARE)) return;
    try {
      await this.host.keep(this.plan.name, writeResult({ ...this.result, rows: this.rows }));
    } catch (error) {
      // there may be room at the end, which says so if there is none
    }
    this.saved = Date.now();
    this.saveTook = this.saved - start;
  }
}

/** Run blocks of images until the last medians agree, as bigvit_edge/bench/warmups.py. */
export async function warmUp(runner, check = () => null) {
  const images = runner.ready.first_ms < SLOW_MS ? IMAGES : SLOW_IMAGES;
  const start = Date.now();
  const medians = [];
  for (;;) {
    check();
    medians.push(median((await runner.run(0, images, 0)).times_ms));
    const last = medians.slice(-BLOCKS);
    const isWarm = last.length === BLOCKS && Math.max(...last) <= SETTLED * Math.min(...last);
    const isLate = Date.now() - start > MOST_S * 1e3 || medians.length * images >= MOST_IMAGES;
    if (isWarm || (isLate && last.length === BLOCKS)) return { images: medians.length * images, isWarm };
  }
}

/** A turn of frames, or what they lack: the turns of the model alone are good without them. */
const tryFrames = (runner, ...turn) => runner.frames(...turn).catch((error) => ({ lack: error.message || String(error) }));

const beginFrames = ({ frame, prepared_by }) => ({
  frame, prepared_by, turns: [], label_times_ms: [], prepare_times_ms: [], label_ms: null, prepare_ms: null,
  model_ms: null, ratio: null,
});

/** A turn whose times a clock can tell; Error otherwise. */
function checkTurn(turn) {
  const { times_ms, start_ns, end_ns } = turn;
  if (!times_ms.length || !times_ms.every((ms) => ms > 0 && ms < Infinity) || end_ns <= start_ns) {
    throw new Error("its runtime told times that no clock tells");
  }
  return turn;
}

/** Numbers below `count` in a new order, so that no row always comes behind the same other. */
function drawOrder(count) {
  const order = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const other = Math.floor(Math.random() * (i + 1));
    [order[i], order[other]] = [order[other], order[i]];
  }
  return order;
}

/** results.Surroundings of what the host told before the first turn and after the last. */
function describeSurroundings(watched) {
  const [first, last] = [watched[0], watched[watched.length - 1]];
  const known = watched.filter((each) => typeof each.foreground === "boolean");
  const take = (key) => [first, last].map((each) => (typeof each[key] === "number" ? each[key] : null));
  return {
    foreground: known.length ? known.every((each) => each.foreground) : null, cpuset: last.cpuset || "",
    thermal_status: take("thermal_status"), thermal_headroom: take("thermal_headroom"), agent: last.agent || "",
    isolated: typeof last.isolated === "boolean" ? last.isolated : null,
  };
}

/** How far a run is, in words. */
export function describeProgress(done, of, share, minutes) {
  return of ? `round ${done} of ${of}` : `${fix(share * minutes, 1)} of ${minutes} minutes`;
}
