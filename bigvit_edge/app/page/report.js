// What a profile's page shows, drawn here: figures, verdict and reasons, latency, layers, routing.

import { make, makeList, makeTable, makeTiles } from "./dom.js";
import { describeTimes, listTimes } from "./judge.js";
import { findRange, fix, general, median, percent, sum, thousands } from "./numbers.js";
import { nameRow } from "./result.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, BINS] = [340, 210, 44, 12, 44, 34, 36];
const FAR = 2; // times the median: what lies beyond is counted and not drawn
const PART = "This is a part: it was ended before all its turns were taken.";
const STATUS = ["none", "light", "moderate", "severe", "critical", "emergency", "shutdown"];
const MOST_CACHED = 0.05; // of a file, that a cold load may find in the system's cache

/** Milliseconds, to the microsecond where they are few. */
export function writeMs(ms) {
  if (ms < 0.0005) return "<0.001 ms";
  return `${fix(ms, ms >= 100 ? 1 : ms >= 10 ? 2 : 3)} ms`;
}

/** A result as a page's sections. layers: of each row what `bve-run profile` told, or null. */
export function drawResult(result, layers = []) {
  const { protocol, machine, rows } = result;
  const pace = protocol.fps ? `paced at ${general(protocol.fps)} images a second` : "back to back";
  const long = protocol.minutes ? `${general(protocol.minutes)} minutes` : `${protocol.rounds} rounds`;
  const most = machine.cores.filter((core) => core.online).length;
  const facts = [result.device, machine.board || machine.cpu, most && `${most} cores`, machine.os].filter(Boolean);
  return [
    make("p", { class: "quiet" }, facts.join(" · ")),
    make("p", { class: "quiet" }, `${result.date.replace("T", " ").slice(0, 16)} UTC · ${long} of turns of at least ${
      general(protocol.turn_s)} s, ${pace}`),
    !result.complete && make("p", { class: "warning" }, PART),
    rows.length > 1 && drawOverview(rows),
    rows.map((row, i) => drawRow(row, layers[i], findMeans(row, protocol))),
    result.notes.length > 0 && makeList(result.notes),
  ];
}

function drawOverview(rows) {
  const cells = rows.map((row) => [
    nameRow(row), ...["p50", "p90", "p99"].map((name) => (row.latency_ms ? writeMs(row.latency_ms[name]) : "–")),
    row.verdicts.join(", "),
  ]);
  return makeTable("All rows", ["file and cores", "p50", "p90", "p99", "verdict"], cells, 1);
}

function drawRow(row, layers, mean_ms) {
  const isValid = row.verdicts[0] === "valid";
  const words = `Verdict: ${row.verdicts.join(", ")}`;
  const verdict = make("p", {}, make("strong", { class: isValid ? "good" : "bad" }, words));
  const why = row.reasons.length > 0 && makeList(row.reasons);
  const times = row.latency_ms;
  return make("section", {}, make("h2", {}, nameRow(row)), verdict, why, times && [
    makeTiles([
      [writeMs(times.p50), "p50"], [writeMs(times.p90), "p90"], [writeMs(times.p99), "p99"],
      ...(row.first_minute_ms
        ? [[writeMs(row.first_minute_ms), "first minute"], [writeMs(row.last_minute_ms), "last minute"]] : []),
      ...(hasFrames(row) ? [[writeMs(row.frame.label_ms.p50), "frame to label"]] : []),
      ...(row.throttled_share === null ? [] : [[percent(row.throttled_share), "of the time throttled"]]),
    ]),
    make("div", { class: "pair" }, drawTimes(listTimes(row.turns), mean_ms), drawFacts(row)),
  ], layers && drawLayers(layers));
}

const hasFrames = ({ frame }) => Boolean(frame && frame.label_ms);

