"use strict";

// --- What is shown ---

const data = JSON.parse(document.getElementById("data").textContent);

function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Kind(bytes.buffer);
}

const file = unpack(data.file, Uint32Array);
const start = unpack(data.start, Float32Array);
const end = unpack(data.end, Float32Array);
const x = unpack(data.x, Float32Array);
const y = unpack(data.y, Float32Array).map((value) => -value); // a screen counts downwards
const neighbourRows = unpack(data.neighbours.rows, Uint32Array);
const total = x.length;
const groupings = data.groupings.map((g) => ({ ...g, members: unpack(g.members, Uint32Array) }));

const NAMED_COLOURS = 20; // further groups share grey
const LISTED = 200; // entries of a list in the panel
const ROUND = 6000; // points in view, up to which they are drawn round
const NEAR = 12; // pixels from a point that still hit it
const GOLDEN_ANGLE = 137.508; // degrees between hues: any first few of them lie far apart

let grouping = groupings[0];
let order = byGroup(); // points with those of one colour together
let chosen = -1;
let marked = new Uint8Array(total);
let markedCount = 0;
let hovered = -1;
let loop = null; // corners of the lasso in pixels, while it is drawn
let theme = null;

function byGroup() {
  return Uint32Array.from(x.keys()).sort((a, b) => grouping.members[b] - grouping.members[a]);
}

// --- The view: pixels = points * scale + offset ---

const element = (id) => document.getElementById(id);
const canvas = element("map");
const pen = canvas.getContext("2d");
const view = { scale: 1, left: 0, top: 0 };
let fitted = 1; // scale at which all points are in view

const screenX = (point) => x[point] * view.scale + view.left;
const screenY = (point) => y[point] * view.scale + view.top;

function bounds(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

function fit() {
  const [left, right] = bounds(x);
  const [top, bottom] = bounds(y);
  const { clientWidth: width, clientHeight: height } = canvas;
  const margin = 0.88;
  fitted = margin * Math.min(width / (right - left || 1), height / (bottom - top || 1));
  view.scale = fitted;
  view.left = width / 2 - (fitted * (left + right)) / 2;
  view.top = height / 2 - (fitted * (top + bottom)) / 2;
  redraw();
}

function zoom(factor, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) {
  const scale = Math.min(Math.max(view.scale * factor, fitted / 2), fitted * 5000);
  view.left = px - ((px - view.left) * scale) / view.scale;
  view.top = py - ((py - view.top) * scale) / view.scale;
  view.scale = scale;
  redraw();
}

function move(dx, dy) {
  view.left += dx;
  view.top += dy;
  redraw();
}

function bringIntoView(point) {
  const margin = 40;
  const { clientWidth: width, clientHeight: height } = canvas;
  const inside = (value, size) => value > margin && value < size - margin;
  if (!inside(screenX(point), width) || !inside(screenY(point), height)) {
    move(width / 2 - screenX(point), height / 2 - screenY(point));
  }
}

// --- Drawing ---

let waiting = false;

function redraw() {
  if (!waiting) {
    waiting = true;
    requestAnimationFrame(draw);
  }
}

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  const lightness = [value("--lightness"), value("--lightness-2")];
  theme = { paper: value("--paper"), ink: value("--ink"), faint: value("--faint"), quiet: value("--quiet") };
  theme.colours = Array.from({ length: NAMED_COLOURS }, (_, i) =>
    `hsl(${((i * GOLDEN_ANGLE + 215) % 360).toFixed(1)}, 68%, ${lightness[i % 2]})`);
}

const colourOf = (group) => (group < NAMED_COLOURS ? theme.colours[group] : theme.quiet);

function pointsInView() {
  const { clientWidth: width, clientHeight: height } = canvas;
  return order.filter((point) => {
    const px = screenX(point);
    const py = screenY(point);
    return px > -9 && py > -9 && px < width + 9 && py < height + 9;
  });
}

