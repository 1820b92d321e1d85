// Elements of texts alone: nothing of a file's or a host's is ever taken for HTML.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "rect", "line", "text", "path", "image"]);

/** An element. attributes: as in HTML, but on...: a listener, style: of CSSOM; what is null or false is left out. */
export function make(tag, attributes = {}, ...children) {
  const element = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== false));
  return element;
}

/** Put these into an element instead of what is there. */
export function fill(element, ...children) {
  element.textContent = "";
  element.append(...children.flat(2).filter((child) => child !== null && child !== false));
}

/** A table that scrolls by itself where it is too wide. rows: of texts or elements; figures: from which column on. */
export function makeTable(caption, titles, rows, figures) {
  const cell = (tag) => (content, i) => (
    make(tag, { class: i >= figures && "number", scope: tag === "th" && "col" }, content)
  );
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, make("table", {},
    make("thead", {}, make("tr", {}, titles.map(cell("th")))),
    make("tbody", {}, rows.map((row) => make("tr", {}, row.map(cell("td")))))));
}

export const makeTiles = (tiles) => make("div", { class: "tiles" }, tiles.map(([value, what]) => (
  make("div", { class: "tile" }, make("b", {}, value), make("span", {}, what))
)));

export const makeList = (items) => make("ul", {}, items.map((item) => make("li", {}, item)));
