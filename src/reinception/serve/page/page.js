"use strict";
const $ = (id) => document.getElementById(id);
const AT_ONCE = 4, TRIES = 5, SIDE = 640;
const results = [], waiting = [];
let models = [], running = 0, current = null, token = "", sort = { key: "order", up: true }, stream = null;

const percent = (p) => `${(100 * p).toFixed(p > 0.9995 || p < 0.1 ? 2 : 1)} %`;
const threshold = () => Number($("threshold").value) / 100;
const isUnsure = (one) => one.labels.length > 0 && one.labels[0].probability < threshold();

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}
function confidence(p) {
  if (p >= 0.99) return "Almost certain";
  if (p >= 0.9) return "Very likely";
  if (p >= 0.7) return "Likely";
  if (p >= 0.5) return "More likely than not";
  return "A guess";
}

// -- asking the server ------------------------------------------------------------------------------------------------

async function ask(path, options = {}) {
  for (let attempt = 1; ; attempt++) {
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    const answer = await fetch(path, { ...options, headers, credentials: "omit" });
    if (answer.status === 401) {
      await askForToken();
    } else if ((answer.status === 429 || answer.status === 503) && attempt < TRIES) {
      const seconds = Math.min(10, Number(answer.headers.get("Retry-After")) || 1);
      await new Promise((done) => setTimeout(done, 1000 * seconds));
    } else {
      return answer;
    }
  }
}
let asking = null;
function askForToken() {
  asking ??= new Promise((done) => {
    $("ask").addEventListener("close", () => { token = $("token").value; asking = null; done(); }, { once: true });
    $("ask").showModal();
  });
  return asking;
}

// -- images -----------------------------------------------------------------------------------------------------------

function add(files) {
  const images = [...files].filter((file) => file.size > 0);
  if (!images.length) return say("There was no image in that.", true);
  for (const file of images) {
    const one = { order: results.length + 1, name: file.name || "pasted image", file, url: URL.createObjectURL(file), labels: [], error: null, done: false };
    results.push(one);
    waiting.push(one);
  }
  current = results[results.length - images.length];
  show();
  next();
}
function next() {
  while (running < AT_ONCE && waiting.length) classify(waiting.shift());
  if (!running && !waiting.length && results.length) {
    const failed = results.filter((one) => one.error).length;
    say(`${results.length} image${results.length > 1 ? "s" : ""} done${failed ? `, ${failed} could not be used` : ""}.`, failed > 0);
  } else if (results.length) {
    say(`${results.filter((one) => one.done).length} of ${results.length} done …`);
  }
}
async function classify(one) {
  running++;
  try {
    const query = new URLSearchParams({ model: $("model").value, map: "1", top: "5" });
    const type = one.file.type.startsWith("image/") ? one.file.type : "application/octet-stream";
    const answer = await ask(`v1/predict?${query}`, { method: "POST", body: one.file, headers: { "Content-Type": type } });
    const said = await answer.json();
    if (answer.ok) Object.assign(one, { labels: said.predictions[0].labels, map: said.predictions[0].map });
    else one.error = said.error.message;
  } catch {
    one.error = "the server did not answer";
  }
  one.done = true;
  running--;
  show();
  next();
}

// -- showing ----------------------------------------------------------------------------------------------------------

