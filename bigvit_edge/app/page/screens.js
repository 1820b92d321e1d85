// The screens: choose, run, result, results, picture. One at a time; a run goes on whichever is shown.

import { fill, make } from "./dom.js";
import { drawForm, listCases, makeSelect, readForm, readPlan } from "./form.js";
import { Cancelled, describeProgress, measure } from "./measure.js";
import { percent } from "./numbers.js";
import { preparePicture } from "./picture.js";
import { listPolicies } from "./policies.js";
import { drawLayers, drawResult, drawRouting, writeMs } from "./report.js";
import { nameRow, readResult } from "./result.js";

const CHOSEN = "bigvit-edge form"; // in localStorage: what was chosen last
const BEGUN = "bigvit-edge run"; // in localStorage: a run that has not ended
const PROFILED = 20; // runs of each model, for its layers
const TOP = 5;
const ALONE = { threads: 1, cores: null }; // how a picture is looked at
const NAMES = { choose: "Measure", results: "Results", picture: "Picture" };

// layers: of each result of this page's, by name; lost: results that could not be kept
const state = { host: null, machine: null, models: [], run: null, layers: new Map(), lost: new Map(), error: "" };
const find = (id) => document.getElementById(id);

/** Begin: the host's models, the screen that the address names, and a run that was asked for from outside. */
export async function start(host) {
  state.host = host;
  window.bve = { ...window.bve, cancel, task: runTask };
  window.addEventListener("hashchange", show);
  if (host.warning) {
    find("warning").hidden = false;
    find("warning").textContent = host.warning;
  }
  tell("Looking at this device…");
  try {
    [state.machine, state.models] = [await host.machine(), await host.models()];
  } catch (error) {
    fail(error);
  }
  tell("");
  const begun = recall(BEGUN);
  if (begun) {
    forget(BEGUN);
    const cut = `The run that began ${begun.date} was cut: the page was closed or loaded anew.`;
    fail(new Error(`${cut} What was measured until then is under Results, as ${begun.name}, if it had turns.`));
  }
  await show();
  await runTask();
}

/** Run a plan from outside, if there is one, with its own models. The host is told how it ended. */
async function runTask() {
  try {
    const task = await state.host.task();
    if (!task) return;
    if (state.run) {
      const busy = "another measurement is going on; wait for it, or cancel it";
      fail(new Error(busy));
      await state.host.done(null, busy, true);
      return;
    }
    await begin({ ...task, cases: listCases(task.models, null) });
    await state.host.done(state.error ? null : task.name, state.error || null);
  } catch (error) {
    fail(error);
    await state.host.done(null, error.message);
  }
}

// ---- where the person is

const readPlace = () => decodeURIComponent(window.location.hash.slice(1)).split("/");

/** Show a screen; it is there when this has ended. */
async function go(screen, name) {
  const hash = `#${screen}${name ? `/${encodeURIComponent(name)}` : ""}`;
  if (window.location.hash === hash) {
    await show();
    return;
  }
  const shown = new Promise((resolve) => { state.gone = resolve; });
  if (readPlace()[0] === "run") window.location.replace(hash); // nobody goes back to a run that has ended
  else window.location.hash = hash;
  await shown;
}

async function show() {
  const [screen, name] = readPlace();
  const draw = { run: showRun, result: showResult, results: showResults, picture: showPicture }[screen] || showChoose;
  const current = draw === showChoose ? "choose" : screen;
  fill(document.querySelector("nav"), Object.entries(NAMES).map(([key, text]) => (
    make("a", { href: `#${key}`, "aria-current": key === current && "page" }, text)
  )));
  if (state.shown) fill(find("message"));
  tell("");
  fill(find("screen"));
  try {
    await draw(find("screen"), name);
  } catch (error) {
    fail(error);
  }
  if (state.gone) state.gone();
}

/** The screen's heading, which takes the focus so that a reader begins there; not on the first screen. */
function title(text) {
  const heading = document.querySelector("h1");
  heading.textContent = text;
  document.title = `${text} – bigvit-edge bench`;
  if (state.shown) {
    heading.focus();
    window.scrollTo(0, 0);
  }
  state.shown = true;
}

const tell = (text) => { find("status").textContent = text; };

function fail(error) {
  tell("");
  find("message").textContent = error.message || String(error);
}

/** A button that is off while what it does goes on; what fails is said. */
const button = (text, action, kind = "") => make("button", { type: "button", class: kind, onclick: async (event) => {
  const pressed = event.currentTarget;
  pressed.disabled = true;
  fill(find("message"));
  try {
    await action();
  } catch (error) {
    fail(error);
  }
  pressed.disabled = false;
} }, text);