function draw() {
  waiting = false;
  const ratio = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = theme.paper;
  pen.fillRect(0, 0, width, height);
  const shown = pointsInView();
  const size = Math.min(Math.max(90 / Math.sqrt(total), 1), 3.5);
  const radius = Math.min(size * Math.sqrt(Math.max(view.scale / fitted, 1)), 6);
  if (markedCount > 0) {
    drawPoints(shown.filter((point) => !marked[point]), radius, () => theme.faint);
    drawPoints(shown.filter((point) => marked[point]), radius, colourOf);
  } else {
    drawPoints(shown, radius, colourOf);
  }
  if (chosen >= 0) drawChosen(radius);
  if (loop) drawLoop();
}

function drawPoints(points, radius, colour) {
  const round = points.length <= ROUND;
  let group = -1;
  for (const point of points) {
    if (grouping.members[point] !== group) {
      group = grouping.members[point];
      pen.fillStyle = colour(group);
    }
    if (round) {
      pen.beginPath();
      pen.arc(screenX(point), screenY(point), radius, 0, 2 * Math.PI);
      pen.fill();
    } else {
      pen.fillRect(screenX(point) - radius, screenY(point) - radius, 2 * radius, 2 * radius);
    }
  }
}

function ring(point, radius, width) {
  pen.lineWidth = width;
  pen.beginPath();
  pen.arc(screenX(point), screenY(point), radius, 0, 2 * Math.PI);
  pen.stroke();
}

function drawChosen(radius) {
  pen.strokeStyle = theme.ink;
  pen.lineWidth = 1;
  pen.globalAlpha = 0.45;
  pen.beginPath();
  for (const point of neighboursOf(chosen)) {
    pen.moveTo(screenX(chosen), screenY(chosen));
    pen.lineTo(screenX(point), screenY(point));
  }
  pen.stroke();
  pen.globalAlpha = 1;
  for (const point of neighboursOf(chosen)) ring(point, radius + 2, 1.2);
  ring(chosen, radius + 5, 2.5);
}

function drawLoop() {
  pen.strokeStyle = theme.ink;
  pen.lineWidth = 1.5;
  pen.setLineDash([5, 4]);
  pen.beginPath();
  loop.forEach(([px, py]) => pen.lineTo(px, py));
  pen.closePath();
  pen.stroke();
  pen.setLineDash([]);
}

// --- Points and their names ---

const neighboursOf = (point) =>
  neighbourRows
    .subarray(point * data.neighbours.count, (point + 1) * data.neighbours.count)
    .filter((other) => other !== point); // itself where fewer were found

const pathOf = (point) => data.files[file[point]].path;
const nameOf = (point) => pathOf(point).split(/[\\/]/).pop();

function clock(seconds) {
  const tenths = Math.round(10 * seconds);
  const minutes = Math.floor(tenths / 600);
  return `${minutes}:${((tenths - 600 * minutes) / 10).toFixed(1).padStart(4, "0")}`;
}

const timesOf = (point) => `${clock(start[point])}–${clock(end[point])}`;

function nearest(px, py, farthest = NEAR) {
  let found = -1;
  let least = farthest * farthest;
  for (let point = 0; point < total; point++) {
    if (markedCount > 0 && !marked[point] && farthest === NEAR) continue;
    const distance = (screenX(point) - px) ** 2 + (screenY(point) - py) ** 2;
    if (distance <= least) [found, least] = [point, distance];
  }
  return found;
}

function nextTowards(dx, dy) {
  if (chosen < 0) return nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity);
  let found = chosen;
  let least = Infinity;
  for (let point = 0; point < total; point++) {
    const along = (x[point] - x[chosen]) * dx + (y[point] - y[chosen]) * dy;
    const across = Math.abs((x[point] - x[chosen]) * dy - (y[point] - y[chosen]) * dx);
    if (along <= 0 || across > along) continue;
    const distance = along + 2 * across;
    if (distance < least) [found, least] = [point, distance];
  }
  return found;
}

// --- Hearing ---

const audio = element("audio");
const trouble = element("trouble");

function play(point) {
  trouble.hidden = true;
  audio.hidden = false;
  const times = data.whole ? "" : `#t=${start[point]},${end[point]}`;
  audio.src = data.files[file[point]].url + times;
  audio.play().catch((error) => {
    if (error.name !== "AbortError") report(); // the next point was played before this began
  });
}

