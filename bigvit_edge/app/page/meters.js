// Power from a phone's meters, each of which is read by its own clock.

import { sum } from "./numbers.js";

const LEAST_SHARE = 0.5; // of the time that is meant, that each meter's own clock must have gone on by

/**
 * Watts of all rails together between two readings, over how many seconds at least, and which rails.
 *
 * Readings: {monitors: [{name, rail, uj, ms}]}. Of rails and of Android's parts, which are the same energy again, the
 * rails. ms: which time is meant to lie between. Error where a meter did not go on, or went back.
 */
export function subtract(before, after, ms) {
  const rails = after.monitors.filter((each) => each.rail);
  if (!rails.length) throw new Error("the phone tells of no rail, only what its parts are thought to use");
  const spans = rails.map((each) => {
    const first = before.monitors.find(({ name }) => name === each.name);
    return { uj: first ? each.uj - first.uj : -1, ms: first ? each.ms - first.ms : 0 };
  });
  if (!spans.every((each) => each.uj >= 0 && each.ms >= LEAST_SHARE * ms)) {
    throw new Error("the phone's power meters did not go on meanwhile");
  }
  return {
    power_w: sum(spans.map((each) => each.uj / each.ms / 1e3)), seconds: Math.min(...spans.map((each) => each.ms)) / 1e3,
    names: rails.map((each) => each.name),
  };
}
