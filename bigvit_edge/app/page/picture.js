// From pixels to a model's input, exactly as Pillow resizes and bigvit_edge/export/image.py crops and normalises.

import { Fault, round } from "./numbers.js";

const [SQUARE, CENTER, SQUASH, BORDER] = ["largest centre square", "center", "squash", "border"];
const MOST_RESIZED = 2 ** 26; // pixels of a picture after the resize, before the crop
const FAINT = 32; // levels between the darkest and the brightest of a channel
const BITS = 22; // Pillow's weights are whole numbers of 2^-22

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

function weighCubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

const FILTERS = { // how far one reaches, and its weight at a distance
  "bilinear, antialiased": [1, (x) => (x < 1 ? 1 - x : 0)],
  "bicubic, antialiased": [2, weighCubic],
  "lanczos, antialiased": [3, (x) => (x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

/** What a Preprocessing makes of a picture {width, height, data: RGBA}: {pixels: as the model takes them, Float32Array
 * [3, S, S] or Uint8Array in its layout; seen: what the model sees, an ImageData's {width, height, data}}. Fault on a
 * resize, crop or input that is not known. */
export function preparePicture(picture, how) {
  const placed = place(layOnGround(resizeWhole(gather(picture), how)), how);
  const area = how.size * how.size;
  const seen = new Uint8ClampedArray(4 * area).fill(255);
  for (let i = 0; i < area; i++) {
    for (let channel = 0; channel < 3; channel++) seen[4 * i + channel] = placed.data[3 * i + channel];
  }
  return { pixels: makeInput(placed.data, area, how), seen: { width: how.size, height: how.size, data: seen } };
}

/** The pixels [S, S, 3] as a file takes them, as make_input of image.py. A library that knows no dtype means float32. */
function makeInput(pixels, area, how) {
  const { dtype = "float32", layout = "NCHW" } = how;
  if (dtype === "uint8" && layout === "NHWC") return Uint8Array.from(pixels);
  if (!["uint8", "float32"].includes(dtype) || layout !== "NCHW") {
    throw new Fault(`an input of ${dtype} in ${layout}`, "one that this version knows", "update it");
  }
  const input = dtype === "uint8" ? new Uint8Array(3 * area) : new Float32Array(3 * area);
  for (let channel = 0; channel < 3; channel++) {
    const source = how.color === "BGR" && dtype === "float32" ? 2 - channel : channel;
    const spell = dtype === "uint8" ? (value) => value : (value) => normalize(value, how, channel);
    const values = Array.from({ length: 256 }, (_, value) => spell(value));
    for (let i = 0; i < area; i++) input[channel * area + i] = values[pixels[3 * i + source]];
  }
  return input;
}

function normalize(value, how, channel) {
  const scaled = Math.fround(value / Math.fround(1 / how.scale));
  return Math.fround(Math.fround(scaled - Math.fround(how.mean[channel])) / Math.fround(how.std[channel]));
}

/** RGB, or colours times alpha and alpha where a part is transparent. */
function gather({ width, height, data }) {
  const area = width * height;
  let [low, high] = [255, 0];
  for (let i = 3; i < 4 * area; i += 4) {
    low = Math.min(low, data[i]);
    high = Math.max(high, data[i]);
  }
  if (low === 255 || high === 0) {
    const rgb = new Uint8Array(3 * area);
    for (let i = 0, from = 0; i < 3 * area; i += 3, from += 4) {
      rgb[i] = data[from];
      rgb[i + 1] = data[from + 1];
      rgb[i + 2] = data[from + 2];
    }
    return { width, height, channels: 3, data: rgb };
  }
  const gathered = new Uint8Array(4 * area);
  for (let i = 0; i < 4 * area; i++) gathered[i] = i % 4 === 3 ? data[i] : multiply(data[i], data[i | 3]);
  return { width, height, channels: 4, data: gathered };
}

/** Of 255ths, as Pillow rounds. */
function multiply(value, alpha) {
  const product = value * alpha + 128;
  return ((product >> 8) + product) >> 8;
}

/** Transparent parts on white, as viewers show them; on black where white would hide it, such as white ink. */
function layOnGround({ width, height, channels, data }) {
  if (channels === 3) return { width, height, channels, data };
  const onBlack = new Int16Array(3 * width * height);
  const onWhite = onBlack.map((_, i) => {
    const at = 4 * Math.floor(i / 3);
    onBlack[i] = data[at + (i % 3)];
    return onBlack[i] + 255 - data[at + 3];
  });
  const hidden = measureRange(onWhite) < FAINT && FAINT < measureRange(onBlack);
  return { width, height, channels: 3, data: Uint8ClampedArray.from(hidden ? onBlack : onWhite) };
}

/** The widest range of a channel. */
function measureRange(colours) {
  return Math.max(...[0, 1, 2].map((channel) => {
    let [low, high] = [Infinity, -Infinity];
    for (let i = channel; i < colours.length; i += 3) {
      low = Math.min(low, colours[i]);
      high = Math.max(high, colours[i]);
    }
    return high - low;
  }));
}

/** The whole picture, resized; of the crop 'largest centre square', that square. */
function resizeWhole(image, how) {
  if (how.crop === SQUARE) {
    const side = Math.min(image.width, image.height);
    const [left, top] = [image.width, image.height].map((length) => Math.floor((length - side) / 2));
    return resize(image, how.size, how.size, how.resize, [left, top, left + side, top + side]);
  }
  const cut = shorten(image, how);
  return resize(cut, ...measureWhole(cut.width, cut.height, how), how.resize, [0, 0, cut.width, cut.height]);
}

/** The middle, size x size, of a resized picture, or the picture in the middle of that. */
function place(rgb, how) {
  const { size } = how;
  const fill = how.mean.map((mean) => (how.crop === BORDER ? Math.min(255, round(mean / how.scale)) : 0));
  if (how.color !== "RGB") fill.reverse();
  const [across, down] = [rgb.width, rgb.height].map((length) => findStart(length - size, how));
  const data = new Uint8Array(3 * size * size);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const [from, row] = [x + across, y + down];
      const inside = from >= 0 && from < rgb.width && row >= 0 && row < rgb.height;
      for (let c = 0; c < 3; c++) {
        data[3 * (y * size + x) + c] = inside ? rgb.data[3 * (row * rgb.width + from) + c] : fill[c];
      }
    }
  }
  return { width: size, height: size, data };
}

/** The first pixel of the middle, where there are so many more than in it; below zero, where there are fewer. */
function findStart(extra, how) {
  if (extra <= 0) return -Math.floor(-extra / 2);
  return how.crop_rounding === "down" ? Math.floor(extra / 2) : round(extra / 2);
}

/** Cut the ends off a picture so thin that, resized, most of it would be cut away and the memory not suffice. */
function shorten(image, how) {
  const [width, height] = measureWhole(image.width, image.height, how);
  if (width * height <= MOST_RESIZED) return image;
  const share = MOST_RESIZED / (width * height);
  const longest = Math.max(image.width, image.height);
  const [x, y] = [image.width, image.height].map((n) => (n === longest ? Math.trunc((n * (1 - share)) / 2) : 0));
  return cutOut(image, x, y, image.width - 2 * x, image.height - 2 * y);
}

function cutOut({ width, channels, data }, x, y, across, down) {
  const rows = new Uint8Array(channels * across * down);
  for (let row = 0; row < down; row++) {
    const start = channels * ((y + row) * width + x);
    rows.set(data.subarray(start, start + channels * across), channels * row * across);
  }
  return { width: across, height: down, channels, data: rows };
}

/** Size of the whole picture after the resize, rounded as torchvision ('center') and timm ('border') do. */
function measureWhole(width, height, how) {
  const target = how.resize_to || how.size;
  if (how.crop === SQUASH) return [target, target];
  if (how.crop === CENTER) {
    const longer = Math.trunc((target * Math.max(width, height)) / Math.min(width, height));
    return width <= height ? [target, longer] : [longer, target];
  }
  if (how.crop !== BORDER) throw new Fault(`the crop '${how.crop}'`, "one that this version knows", "update it");
  const ratio = Math.max(width, height) / target;
  return [Math.max(1, round(width / ratio)), Math.max(1, round(height / ratio))];
}

/** {width, height, channels, data}, a part of it resized as Image.resize(size, method, box) of Pillow. */
export function resize(image, width, height, method, box) {
  const [left, top, right, bottom] = box;
  if (right - left === width && bottom - top === height) return cutOut(image, left, top, width, height);
  if (method === "nearest") return takeNearest(image, width, height, box);
  const filter = FILTERS[method];
  if (!filter) throw new Fault(`the resize '${method}'`, `one of nearest, ${Object.keys(FILTERS).join(", ")}`);
  const across = weigh(image.width, left, right, width, filter);
  const down = weigh(image.height, top, bottom, height, filter);
  // as Pillow since 13: its passes round, so that their order shows
  const isTall = image.height > height && image.height - height > 2 * (image.width - width);
  if (isTall) return filterColumns(filterRows(image, down), across);
  const [last, weights] = down[height - 1];
  return filterRows(filterColumns(image, across, down[0][0], last + weights.length), down);
}

function takeNearest(image, width, height, [left, top, right, bottom]) {
  const columns = stepThrough(left, right, width);
  const rows = stepThrough(top, bottom, height);
  const { channels } = image;
  const data = new Uint8Array(channels * width * height);
  rows.forEach((row, y) => columns.forEach((column, x) => {
    const [from, to] = [channels * (row * image.width + column), channels * (y * width + x)];
    for (let c = 0; c < channels; c++) data[to + c] = image.data[from + c];
  }));
  return { width, height, channels, data };
}

/** Where each of `count` steps from low to high falls; a sum of steps, as Pillow's. */
function stepThrough(low, high, count) {
  const step = (high - low) / count;
  const places = [];
  for (let i = 0, at = low + step * 0.5; i < count; i++, at += step) places.push(Math.trunc(at));
  return places;
}

/** For each pixel of a line: which of the source's it is made of, and their weights in 2^-22. */
function weigh(length, low, high, count, [reach, filter]) {
  const scale = (high - low) / count;
  const wider = Math.max(scale, 1);
  const support = reach * wider;
  return Array.from({ length: count }, (_, i) => {
    const center = low + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(length, Math.trunc(center + support + 0.5));
    const weights = new Float64Array(end - first);
    let total = 0;
    for (let x = 0; x < weights.length; x++) {
      weights[x] = filter(Math.abs((x + first - center + 0.5) * (1 / wider)));
      total += weights[x];
    }
    const whole = Int32Array.from(weights, (weight) => {
      const share = (total ? weight / total : weight) * 2 ** BITS;
      return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
    return [first, whole];
  });
}

const HALF = 2 ** (BITS - 1);
const shrink = (total) => Math.min(255, Math.max(0, total >> BITS)); // 255 times all weights fits 32 bits

/** Rows `low` to `high` of a picture, each filtered; the others stay 0. */
function filterColumns({ width, height, channels, data }, columns, low = 0, high = height) {
  const filtered = new Uint8Array(channels * columns.length * height);
  for (let y = low; y < high; y++) {
    for (let x = 0; x < columns.length; x++) {
      const [first, weights] = columns[x];
      const to = channels * (y * columns.length + x);
      for (let c = 0; c < channels; c++) {
        let total = HALF;
        for (let i = 0, at = channels * (y * width + first) + c; i < weights.length; i++, at += channels) {
          total = (total + data[at] * weights[i]) | 0;
        }
        filtered[to + c] = shrink(total);
      }
    }
  }
  return { width: columns.length, height, channels, data: filtered };
}

function filterRows({ width, channels, data }, rows) {
  const line = channels * width;
  const filtered = new Uint8Array(line * rows.length);
  const totals = new Int32Array(line);
  rows.forEach(([first, weights], y) => {
    totals.fill(HALF);
    for (let i = 0; i < weights.length; i++) {
      const [from, weight] = [line * (first + i), weights[i]];
      for (let x = 0; x < line; x++) totals[x] += data[from + x] * weight;
    }
    for (let x = 0; x < line; x++) filtered[line * y + x] = shrink(totals[x]);
  });
  return { width, height: rows.length, channels, data: filtered };
}
