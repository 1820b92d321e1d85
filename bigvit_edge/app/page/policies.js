// Which cores and how many threads, by the words of a command line: bigvit_edge/bench/policies.py.

import { Fault } from "./numbers.js";

export const WORDS = ["big", "middle", "little"];
const [AUTO, EACH, ALL, LANES] = ["auto", "each", "all", "big,little"];
const KNOWN = [...WORDS, LANES, ALL, AUTO, EACH];

/** Policies {name, threads, cores | null, little_threads, choose}, as list_policies. Fault as UserError there. */
export function listPolicies(machine, words, threads) {
  if (!words.length) {
    const word = WORDS.find((each) => select(machine, each).length);
    return [check(make(word || "as it is", threads || 1, word ? select(machine, word) : null), machine)];
  }
  const policies = new Map();
  for (const named of words) {
    const made = named === EACH
      ? [].concat(...listAll(machine).map((word) => makeMost(machine, word, threads)))
      : [check(makeNamed(machine, named, threads), machine)];
    for (const policy of made) if (!policies.has(policy.name)) policies.set(policy.name, policy);
  }
  return [...policies.values()];
}

const make = (name, threads, cores, little_threads = 0, choose = false) => (
  { name, threads, cores, little_threads, choose }
);

/** Every policy of the clusters on which this process may run. */
export function listAll(machine) {
  const found = WORDS.filter((word) => select(machine, word).length);
  const there = found.length ? found : [ALL];
  const lanes = there.includes("big") && there.includes("little") ? [LANES] : [];
  return [...there, ...lanes, ...(there.length > 1 ? [ALL] : []), AUTO];
}

function makeNamed(machine, word, threads) {
  if (word === ALL || word === AUTO) {
    const cores = allow(machine, machine.cores.filter((core) => core.online).map((core) => core.number));
    return make(word, threads || count(machine, cores), cores.length ? cores : null, 0, word === AUTO);
  }
  const parts = word.split(",");
  if (parts.some((part) => !WORDS.includes(part))) throw new Fault(`--clusters '${word}'`, `of ${KNOWN.join(", ")}`);
  const named = WORDS.filter((part) => parts.includes(part));
  const there = WORDS.filter((part) => machine.clusters.some((cluster) => cluster.word === part));
  const chosen = named.map((part) => {
    if (!there.includes(part)) {
      throw new Fault(`cluster '${part}'`, `one of ${[...there, ALL].join(", ")} on this machine`);
    }
    return select(machine, part);
  });
  const empty = chosen.findIndex((cores) => !cores.length);
  if (empty >= 0) {
    const some = WORDS.filter((each) => select(machine, each).length).join(", ");
    throw new Fault(
      `--clusters ${named[empty]}, whose cores this process may not use there`, `some of ${some}`, "name others",
    );
  }
  const cores = [].concat(...chosen).sort((a, b) => a - b);
  const name = named.join(",");
  const many = threads || count(machine, cores);
  return make(name, many, cores, name === LANES ? partLanes(chosen, many) : 0);
}

/** Of so many threads, those of the LITTLE lane: as its share of the cores, and one at least on either side. */
function partLanes([big, little], threads) {
  if (threads < 2) {
    throw new Fault(`${LANES} with ${threads} thread`, "two or more, one for each lane", "--threads 2, or more");
  }
  const share = Math.floor((threads * little.length) / (big.length + little.length));
  return Math.min(Math.max(1, share), threads - 1);
}

/** A policy of so many threads, or as many as it has cores; none of lanes where there is but one thread. */
function makeMost(machine, word, threads) {
  const whole = makeNamed(machine, word, null).threads;
  const many = Math.min(threads || whole, whole);
  return word === LANES && many < 2 ? [] : [makeNamed(machine, word, many)];
}

/** A word's cores on which this process may run; [] where the machine has none. */
function select(machine, word) {
  const cores = [].concat(...machine.clusters.filter((each) => each.word === word).map((each) => each.cores));
  return allow(machine, cores.sort((a, b) => a - b));
}

/** Those that the process may be on at all. */
function allow({ limits: { allowed, cpuset } }, cores) {
  return cores.filter((core) => [allowed, cpuset].every((limit) => limit === null || limit.includes(core)));
}

/** A thread a core; no more than a quota is worth, beyond which they stand still for most of each period. */
const count = ({ limits }, cores) => Math.min(cores.length || 1, limits.usable || cores.length || 1);

function check(policy, { limits }) {
  const most = Math.min(limits.usable || policy.threads, (policy.cores || []).length || policy.threads);
  if (policy.threads <= most) return policy;
  throw new Fault(
    `${policy.threads} threads on ${policy.name} cores`, `at most ${most}, which is what this process may use there`,
    `--threads ${most}, or --clusters`,
  );
}
