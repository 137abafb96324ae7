// The page: files to pixels, the worker's answers to labels, bars and maps. Nothing is sent anywhere.
const $ = (id) => document.getElementById(id);
const MOST_PIXELS = 4_000_000, SHOWN = 640, NUM_LABELS = 5;
const worker = new Worker("worker.js", { type: "module" });
const asked = new Map(), images = [];
let labels = [], about = null, num = 0, done = 0, addedAt = 0, firstTook = 0, hasFailed = false;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}
const percent = (p) => `${(100 * p).toFixed(p > 0.9995 || p < 0.1 ? 2 : 1)} %`;

// Turned as its EXIF says, without colour management, transparency on white, as in Python. A canvas must never resize
// what the model will resize: only above four megapixels the image is made smaller first.
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" });
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const width = Math.max(1, Math.round(bitmap.width * scale)), height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = element("canvas", { width, height }), context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return { width, height, data: context.getImageData(0, 0, width, height).data, canvas };
}
function run(pixels) {
  return new Promise((resolve, reject) => {
    const id = ++num, { width, height, data } = pixels;
    asked.set(id, { resolve, reject });
    worker.postMessage({ id, width, height, data: data.slice() });
  });
}
function ranked(probabilities) {
  return [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, NUM_LABELS);
}
async function classify(file) {
  const shown = element("canvas", { width: 1, height: 1 }), title = element("h2", { textContent: "Looking …" }), bars = element("ol");
  const card = element("article", { className: "panel" }, shown, element("p", { className: "file", textContent: file.name }), title, bars);
  $("results").prepend(card);
  try {
    const pixels = await pixelsOf(file).catch(() => { throw new Error("this file is no image that the browser can read"); });
    const one = { pixels, shown, map: null, name: file.name };
    draw(one);
    const started = performance.now(), found = await run(pixels), best = ranked(found.probabilities);
    title.textContent = labels[best[0]];
    bars.replaceChildren(...best.map((index) => {
      const fill = element("i");
      fill.style.width = `${100 * found.probabilities[index]}%`;
      return element("li", {}, fill, element("span", { textContent: labels[index] }), element("b", { textContent: percent(found.probabilities[index]) }));
    }));
    card.result = { name: file.name, probabilities: [...found.probabilities], milliseconds: performance.now() - started };
    Object.assign(one, { map: found.map, side: found.side, label: labels[best[0]] });
    images.push(one);
    draw(one);
  } catch (error) {
    card.classList.add("failed");
    title.textContent = "Not usable";
    bars.replaceChildren(element("li", { textContent: error.message }));
  }
  done++;
  report();
}
function report() {
  const all = $("results").childElementCount;
  if (hasFailed) return;
  if (done < all) return say(`${done} of ${all} done …`);
  const first = firstTook ? `; the first answer took ${(firstTook / 1000).toFixed(1)} s` : "";
  say(all ? `${all} image${all > 1 ? "s" : ""} done${first}.` : "Ready.");
}

// What the network sees of an image, as fractions of its sides.
function seen({ resize, crop_fraction: crop, input_size: size }, width, height) {
  if (resize === "whole") return [0, 0, 1, 1];
  if (resize === "central_crop") return [(1 - crop) / 2, (1 - crop) / 2, crop, crop];
  const side = Math.min(width, height) * size / Math.round(size / crop);
  return [(1 - side / width) / 2, (1 - side / height) / 2, side / width, side / height];
}
function draw(one) {
  const { width, height, canvas } = one.pixels, scale = Math.min(1, SHOWN / Math.max(width, height));
  one.shown.width = Math.max(1, Math.round(width * scale));
  one.shown.height = Math.max(1, Math.round(height * scale));
  const context = one.shown.getContext("2d"), isMapped = one.map?.length > 1 && $("show-map").checked;
  context.drawImage(canvas, 0, 0, one.shown.width, one.shown.height);
  one.shown.setAttribute("role", "img");
  one.shown.setAttribute("aria-label", isMapped ? `${one.name}, with the regions that speak for ${one.label} in orange` : one.name);
  if (!isMapped) return;
  const most = Math.max(1e-9, ...one.map), { rows, columns } = one.side;
  const small = element("canvas", { width: columns, height: rows }), colours = new ImageData(columns, rows);
  one.map.forEach((value, index) => colours.data.set([235, 110, 20, 170 * Math.max(0, value / most)], 4 * index));
  small.getContext("2d").putImageData(colours, 0, 0);
  const [left, top, across, down] = seen(about.preprocessing, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, left * one.shown.width, top * one.shown.height, across * one.shown.width, down * one.shown.height);
}
function add(files) {
  const chosen = [...files].filter((file) => file.size > 0);
  if (!chosen.length) return say("There was no image in that.", true);
  addedAt ||= performance.now();
  chosen.forEach(classify);
}
function fail(message) {
  say(message, true);
  hasFailed = true;
  for (const { reject } of asked.values()) reject(new Error("the model is not loaded"));
}

worker.onmessage = ({ data }) => {
  if (data.kind === "ready") {
    labels = data.labels; about = data.about;
    $("name").textContent = about.network;
    document.title = `${about.network}: image classifier`;
    $("engine").textContent = data.note;
    document.body.dataset.engine = data.engine;
    if (!num) say("Ready.");
  } else if (data.kind === "failed") {
    fail(data.message);
  } else {
    const { resolve, reject } = asked.get(data.id);
    asked.delete(data.id);
    if (data.message) return reject(new Error(data.message));
    firstTook ||= performance.now() - addedAt;
    resolve(data);
  }
};
worker.onerror = (event) => { event.preventDefault(); fail("A file of this page is missing or not JavaScript: copy the whole folder to the server."); };
for (const name of ["dragenter", "dragover"]) addEventListener(name, (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("over"); add(event.dataTransfer.files); });
$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => { add($("files").files); $("files").value = ""; });
$("show-map").addEventListener("change", () => images.forEach(draw));