function report() {
  trouble.textContent = `Cannot be played from ${decodeURI(data.files[file[chosen]].url)}`;
  trouble.hidden = false;
}

function playOrStop() {
  if (chosen < 0) return;
  if (audio.paused) play(chosen);
  else audio.pause();
}

// --- Choosing and marking ---

function choose(point, playing) {
  if (point < 0) return;
  chosen = point;
  if (audio.hidden === false && !playing) audio.pause();
  element("chosen").textContent = `${pathOf(point)} · ${timesOf(point)}`;
  element("nearest").hidden = data.neighbours.count === 0;
  fill("neighbours", [...neighboursOf(point)], pointEntry);
  bringIntoView(point);
  if (playing) play(point);
  redraw();
}

function mark(test) {
  markedCount = 0;
  for (let point = 0; point < total; point++) {
    marked[point] = test(point) ? 1 : 0;
    markedCount += marked[point];
  }
  const points = order.filter((point) => marked[point]).sort();
  const rest = points.length > LISTED ? `, the first ${LISTED} of them:` : "";
  element("count").textContent = markedCount
    ? `${markedCount.toLocaleString("en")} of ${total.toLocaleString("en")} points marked${rest}`
    : "No points marked.";
  element("save").disabled = element("clear").disabled = markedCount === 0;
  fill("marked", [...points.subarray(0, LISTED)], pointEntry);
  drawLegend(-1);
  redraw();
}

function search() {
  const words = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const hit = data.files.map(({ path }) => words.every((word) => path.toLowerCase().includes(word)));
  mark((point) => words.length > 0 && hit[file[point]]);
  if (words.length > 0 && markedCount === 0) element("count").textContent = "No name like that.";
}

function markGroup(group) {
  element("search").value = "";
  mark((point) => grouping.members[point] === group);
  drawLegend(group);
}

function markView() {
  const shown = new Set(pointsInView());
  mark((point) => shown.has(point));
}

function clearMarks() {
  element("search").value = "";
  mark(() => false);
}

function inside(point, corners) {
  const [px, py] = [screenX(point), screenY(point)];
  let odd = false;
  corners.forEach(([ax, ay], i) => {
    const [bx, by] = corners[(i + 1) % corners.length];
    if (ay > py !== by > py && px < ((bx - ax) * (py - ay)) / (by - ay) + ax) odd = !odd;
  });
  return odd;
}

function save() {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const seconds = (value) => Number(value.toFixed(3)); // float32 holds no more of long tracks
  const lines = ["path,start,end"];
  for (let point = 0; point < total; point++) {
    if (!marked[point]) continue;
    lines.push([quoted(pathOf(point)), seconds(start[point]), seconds(end[point])].join());
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
  link.download = "marked.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

// --- The panel ---

function fill(id, values, entry) {
  const list = element(id);
  const focused = [...list.children].findIndex((item) => item.contains(document.activeElement));
  list.replaceChildren(...values.map((value) => {
    const item = document.createElement("li");
    item.append(entry(value));
    return item;
  }));
  list.children[focused]?.firstChild.focus(); // who goes by keyboard stays where they were
}

function entryButton(name, note, colour, act) {
  const button = document.createElement("button");
  const dot = document.createElement("span");
  dot.className = "dot";
  dot.style.background = colour;
  const parts = [["name", name], ["note", note]].map(([kind, text]) => {
    const part = document.createElement("span");
    part.className = kind;
    part.textContent = text;
    return part;
  });
  button.title = name;
  button.append(dot, ...parts);
  button.addEventListener("click", act);
  return button;
}

function pointEntry(point) {
  const note = data.whole ? "" : clock(start[point]);
  const act = () => choose(point, true);
  return entryButton(nameOf(point), note, colourOf(grouping.members[point]), act);
}

function drawLegend(pressed) {
  const sizes = new Uint32Array(grouping.groups.length);
  for (const group of grouping.members) sizes[group] += 1;
  fill("legend", grouping.groups.slice(0, LISTED), (name) => {
    const group = grouping.groups.indexOf(name);
    const act = () => (group === pressed ? clearMarks() : markGroup(group));
    const button = entryButton(name, sizes[group].toLocaleString("en"), colourOf(group), act);
    button.setAttribute("aria-pressed", String(group === pressed));
    return button;
  });
}

// --- Mouse, touch and keys ---

let drawing = false; // the next drag is a lasso
let drag = null;

function toggleLasso(on = !drawing) {
  drawing = on;
  canvas.classList.toggle("drawing", on);
  element("lasso").setAttribute("aria-pressed", String(on));
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  drag = { px: event.offsetX, py: event.offsetY, moved: 0 };
  if (drawing) loop = [[event.offsetX, event.offsetY]];
});

canvas.addEventListener("pointermove", (event) => {
  const [px, py] = [event.offsetX, event.offsetY];
  if (!drag) return hover(px, py);
  drag.moved += Math.abs(px - drag.px) + Math.abs(py - drag.py);
  if (loop) {
    loop.push([px, py]);
    redraw();
  } else {
    move(px - drag.px, py - drag.py);
  }
  [drag.px, drag.py] = [px, py];
});

canvas.addEventListener("pointerup", (event) => {
  if (loop) {
    const corners = loop;
    loop = null;
    toggleLasso(false);
    element("search").value = "";
    mark((point) => inside(point, corners));
  } else if (drag && drag.moved < 4) {
    choose(nearest(event.offsetX, event.offsetY), true);
  }
  drag = null;
});

canvas.addEventListener("pointercancel", () => {
  drag = loop = null;
  redraw();
});

canvas.addEventListener("pointerleave", () => hover(-99, -99));

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.offsetX, event.offsetY);
}, { passive: false });