// ---- choose

function showChoose(screen) {
  title("Measure a model");
  const form = make("form", { onsubmit: (event) => {
    event.preventDefault();
    const plan = readPlan(form, state.models);
    remember(CHOSEN, readForm(form));
    const model = plan.cases[0].model;
    begin({ ...plan, name: nameResult(model), withLayers: true }).catch(fail);
  } });
  const draw = (chosen) => fill(form,
    drawForm(state.models, state.machine, chosen, { redraw, open: openButton, makeRemove }),
    make("button", { class: "main", disabled: !state.models.length || Boolean(state.run) }, "Start measuring"),
    state.run && make("a", { href: "#run" }, "A run is going on"));
  const openButton = button("Open a model file…", async () => {
    const model = await state.host.pick();
    if (!model) return;
    state.models = [...state.models.filter((each) => each.id !== model.id), model];
    redraw({ model: model.id });
  });
  const redraw = (chosen = {}) => {
    draw({ ...readForm(form), ...chosen });
    const current = form.querySelector("input[name=model]:checked");
    if (current) current.focus();
  };
  const makeRemove = (model) => button(`Remove ${model.name}`, async () => {
    if (state.run) throw new Error("A run is going on: its models stay.");
    await state.host.forget(model);
    state.models = state.models.filter((each) => each.id !== model.id);
    redraw();
    tell(`${model.name} is no longer kept here; the file that it was opened from is where it was.`);
  });
  draw(recall(CHOSEN) || {});
  fill(screen, form);
}

function nameResult(model) {
  const stem = model.name.replace(/\.\w+$/, "").replace(/[^A-Za-z0-9.-]+/g, "-").slice(0, 80);
  const date = new Date().toISOString().slice(0, 19).replace(/[-:]/g, "").replace("T", "-");
  return `${stem}-${state.host.name}-${date}.json`;
}

// ---- run

/** Measure, one run at a time, then show the result. plan: as `measure`'s; withLayers: whether layers are traced. */
async function begin(plan) {
  if (state.run) throw new Error("another measurement is going on; wait for it, or cancel it");
  state.run = { plan, step: "", done: 0, of: 0, share: 0, asked: false };
  state.error = "";
  remember(BEGUN, { name: plan.name, date: new Date().toLocaleString() });
  go("run");
  try {
    const result = await measure(state.host, plan, { step: showStep, round: showRound }, () => state.run.asked);
    state.layers.set(plan.name, result.complete && plan.withLayers ? await profileRows(plan, result) : []);
    await end(plan.name);
  } catch (error) {
    const kept = (await state.host.results().catch(() => [])).some((each) => each.name === plan.name);
    if (error.result) state.lost.set(plan.name, error.result);
    state.error = error.result ? `The result could not be kept: ${error.message}` : error.message;
    await end(kept || error.result ? plan.name : null);
    if (error instanceof Cancelled) tell("Cancelled before anything was measured.");
    else fail(new Error(state.error));
  }
}

async function end(name) {
  state.run = null;
  forget(BEGUN);
  await (name ? go("result", name) : go("choose"));
}

/** Of each row what a profile tells of its layers; null where there is none. */
async function profileRows(plan, result) {
  showStep("its layers");
  const layers = [];
  const policies = listPolicies(result.machine, plan.clusters, plan.threads);
  for (const row of result.rows) {
    const { model, method } = plan.cases.find((each) => (
      each.model.sha256 === row.sha256 && each.method.name === row.method
    ));
    const isLeftOut = row.error || row.policy === "auto"; // of which the runtime alone knows how it runs
    const how = { policy: policies.find((each) => each.name === row.policy), runs: PROFILED };
    layers.push(isLeftOut ? null : await state.host.profile(model, method, null, how).catch(() => null));
  }
  return layers;
}

function cancel() {
  if (state.run) state.run.asked = true;
}

function showRun(screen) {
  title("Measuring");
  if (!state.run) {
    fill(screen, make("p", {}, "Nothing is being measured."));
    return;
  }
  const stop = button("Cancel", () => {
    cancel();
    tell("Ending after this turn…");
  });
  fill(screen, make("p", {}, state.run.plan.cases.map(({ model }) => model.name).join(", ")),
    make("progress", { id: "bar", max: 1, value: 0, "aria-label": "How much is done" }), make("p", { id: "round" }),
    make("p", { class: "quiet" }, "The screen stands still while images run: what moves on it would change the clock."),
    make("ul", { id: "rows", class: "plain" }), stop);
  tell(state.run.step);
}