function show() {
  $("result").hidden = current === null;
  $("batch").hidden = results.length < 2;
  if (current) showOne(current);
  showRows();
}
function showOne(one) {
  const unsure = isUnsure(one), best = one.labels[0];
  $("result").className = one.error ? "failed" : unsure ? "abstained" : "";
  $("verdict").textContent = one.error ? "Not usable" : !one.done ? "Looking …" : unsure ? "Not sure" : best.label;
  $("words").textContent = one.error ? `${one.error[0].toUpperCase()}${one.error.slice(1)}.` : !one.done ? ""
    : unsure ? `The best guess is ${best.label} at ${percent(best.probability)}, below ${percent(threshold())}.`
    : `${confidence(best.probability)}: ${percent(best.probability)}.`;
  $("bars").replaceChildren(...one.labels.map(({ label, probability }) => {
    const fill = element("span", { className: "fill" });
    fill.style.width = `${100 * probability}%`;
    return element("li", {}, fill, element("span", { className: "name", textContent: label }), element("span", { className: "value", textContent: percent(probability) }));
  }));
  $("caption").textContent = one.name;
  draw(one);
}
async function draw(one) {
  const canvas = $("image"), shown = new Image();
  shown.src = one.url;
  try { await shown.decode(); } catch { canvas.width = canvas.height = 1; return; }
  if (one !== current) return;
  const scale = Math.min(1, SIDE / Math.max(shown.naturalWidth, shown.naturalHeight));
  canvas.width = Math.max(1, Math.round(shown.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(shown.naturalHeight * scale));
  const context = canvas.getContext("2d");
  context.drawImage(shown, 0, 0, canvas.width, canvas.height);
  canvas.setAttribute("aria-label", `${one.name}${one.map && $("show-map").checked ? ", with the regions that speak for the label in orange" : ""}`);
  if (one.map && one.map.values.length > 1 && $("show-map").checked) overlay(context, canvas, one.map);
}
function overlay(context, canvas, map) {
  const rows = map.values.length, columns = map.values[0].length;
  const most = Math.max(1e-9, ...map.values.flat());
  const small = element("canvas", { width: columns, height: rows }), pixels = new ImageData(columns, rows);
  map.values.flat().forEach((value, i) => pixels.data.set([235, 110, 20, 170 * Math.max(0, value / most)], 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const [left, top, right, bottom] = map.box;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height);
}
const shownLabel = (one) => one.error ? `not usable: ${one.error}` : !one.done ? "…" : isUnsure(one) ? `not sure (${one.labels[0].label})` : one.labels[0].label;
function value(one, key) {
  return key === "label" ? shownLabel(one) : key === "probability" ? one.labels[0]?.probability ?? -1 : one[key];
}
function sorted() {
  const order = (a, b) => typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return [...results].sort((a, b) => (sort.up ? 1 : -1) * order(value(a, sort.key), value(b, sort.key)) || a.order - b.order);
}
function showRows() {
  for (const head of document.querySelectorAll("th[data-key]")) {
    if (head.dataset.key === sort.key) head.setAttribute("aria-sort", sort.up ? "ascending" : "descending");
    else head.removeAttribute("aria-sort");
  }
  $("rows").replaceChildren(...sorted().map((one) => {
    const open = element("button", { type: "button", textContent: one.name });
    open.addEventListener("click", () => { current = one; show(); $("verdict").focus(); });
    const row = element("tr", { className: one === current ? "current" : "" },
      element("td", { textContent: one.order }), element("td", {}, element("img", { src: one.url, alt: "", loading: "lazy" })),
      element("td", {}, open), element("td", { textContent: shownLabel(one) }),
      element("td", { className: "number", textContent: one.labels.length ? percent(one.labels[0].probability) : "" }));
    return row;
  }));
}
function csv() {
  const safe = (text) => `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  const lines = sorted().map((one) => [safe(one.name), safe(one.labels[0]?.label ?? ""), one.labels[0]?.probability ?? "", isUnsure(one), safe(one.error ?? "")].join(","));
  const url = URL.createObjectURL(new Blob([`name,label,probability,not_sure,error\r\n${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
  element("a", { href: url, download: "predictions.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// -- the model --------------------------------------------------------------------------------------------------------

function flat(document_, path = "") {
  if (document_ === null || typeof document_ !== "object") return [[path, String(document_)]];
  if (Array.isArray(document_)) return [[path, document_.map((one) => typeof one === "object" ? JSON.stringify(one) : one).join(", ")]];
  return Object.entries(document_).flatMap(([name, one]) => flat(one, path ? `${path} ${name}` : name));
}
function showModel() {
  const model = models.find((one) => one.name === $("model").value);
  const facts = flat({ name: model.name, "file (SHA-256)": model.hash, architecture: model.architecture, classes: model.classes.length, precision: model.precision, preprocessing: model.preprocessing, training: model.training, origin: model.origin });
  $("facts").replaceChildren(...facts.filter(([, text]) => text).flatMap(([name, text]) => [element("dt", { textContent: name.replaceAll("_", " ") }), element("dd", { textContent: text })]));
  $("classes").replaceChildren(...model.classes.map((name) => element("li", { textContent: name })));
}
async function sample(url) {
  const blob = await (await ask(url)).blob();
  add([new File([blob], `sample ${url.split("/").pop()}`, { type: blob.type })]);
}
async function start() {
  const said = await (await ask("v1/models")).json();
  models = said.models;
  $("model").replaceChildren(...models.map((one) => element("option", { textContent: one.name, value: one.name })));
  showModel();
  for (let number = 0; number < said.samples; number++) {
    const url = `v1/samples/${number}`;
    const image = URL.createObjectURL(await (await ask(url)).blob());
    const button = element("button", { type: "button", ariaLabel: `Sample ${number + 1}` }, element("img", { src: image, alt: "" }));
    button.addEventListener("click", () => sample(url));
    $("sample-list").append(button);
  }
  $("samples").hidden = said.samples === 0;
}

// -- events -----------------------------------------------------------------------------------------------------------

for (const name of ["dragenter", "dragover"]) addEventListener(name, (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("over"); add(event.dataTransfer.files); });
addEventListener("paste", (event) => { if (event.clipboardData.files.length) { event.preventDefault(); add(event.clipboardData.files); } });
$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => { add($("files").files); $("files").value = ""; });
$("threshold").addEventListener("input", () => { $("threshold-text").textContent = `${$("threshold").value} %`; show(); });
$("show-map").addEventListener("change", show);
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("csv").addEventListener("click", csv);
$("clear").addEventListener("click", () => { results.forEach((one) => URL.revokeObjectURL(one.url)); results.length = waiting.length = 0; current = null; show(); say(""); $("choose").focus(); });
$("model").addEventListener("change", showModel);
for (const head of document.querySelectorAll("th[data-key]")) {
  head.firstElementChild.addEventListener("click", () => { sort = { key: head.dataset.key, up: sort.key === head.dataset.key ? !sort.up : true }; showRows(); });
}
function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `Switch to ${name === "dark" ? "light" : "dark"} colours`);
}
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
$("camera").addEventListener("click", async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    return say("There is no camera that this page may use.", true);
  }
  $("video").srcObject = stream;
  $("shoot").showModal();
  $("video").play();
});
$("snap").addEventListener("click", () => {
  const canvas = element("canvas", { width: $("video").videoWidth, height: $("video").videoHeight });
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  canvas.toBlob((blob) => { if (blob) add([new File([blob], "photo.png", { type: "image/png" })]); });
  $("shoot").close();
});
$("stop").addEventListener("click", () => $("shoot").close());
$("shoot").addEventListener("close", () => { stream?.getTracks().forEach((track) => track.stop()); stream = null; });
start().catch(() => say("The server did not answer; reload the page to try again.", true));