function hover(px, py) {
  const point = nearest(px, py);
  if (point === hovered) return;
  hovered = point;
  const hint = element("hint");
  hint.hidden = point < 0;
  canvas.style.cursor = point < 0 ? "" : "pointer";
  if (point < 0) return;
  hint.textContent = `${nameOf(point)} · ${timesOf(point)} · ${grouping.groups[grouping.members[point]]}`;
  const left = Math.min(px + 14, canvas.clientWidth - hint.offsetWidth - 8);
  const top = py + 18 + hint.offsetHeight > canvas.clientHeight ? py - hint.offsetHeight - 10 : py + 18;
  hint.style.left = `${left}px`;
  hint.style.top = `${top}px`;
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const ON_MAP = { Enter: playOrStop, " ": playOrStop };
const ANYWHERE = {
  "+": () => zoom(1.4),
  "=": () => zoom(1.4),
  "-": () => zoom(1 / 1.4),
  0: fit,
  l: () => toggleLasso(),
  v: markView,
  "/": () => element("search").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    toggleLasso(false);
    loop = null;
    clearMarks();
    canvas.focus();
    return;
  }
  if (event.target.closest("input, select, audio")) return;
  const arrow = event.target === canvas && ARROWS[event.key];
  const act = (event.target === canvas && ON_MAP[event.key]) || ANYWHERE[event.key.toLowerCase()];
  if (arrow) {
    const [dx, dy] = arrow;
    if (event.shiftKey) move(-60 * dx, -60 * dy);
    else choose(nextTowards(dx, dy), false);
  } else if (act) {
    act();
  } else {
    return;
  }
  event.preventDefault();
});

element("search").addEventListener("input", search);
element("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && markedCount > 0) choose(marked.indexOf(1), true);
});
element("closer").addEventListener("click", () => zoom(1.4));
element("farther").addEventListener("click", () => zoom(1 / 1.4));
element("fit").addEventListener("click", fit);
element("lasso").addEventListener("click", () => toggleLasso());
element("view").addEventListener("click", markView);
element("clear").addEventListener("click", clearMarks);
element("save").addEventListener("click", save);
element("colour").addEventListener("change", (event) => {
  grouping = groupings[event.target.value];
  order = byGroup();
  clearMarks();
});

// --- Begin ---

element("colour").append(...groupings.map((g, i) => new Option(g.name, i)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  readTheme();
  clearMarks();
});
let size = "";
new ResizeObserver(() => {
  if (!size) fit();
  size = `${canvas.clientWidth} ${canvas.clientHeight}`;
  redraw();
}).observe(canvas);
readTheme();
clearMarks();
