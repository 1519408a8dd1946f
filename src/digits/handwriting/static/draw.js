"use strict";
// Draw with mouse, finger, pen or keys; every movement asks the networks for new predictions.

const canvas = document.getElementById("canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });
const networkInput = document.getElementById("network-input").getContext("2d");
const summary = document.getElementById("summary");
const PEN = 22; // pixels; some 2 of the 20 that a digit has in MNIST
const STEP = 8; // pixels per arrow key

let strokes = []; // lists of [x, y]
let drawing = null; // the stroke being drawn
const pen = { x: 140, y: 60, shown: false };
let asking = false; // predictions are under way
let changed = false; // the drawing has changed since the last ones
const networks = {}; // by version

function paint(withPen) {
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = context.fillStyle = "#000";
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point);
    if (stroke.length === 1) context.lineTo(stroke[0][0] + 0.01, stroke[0][1]);
    context.stroke();
  }
  if (withPen && pen.shown) {
    context.lineWidth = 3;
    context.strokeStyle = drawing ? "#d9382b" : "#1f6fb4";
    context.beginPath();
    context.arc(pen.x, pen.y, PEN / 2 + 2, 0, 7);
    context.stroke();
  }
}

async function ask() {
  changed = true;
  if (asking) return;
  asking = true;
  try {
    while (changed) {
      // The browser paints between two predictions, for which all movements until then count.
      await new Promise((done) => setTimeout(done));
      changed = false;
      paint(false); // The mark of the pen is not part of the drawing.
      const image = strokes.length ? digit(context.getImageData(0, 0, canvas.width, canvas.height)) : null;
      paint(true);
      const answers = {};
      if (image) for (const name in networks) answers[name] = classify(networks[name], image);
      show({ answers, image: image || [] });
    }
  } catch (error) {
    summary.textContent = `No answer: ${error.message}`;
  } finally {
    asking = false;
  }
}

// Show probabilities and the 28 × 28 image, which is empty if there is no digit.
function show({ answers, image }) {
  const sentences = [];
  for (const network of document.querySelectorAll(".network")) {
    const shares = answers[network.dataset.version];
    const best = shares ? shares.indexOf(Math.max(...shares)) : -1;
    network.querySelector(".label").textContent = shares ? best : "–";
    network.querySelectorAll("li").forEach((row, digit) => {
      const share = shares ? shares[digit] : 0;
      row.classList.toggle("best", digit === best);
      row.querySelector(".bar").style.width = `${100 * share}%`;
      row.querySelector(".share").textContent = shares ? `${(100 * share).toFixed(1)} %` : "";
    });
    if (shares) sentences.push(`${network.dataset.version}: ${best} (${(100 * shares[best]).toFixed(1)} %)`);
  }
  if (image.length) summary.textContent = sentences.join(", ");
  else summary.textContent = strokes.length ? "No digit found." : "Nothing drawn yet.";
  const pixels = networkInput.createImageData(28, 28);
  image.forEach((gray, index) => {
    pixels.data.set([gray, gray, gray, 255], 4 * index);
  });
  networkInput.putImageData(pixels, 0, 0);
}

function begin(x, y) {
  drawing = [[x, y]];
  strokes.push(drawing);
  changedPicture();
}

function extend(x, y) {
  drawing.push([x, y]);
  changedPicture();
}

function changedPicture() {
  paint(true);
  ask();
}

function clear() {
  strokes = [];
  drawing = null;
  changedPicture();
}

function undo() {
  strokes.pop();
  drawing = null;
  changedPicture();
}

function position(event) {
  const edge = canvas.getBoundingClientRect();
  const scale = canvas.width / edge.width;
  return [(event.clientX - edge.left) * scale, (event.clientY - edge.top) * scale];
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return; // A second finger draws nothing.
  canvas.setPointerCapture(event.pointerId);
  pen.shown = false;
  begin(...position(event));
});
canvas.addEventListener("pointermove", (event) => {
  if (!drawing || !event.isPrimary || !canvas.hasPointerCapture(event.pointerId)) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const move of events.length ? events : [event]) drawing.push(position(move));
  changedPicture();
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => { if (event.isPrimary) drawing = null; });
}

canvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in moves) {
    const [across, down] = moves[event.key];
    const edge = PEN / 2;
    pen.x = Math.min(canvas.width - edge, Math.max(edge, pen.x + STEP * across));
    pen.y = Math.min(canvas.height - edge, Math.max(edge, pen.y + STEP * down));
    pen.shown = true;
    if (drawing) extend(pen.x, pen.y);
    else paint(true);
  } else if (event.key === " ") {
    pen.shown = true;
    if (drawing) {
      drawing = null;
      paint(true);
    } else begin(pen.x, pen.y);
  } else if (event.key.toLowerCase() === "c" || event.key === "Delete") clear();
  else if (event.key.toLowerCase() === "u") undo();
  else return;
  event.preventDefault();
});
canvas.addEventListener("focus", () => {
  pen.shown = canvas.matches(":focus-visible");
  paint(true);
});
canvas.addEventListener("blur", () => {
  pen.shown = false;
  drawing = null;
  paint(true);
});
document.getElementById("clear").addEventListener("click", clear);
document.getElementById("undo").addEventListener("click", undo);

function section({ version, about }) {
  const element = document.createElement("section");
  element.className = "network";
  element.dataset.version = version;
  const title = document.createElement("h2");
  title.append(version, Object.assign(document.createElement("span"), { className: "label" }));
  const description = Object.assign(document.createElement("p"), { className: "about", textContent: about });
  const rows = document.createElement("ol");
  for (let digit = 0; digit < 10; digit++) {
    const row = document.createElement("li");
    const track = Object.assign(document.createElement("span"), { className: "track" });
    track.append(Object.assign(document.createElement("span"), { className: "bar" }));
    const share = Object.assign(document.createElement("span"), { className: "share" });
    row.append(String(digit), track, share);
    rows.append(row);
  }
  element.append(title, description, rows);
  return element;
}

async function get(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.status}`);
  return response;
}

async function load() {
  for (const described of await (await get("networks.json")).json()) {
    networks[described.version] = prepare(described, await (await get(described.file)).arrayBuffer());
    document.getElementById("networks").append(section(described));
  }
  ask();
}

load().catch((error) => { summary.textContent = `No answer: ${error.message}`; });
paint(true);