function showStep(text) {
  state.run.step = `${text[0].toUpperCase()}${text.slice(1)}…`;
  if (!state.run.asked) tell(state.run.step);
}

function showRound(done, of, share, rows) {
  if (!find("bar")) return;
  if (find("status").textContent && !state.run.asked) tell("");
  find("bar").value = share;
  find("round").textContent = describeProgress(done, of, share, state.run.plan.minutes);
  fill(find("rows"), rows.map((row) => {
    const { times_ms } = row.turns[row.turns.length - 1] || {};
    const said = row.error || `last turn ${writeMs(times_ms[times_ms.length >> 1])} an image`;
    return make("li", {}, `${nameRow(row)}: ${said}`);
  }));
}

// ---- result, results

async function showResult(screen, name) {
  const result = state.lost.get(name) || await readKept(name);
  title(`Result of ${result.rows[0].file}`);
  fill(screen, drawResult(result, state.layers.get(name)),
    !state.lost.has(name) && button("Share", () => state.host.share(name), "main"),
    button("Measure again", () => go("choose")));
}

async function readKept(name) {
  const text = await state.host.read(name);
  try {
    return readResult(text);
  } catch (error) {
    title("Result");
    throw new Error(`${name} cannot be shown: ${error.message}`);
  }
}

async function showResults(screen) {
  title("Results");
  const kept = await state.host.results();
  const items = kept.map(({ name, date }) => make("li", {}, make("div", { role: "group", "aria-label": name },
    make("a", { href: `#result/${encodeURIComponent(name)}` }, name),
    make("p", { class: "quiet" }, new Date(date).toLocaleString()),
    button("Share", () => state.host.share(name)), makeDelete(name))));
  fill(screen, items.length ? make("ul", { class: "plain" }, items) : make("p", {}, "None yet."));
}

/** Its second press deletes. */
function makeDelete(name) {
  const made = button("Delete", async () => {
    if (made.textContent === "Delete") {
      made.textContent = "Delete for good";
      return;
    }
    await state.host.remove(name);
    await show();
  });
  return made;
}

// ---- picture

function showPicture(screen) {
  title("Classify a picture");
  const told = state.models.filter((model) => model.preprocessing);
  if (!told.length) {
    fill(screen, make("p", {}, "No model here says how its pictures are to be prepared."));
    return;
  }
  const options = listCases(told, null).map(({ model, method }, i) => (
    [String(i), `${model.name}${method.keep === null ? "" : ` keep ${method.keep}`}`]
  ));
  const select = makeSelect("model", options);
  const found = make("div", { id: "found" });
  const words = { gallery: "Choose a picture…", camera: "Take a photo…" };
  const buttons = state.host.sources.map((source) => button(words[source], async () => {
    if (state.run) throw new Error("A run is going on: a picture meanwhile would change its figures.");
    fill(found); // an answer never stands under another picture's fault
    const picture = await state.host.picture(source);
    if (picture) await classify(listCases(told, null)[Number(select.value)], picture, found);
  }, "main"));
  fill(screen, make("label", {}, "Model ", select), buttons, found);
}

async function classify({ model, method }, picture, found) {
  tell("Looking at it…");
  const { pixels, seen } = preparePicture(picture, model.preprocessing);
  const logits = await state.host.classify(model, method, pixels);
  const profiled = await state.host.profile(model, method, pixels, { policy: ALONE, runs: PROFILED });
  const canvas = make("canvas", {
    width: seen.width, height: seen.height, role: "img", "aria-label": "The picture as the model sees it",
  });
  canvas.getContext("2d").putImageData(new ImageData(seen.data, seen.width, seen.height), 0, 0);
  const answers = rank(logits).map(([i, share]) => (
    make("li", {}, `${(model.labels || [])[i] || `class ${i}`}: ${percent(share, 1)}`)
  ));
  fill(found, make("h2", { tabindex: -1 }, "Answer"), canvas, make("ol", {}, answers),
    profiled && [drawRouting(profiled, canvas.toDataURL()), drawLayers(profiled)]);
  tell("");
  found.querySelector("h2").focus();
}

/** The most likely classes: [class, probability]. */
function rank(logits) {
  const most = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - most));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight, i) => [i, weight / total]).sort((a, b) => b[1] - a[1]).slice(0, TOP);
}

// ---- what outlives the page, where the browser keeps anything

function recall(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch (error) {
    return null;
  }
}

function remember(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch (error) {
    // it is only a convenience
  }
}

function forget(key) {
  remember(key, null);
}