/** The milliseconds that several images were timed together for, where the clock tells no single one; else 0. */
export function findMeans(row, { fps }) {
  const { mean_ms } = row.build || {};
  return mean_ms && !fps && listTimes(row.turns).some((ms) => ms < mean_ms) ? mean_ms : 0;
}

function drawFacts(row) {
  const facts = [...listFacts(row)].map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  return make("dl", {}, facts);
}

function* listFacts(row) {
  const { load, memory, energy, surroundings } = row;
  const mhz = row.turns.map((turn) => turn.clock_mhz.filter(Boolean)).filter((pair) => pair.length);
  const clocks = mhz.map((pair) => sum(pair) / pair.length);
  const range = findRange(clocks).map((mhz) => fix(mhz, 0)).join(" to ");
  const clock = `${fix(median(clocks), 0)} MHz (${range}), measured around each turn`;
  if (hasFrames(row)) yield ["Frame to label", describeFrames(row.frame)];
  else if (row.frame) yield ["Frame to label", typeof row.frame === "string" ? row.frame : "none was timed"];
  yield ["Clock", clocks.length ? clock : "not available"];
  if (surroundings) {
    const { thermal_status, thermal_headroom, foreground, cpuset, agent, isolated } = surroundings;
    const tell = (values, spell) => {
      const [before, after] = values.map((value) => (value === null ? "not told" : spell(value)));
      return values.some((value) => value !== null) ? `${before} before, ${after} after` : "not available";
    };
    yield ["Thermal status", tell(thermal_status, (value) => `${value} (${STATUS[value] || "unknown"})`)];
    yield ["Thermal headroom", tell(thermal_headroom, (value) => `${fix(value, 2)} (1 is severe)`)];
    const seen = foreground ? "all the time" : "not all the time: the system may have slowed it";
    if (foreground !== null) yield ["In the foreground", seen];
    if (cpuset) yield ["cpuset", cpuset];
    const alone = isolated ? "" : "; not isolated across origins, so that it has one thread";
    if (typeof isolated === "boolean") yield ["Browser", `${agent}${alone}`]; // an app's page measures nothing itself
  }
  yield ["Energy", typeof energy === "string" ? energy
    : `${fix(energy.image_mj, 1)} mJ an image, ${fix(energy.above_idle_mj, 1)} above idle; ${energy.source}`];
  yield ["Cores", `${row.cores_asked ? `asked for ${row.cores_asked.join(", ")}` : "any"}; ${
    row.cores_allowed.length ? `allowed ${row.cores_allowed.join(", ")}` : "which were allowed is not told"}`];
  if (row.cpu_ms !== null) yield ["CPU time", `${fix(row.cpu_ms, 2)} ms an image, all threads`];
  if (load) {
    const isTold = load.cached_share !== null;
    const isCached = isTold && load.cached_share > MOST_CACHED;
    const first = `${fix(load.cold_ms, 1)} + ${fix(load.cold_first_ms, 1)} ms ${isTold ? "cold" : "the first time"}, `;
    yield ["Load and first image", `${isCached ? "" : first}${fix(load.warm_ms, 1)} + ${fix(load.first_ms, 1)} ms warm${
      isCached ? "; not cold: the file was in the system's cache" : ""}`];
  }
  yield ["Memory", memory ? `${fix(memory.peak_bytes / 1e6, 1)} MB at the most` : "not available"];
  yield ["File", `${fix(row.bytes / 1e6, 1)} MB, ${[row.format, row.precision].filter(Boolean).join(" ")}${
    row.delegated_share === null ? "" : `, ${percent(row.delegated_share)} delegated`}`];
  if (row.runtime) yield ["Runtime", `${row.runtime}${describeBackend(row.build || {})}`];
  yield ["Warm-up", `${row.warmup_images} images${row.warm ? "" : "; not settled"}`];
}

