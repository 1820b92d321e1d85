// What is to be measured, and how: the choices of the first screen, and the plan that they make.

import { make } from "./dom.js";
import { ROUNDS } from "./measure.js";
import { fix } from "./numbers.js";
import { listAll } from "./policies.js";

const [MOST_MINUTES, MOST_ROUNDS, MOST_FPS, MOST_THREADS] = [240, 100000, 1000, 1024]; // as bigvit-edge bench's
const [MINUTES, FPS] = [10, 30]; // where nothing else was chosen
const NEAR = 1e-6; // a third is written in six digits or in more: as the core tells ratios apart
const POLICIES = { each: "each of these, in turns", auto: "auto: the runtime tries what is fastest" };

const isNear = (a, b) => a !== null && Math.abs(a - b) < NEAR;

/** Every entry point of these models, or those of one keep ratio: [{model, method}]. */
export const listCases = (models, keep) => [].concat(...models.map((model) => (
  model.methods.filter((method) => keep === null || isNear(method.keep, keep)).map((method) => ({ model, method }))
)));

export const readForm = (form) => Object.fromEntries(new FormData(form));

/** What `measure` takes, but for a name. */
export function readPlan(form, models) {
  const chosen = readForm(form);
  const model = models.find((each) => each.id === chosen.model);
  const isLong = chosen.length === "minutes";
  return {
    cases: listCases([model], chosen.keep ? Number(chosen.keep) : null),
    clusters: chosen.clusters ? [chosen.clusters] : [], threads: Number(chosen.threads) || null,
    rounds: isLong ? 0 : Number(chosen.rounds) || ROUNDS, minutes: isLong ? Number(chosen.minutes) || MINUTES : 0,
    fps: chosen.pace === "paced" ? Number(chosen.fps) || FPS : 0, energy: true,
  };
}

/** The form's groups. chosen: what readForm gave before; actions: see drawModels. */
export const drawForm = (models, machine, chosen, actions) => [
  drawModels(models, chosen, actions), drawCores(machine, chosen), drawLength(chosen), drawPace(chosen),
];

/** redraw(): another model is chosen; open: a button that brings one; makeRemove(model): one that takes it away. */
function drawModels(models, chosen, { redraw, open, makeRemove }) {
  const current = models.find((model) => model.id === chosen.model) || models[0];
  const items = models.map(({ id, name, bytes, precision, methods }) => {
    const keeps = methods.length > 1 ? `keep ${methods.map((method) => method.keep).join(", ")}` : "";
    return make("label", {}, make("input", {
      type: "radio", name: "model", value: id, checked: id === current.id, onchange: () => redraw(),
    }), `${name} `, make("span", { class: "quiet" }, `${fix(bytes / 1e6, 1)} MB ${precision} ${keeps}`));
  });
  const methods = current ? current.methods : [];
  const ratios = [...new Set(methods.map((method) => method.keep).filter((keep) => keep !== null))].sort();
  const options = [["", "all that the model has"], ...ratios.map((keep) => [String(keep), String(keep)])];
  const isThere = !chosen.keep || ratios.includes(Number(chosen.keep));
  return make("fieldset", {}, make("legend", {}, "Model"),
    items.length ? items : make("p", {}, "No model is here yet."), open,
    current && current.isGiven && makeRemove(current),
    ratios.length > 1 && make("label", {}, "Keep ratio ", makeSelect("keep", options, chosen.keep)),
    current && !isThere
      && make("p", {}, `${current.name} has no keep ratio of ${chosen.keep}: all that it has are chosen.`));
}

function drawCores(machine, chosen) {
  const words = machine && machine.clusters.length ? [...listAll(machine), "each"] : [];
  const options = [["", "the fastest cluster"], ...words.map((word) => [word, POLICIES[word] || word])];
  return make("fieldset", {}, make("legend", {}, "Cores"),
    words.length > 0 && make("label", {}, "Clusters ", makeSelect("clusters", options, chosen.clusters)),
    make("label", {}, words.length ? "Threads (empty: 1, or one a core of the clusters chosen) " : "Threads (empty: 1) ",
      makeNumber("threads", chosen.threads, MOST_THREADS, 1)));
}

const drawLength = (chosen) => make("fieldset", {}, make("legend", {}, "How long"),
  makeRadio("length", "rounds", "Rounds of short turns: ", chosen.length || "rounds",
    makeNumber("rounds", chosen.rounds || ROUNDS, MOST_ROUNDS, 1, "rounds")),
  makeRadio("length", "minutes", "Minutes, until the device is warm: ", chosen.length,
    makeNumber("minutes", chosen.minutes || MINUTES, MOST_MINUTES, "any", "minutes")));

const drawPace = (chosen) => make("fieldset", {}, make("legend", {}, "Pace"),
  makeRadio("pace", "back", "Back to back", chosen.pace || "back"),
  makeRadio("pace", "paced", "As a camera, images a second: ", chosen.pace,
    makeNumber("fps", chosen.fps || FPS, MOST_FPS, "any", "images a second")));

const makeRadio = (name, value, text, current, ...more) => make("label", {},
  make("input", { type: "radio", name, value, checked: value === current }), text, ...more);

export const makeSelect = (name, options, value) => make("select", { name }, options.map(([key, text]) => (
  make("option", { value: key, selected: key === value }, text)
)));

const makeNumber = (name, value, max, step, label) => make("input", {
  type: "number", name, value: value || null, min: step === 1 ? 1 : 0.01, max, step, inputmode: "decimal",
  "aria-label": label || null, oninput: choose,
});

/** What is typed beside a choice is that choice. */
function choose({ target }) {
  const radio = target.parentElement.querySelector("input[type=radio]");
  if (radio) radio.checked = true;
}
