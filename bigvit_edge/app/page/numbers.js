// Numbers as Python spells them and sums them: the page's texts and hashes are those of bigvit-edge on a computer.

/** An error that a person reads, as bigvit_edge.errors.UserError words it. */
export class Fault extends Error {
  constructor(met, expected, what = "") {
    super(`${met}; expected ${expected}${what ? `; ${what}` : ""}`);
  }
}

/** f"{x:.{digits}f}": half to even, where toFixed rounds up. */
export function fix(x, digits) {
  return roundEven(x, digits, (d) => x.toFixed(d));
}

/** f"{x:.{digits}g}". */
export function general(x, digits = 6) {
  if (x === 0) return "0";
  const [mantissa, power] = roundEven(x, digits - 1, (d) => x.toExponential(d)).split("e");
  const exponent = Number(power);
  if (exponent >= -4 && exponent < digits) return strip(fix(Number(`${mantissa}e${power}`), digits - 1 - exponent));
  return `${strip(mantissa)}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}

/** f"{x:.{digits}%}". */
export const percent = (x, digits = 0) => `${fix(x * 100, digits)}%`;

/** f"{x:,.0f}". */
export const thousands = (x) => fix(x, 0).replace(/\B(?=(\d{3})+$)/g, ",");

const strip = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);

/** What `spell` gives with so many digits, but an exact half to the even neighbour. */
function roundEven(x, digits, spell) {
  const text = spell(digits);
  const whole = spell(Math.min(100, digits + 60)).split("e")[0];
  const point = whole.indexOf(".");
  const rest = whole.slice(point + 1 + digits);
  if (point < 0 || !/^50*$/.test(rest)) return text;
  const kept = whole.slice(0, digits ? point + 1 + digits : point);
  const isEven = Number(kept[kept.length - 1]) % 2 === 0;
  const tail = spell(1).includes("e") ? `e${spell(Math.min(100, digits + 60)).split("e")[1]}` : "";
  return isEven ? kept + tail : text;
}

/** round(x) of Python: halves to the even neighbour. */
export function round(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 ? low + 1 : low;
}

/** The items of lists, in one; of more lists than a call takes arguments, too. */
export function join(lists) {
  const all = [];
  for (const list of lists) for (const item of list) all.push(item);
  return all;
}

/** The least and the greatest of them. */
export const findRange = (values) => values.reduce(
  ([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity],
);

export const sum = (values) => values.reduce((total, value) => total + value, 0);

/** The correctly rounded sum, as math.fsum (Shewchuk 1997). */
export function sumExactly(values) {
  const partials = [];
  for (let x of values) {
    let kept = 0;
    for (let y of partials) {
      if (Math.abs(x) < Math.abs(y)) [x, y] = [y, x];
      const high = x + y;
      const low = y - (high - x);
      if (low) partials[kept++] = low;
      x = high;
    }
    partials.length = kept;
    partials.push(x);
  }
  let high = partials.pop() || 0;
  let low = 0;
  while (partials.length && !low) {
    const x = high;
    const y = partials.pop();
    high = x + y;
    low = y - (high - x);
  }
  const next = partials[partials.length - 1];
  if (next && Math.sign(low) === Math.sign(next) && high + 2 * low - high === 2 * low) high += 2 * low;
  return high;
}

export function median(values) {
  const ordered = Float64Array.from(values).sort();
  const middle = ordered.length >> 1;
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
}

/** statistics.quantiles(values, n=4): the exclusive method. */
export function quartiles(values) {
  const ordered = Float64Array.from(values).sort();
  return [1, 2, 3].map((i) => {
    const place = i * (ordered.length + 1);
    const at = Math.min(Math.max(Math.floor(place / 4), 1), ordered.length - 1);
    const share = place - at * 4;
    return (ordered[at - 1] * (4 - share) + ordered[at] * share) / 4;
  });
}