const describeFrames = ({ frame, prepared_by, label_ms, prepare_ms, ratio }) => (
  `${writeMs(label_ms.p50)} (p90 ${writeMs(label_ms.p90)}), of it ${writeMs(prepare_ms.p50)} preparing by ${prepared_by}: ${
    fix(ratio, 2)} times the model alone; ${frame}, ${label_ms.images} times`);

/** What a browser's back end is, and how many threads it has in fact, whatever was asked for. */
const describeBackend = ({ backend, threads, isolated }) => (!backend ? "" : `, ${backend}, with ${threads} thread${
  threads > 1 ? "s" : ""}${isolated ? "" : ": the page is not isolated across origins"}`);

/** How long images took, with their percentiles. mean_ms: how long those took that are one time together, or 0. */
export function drawTimes(all, mean_ms = 0) {
  const times = describeTimes(all);
  const low = times.min;
  const high = Math.max(Math.min(times.max, times.p50 * FAR), low * 1.001);
  const counts = new Array(BINS).fill(0);
  for (const ms of all) if (ms <= high) counts[Math.min(BINS - 1, Math.floor(((ms - low) / (high - low)) * BINS))] += 1;
  const [width, height, most] = [WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, Math.max(...counts)];
  const base = TOP + height;
  const text = (x, y, words, anchor, kind) => make("text", { x, y, "text-anchor": anchor, class: kind || null }, words);
  const bars = counts.map((count, i) => count > 0 && make("rect", {
    class: "multiplying", x: LEFT + (i * width) / BINS, y: base - (count / most) * height, width: width / BINS - 1,
    height: (count / most) * height,
  }));
  const marks = ["p50", "p90", "p99"].map((name, row) => {
    const ms = times[name];
    const at = LEFT + ((Math.min(ms, high) - low) / (high - low)) * width;
    const [y, isRight] = [12 + 13 * row, at > WIDTH / 2];
    return [
      ms <= high && make("line", { class: "mark", x1: at, x2: at, y1: y - 8, y2: base }),
      text(isRight ? at - 4 : at + 4, y, `${name} ${writeMs(ms)}${ms > high ? " →" : ""}`, isRight ? "end" : "start"),
    ];
  });
  const beyond = all.length - sum(counts);
  const far = beyond ? `; ${beyond} are beyond the right edge, up to ${writeMs(times.max)}` : "";
  const many = thousands(all.length);
  const means = `an image took, ${many} times, each the mean of as many images as took ${general(mean_ms, 3)} ms: `
    + "what this clock can tell. p90 and p99 are of these means";
  const said = `How long ${mean_ms ? means : `${many} images took`}${far}`;
  const shown = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${said}: p50 ${writeMs(times.p50)}` };
  return make("figure", {}, make("svg", shown, bars, marks,
    make("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: base, y2: base }),
    text(LEFT, base + 14, general(low, 3), "start"), text(WIDTH - RIGHT, base + 14, general(high, 3), "end"),
    text(LEFT + width / 2, base + 27, "milliseconds an image", "middle", "muted"),
    text(LEFT - 5, TOP + 9, String(most), "end"),
    text(LEFT - 5, TOP + 22, mean_ms ? "times" : "images", "end", "muted")),
  make("figcaption", {}, `${said}.`));
}

/** The layer of an op: 'layers.3' of 'layers.3.p.mlp'; otherwise the name's first part. */
function nameLayer(name) {
  const found = /^(.*?\b(?:layers|blocks|stages|layer|encoder)\.\d+)\./.exec(name);
  return found ? found[1] : name.split(".")[0];
}

/** Each layer's place in the traced run of median length: [{layer, lane, start_ms, end_ms, busy_ms}]; its length. */
export function placeLayers({ session, traced }) {
  const lengths = traced.runs.map(([start, end]) => end - start);
  const middle = [...lengths].sort((a, b) => a - b)[(lengths.length - 1) >> 1];
  const chosen = lengths.indexOf(middle);
  const begun = traced.runs[chosen][0];
  const bars = new Map();
  const events = traced.events.filter(([run]) => run === chosen).sort((a, b) => a[4] - b[4]);
  for (const [, op, , , start, end] of events) {
    const { name, lane } = session.ops[op];
    const layer = nameLayer(name);
    const [start_ms, end_ms] = [(start - begun) / 1e6, (end - begun) / 1e6];
    const old = bars.get(`${layer} ${lane}`) || { layer, lane, start_ms, end_ms, busy_ms: 0 };
    const busy_ms = old.busy_ms + end_ms - start_ms;
    bars.set(`${layer} ${lane}`, { ...old, end_ms: Math.max(old.end_ms, end_ms), busy_ms });
  }
  const order = [...new Set([...bars.values()].map((bar) => bar.layer))];
  const placed = [...bars.values()].sort((a, b) => order.indexOf(a.layer) - order.indexOf(b.layer) || a.lane - b.lane);
  return [placed, middle / 1e6];
}

/** When each layer ran, a row each and lane. */
export function drawLayers(profiled) {
  const [bars, run_ms] = placeLayers(profiled);
  const isTwo = new Set(bars.map((bar) => bar.lane)).size > 1;
  const key = (kind, words) => [make("span", { class: `key ${kind}` }), words];
  const rows = bars.map((bar, i) => make("li", { class: "row" },
    make("span", {}, i && bars[i - 1].layer === bar.layer ? "" : bar.layer),
    make("span", { class: "track" }, make("span", { class: `bar ${bar.lane ? "moving" : "multiplying"}`, style: {
      marginLeft: `${Math.min(100, (bar.start_ms / run_ms) * 100)}%`,
      width: `${Math.max(0.3, ((bar.end_ms - bar.start_ms) / run_ms) * 100)}%`,
    } })),
    make("span", { class: "value" }, `${writeMs(bar.busy_ms)}${isTwo ? [" big", " LITTLE"][bar.lane] : ""}`)));
  const said = `The traced run of median length, ${writeMs(run_ms)}: each layer from its first op's start to its last`
    + " op's end; at the right, the time of its ops, all threads' together.";
  return make("section", {}, make("h2", {}, "Layers"), make("p", { class: "quiet" }, said),
    isTwo && make("p", { class: "quiet" }, key("multiplying", "big lane "), key("moving", "LITTLE lane")),
    make("ul", { class: "bars" }, rows));
}

