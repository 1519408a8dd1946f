"use strict";
// Crop a drawing, black on white, and normalise it as MNIST does: segmentation.py for a clean page.

const SIDE = 28; // pixels of the image
const BOX = 20; // pixels; the longer side of a digit in it
const MIN_STROKE = 0.05; // area as a share of the largest stroke's; smaller ones are dust
const MIN_AREA = 1e-4; // of a stroke as a share of the picture's

// Return the 784 numbers from 0 to 255 of the drawn digit, ink 255, or null if there is none.
// The pixels are those of a canvas: red, green, blue and opacity, from 0 to 255.
function digit({ data, width, height }) {
  const ink = new Float32Array(width * height);
  for (let at = 0; at < ink.length; at++) ink[at] = 1 - data[4 * at] / 255;
  const strokes = labelled(ink, width, height);
  if (!strokes) return null;
  for (let at = 0; at < ink.length; at++) if (!strokes[at]) ink[at] = 0;
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let at = 0; at < ink.length; at++) {
    if (!(ink[at] > 0)) continue;
    const [x, y] = [at % width, Math.floor(at / width)];
    [left, top] = [Math.min(left, x), Math.min(top, y)];
    [right, bottom] = [Math.max(right, x + 1), Math.max(bottom, y + 1)];
  }
  const rows = [];
  for (let y = top; y < bottom; y++) rows.push(ink.slice(y * width + left, y * width + right));
  return centred(scaled(rows));
}

// Mark the pixels of strokes, dust left out, and of their pale edges; null if there is no stroke.
function labelled(ink, width, height) {
  const labels = new Int32Array(ink.length);
  const areas = [0];
  const near = (at, visit) => {
    const [x, y] = [at % width, Math.floor(at / width)];
    for (let v = Math.max(0, y - 1); v <= Math.min(height - 1, y + 1); v++)
      for (let u = Math.max(0, x - 1); u <= Math.min(width - 1, x + 1); u++) visit(v * width + u);
  };
  for (let first = 0; first < ink.length; first++) {
    if (!(ink[first] > 0.25) || labels[first]) continue;
    const [label, waiting] = [areas.length, [first]];
    areas.push(0);
    labels[first] = label;
    while (waiting.length) {
      const at = waiting.pop();
      if (ink[at] > 0.5) areas[label]++;
      near(at, (next) => {
        if (!(ink[next] > 0.25) || labels[next]) return;
        labels[next] = label;
        waiting.push(next);
      });
    }
  }
  const least = Math.max(MIN_STROKE * Math.max(...areas), MIN_AREA * ink.length, 3);
  if (!areas.some((area) => area >= least)) return null;
  const marked = new Uint8Array(ink.length);
  labels.forEach((label, at) => {
    if (!label || areas[label] < least) return;
    near(at, (next) => {
      if (!labels[next] || next === at) marked[next] = 1;
    });
  });
  return marked;
}

// Scale rows so that the longer side has 20 pixels, with the Hamming filter, as Pillow does.
function scaled(rows) {
  const [height, width] = [rows.length, rows[0].length];
  const scale = BOX / Math.max(height, width);
  const [tall, wide] = [height, width].map((side) => Math.max(1, even(side * scale)));
  if (tall === height && wide === width) return rows;
  const across = weights(width, wide);
  const down = weights(height, tall);
  const narrow = rows.map((row) => Float32Array.from(across, (places) => sum(places, (at) => row[at])));
  return down.map((places) => Float32Array.from({ length: wide }, (_, x) => sum(places, (at) => narrow[at][x])));
}

// Round as Python does: halves to the even number.
function even(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 ? floor + 1 : floor;
}

const sum = (places, value) => places.reduce((total, [at, weight]) => total + weight * value(at), 0);

// Return for each new pixel the old ones that it is made of, with their weights.
function weights(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1); // of the filter, in old pixels
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(from, Math.trunc(centre + support + 0.5));
    const places = [];
    for (let at = first; at < last; at++) places.push([at, hamming((at - centre + 0.5) / support)]);
    const total = places.reduce((all, [, weight]) => all + weight, 0);
    return places.map(([at, weight]) => [at, weight / total]);
  });
}

function hamming(x) {
  const at = Math.abs(x);
  if (at === 0) return 1;
  if (at >= 1) return 0;
  return (Math.sin(Math.PI * at) / (Math.PI * at)) * (0.54 + 0.46 * Math.cos(Math.PI * at));
}

// Put rows, the brightest of which becomes 255, with their centre of mass in the middle of 28 × 28.
function centred(rows) {
  let greatest = 1e-6;
  for (const row of rows) for (const value of row) greatest = Math.max(greatest, value);
  let [mass, x, y] = [0, 0, 0];
  rows.forEach((row, v) => row.forEach((value, u) => {
    const share = Math.max(value, 0) / greatest;
    [mass, x, y] = [mass + share, x + u * share, y + v * share];
  }));
  const [top, left] = [[y, rows.length], [x, rows[0].length]].map(([moment, side]) =>
    Math.min(Math.max(even(SIDE / 2 - moment / mass), 0), SIDE - side));
  const image = new Array(SIDE * SIDE).fill(0);
  rows.forEach((row, v) => row.forEach((value, u) => {
    image[(top + v) * SIDE + left + u] = even((255 * Math.max(value, 0)) / greatest);
  }));
  return image;
}

if (typeof module !== "undefined") module.exports = { digit };