/** Which patches went to the big path, per layer, over the picture as the model saw it; why there is nothing to see. */
export function drawRouting({ session, traced }, url) {
  const rows = traced.rows.map(([op, chosen]) => ( // row 0 is the class token
    [session.ops[op], new Set(chosen.filter(Boolean).map((row) => row - 1))]
  ));
  const routed = rows.filter(([op, patches]) => patches.size < op.tokens - 1);
  const title = make("h2", {}, "What the big path sees");
  if (!routed.length) {
    const why = rows.length ? "every layer takes all patches" : "it has no router: all of its layers see all patches";
    return make("section", {}, title, make("p", {}, `Not shown: ${why}.`));
  }
  const figures = rows.map(([op, patches]) => {
    const side = Math.round(Math.sqrt(op.tokens - 1));
    const dark = Array.from({ length: side * side }, (_, i) => (
      patches.has(i) ? "" : `M${i % side} ${Math.floor(i / side)}h1v1h-1z`
    ));
    const said = `${nameLayer(op.name)}: ${patches.size} of ${side * side} patches`;
    return make("figure", {}, make("svg", { viewBox: `0 0 ${side} ${side}`, role: "img", "aria-label": said },
      make("image", { width: side, height: side, href: url }), make("path", { class: "dark", d: dark.join("") })),
    make("figcaption", {}, said));
  });
  return make("section", {}, title,
    make("p", { class: "quiet" }, "Each layer's selected patches in their light, the others dark."),
    make("div", { class: "pictures" }, figures));
}
