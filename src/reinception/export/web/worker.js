// Runs the model: WebGPU where it is present and answers rightly, else WebAssembly. One image at a time.
const ENGINES = {
  webgpu: { script: "ort/ort.webgpu.min.mjs", name: "ort-wasm-simd-threaded.asyncify", words: "WebGPU" },
  wasm: { script: "ort/ort.wasm.min.mjs", name: "ort-wasm-simd-threaded", words: "WebAssembly" },
};
const TOLERANCE = 1e-2, MAGIC = [0x00, 0x61, 0x73, 0x6d];
const at = (path) => new URL(path, self.location.href).href;
const waiting = [];
let session = null, ort = null, isBusy = false, hasFailed = false;

async function fetched(path) {
  const answer = await fetch(at(path));
  if (!answer.ok) throw new Error(`${path} is missing on this server (${answer.status}): copy the whole folder to it.`);
  return answer;
}
async function open(engine, model) {
  const { script, name } = ENGINES[engine];
  const binary = await (await fetched(`ort/${name}.wasm`)).arrayBuffer();
  if (MAGIC.some((byte, index) => new Uint8Array(binary, 0, 4)[index] !== byte))
    throw new Error(`ort/${name}.wasm is not WebAssembly: this server answers with another file, as for an unknown address.`);
  ort = await import(at(script));
  ort.env.wasm.numThreads = 1;  // more need headers that a plain file server does not send
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.wasmPaths = { mjs: at(`ort/${name}.mjs`), wasm: at(`ort/${name}.wasm`) };
  ort.env.logLevel = "error";
  return ort.InferenceSession.create(model, { executionProviders: [engine], logSeverityLevel: 3 });
}
async function run({ width, height, data }) {
  const pixels = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < pixels.length; from += 4) {
    pixels[to++] = data[from]; pixels[to++] = data[from + 1]; pixels[to++] = data[from + 2];
  }
  const found = await session.run({ images: new ort.Tensor("uint8", pixels, [1, height, width, 3]) });
  const [, rows, columns] = found.map.dims;
  return { probabilities: new Float32Array(found.probabilities.data), map: new Float32Array(found.map.data), side: { rows, columns } };
}
// A device that computes wrongly is found by one image whose probabilities are known.
async function error(check) {
  const bytes = new Uint8Array(await (await fetched("check.rgba")).arrayBuffer());
  const { probabilities } = await run({ ...check, data: bytes });
  return Math.max(...check.probabilities.map((value, index) => { const off = Math.abs(value - probabilities[index]); return off <= 1 ? off : 1; }));
}
async function start() {
  const about = await (await fetched("model.json")).json();
  const labels = (await (await fetched("labels.txt")).text()).split("\n");
  const model = new Uint8Array(await (await fetched("model.onnx")).arrayBuffer());
  let note = "", engine = null;
  const adapter = await self.navigator.gpu?.requestAdapter().catch(() => null);
  for (const one of adapter ? ["webgpu", "wasm"] : ["wasm"]) {
    try {
      session = await open(one, model);
      const off = await error(about.check);
      if (off > TOLERANCE) throw new Error(`the answer to a known image is off by ${off.toFixed(3)}`);
      engine = one;
      break;
    } catch (problem) {
      if (one === "wasm") throw problem;
      note = `; WebGPU is not used: ${problem.message}`;
    }
  }
  self.postMessage({ kind: "ready", labels, about, engine, note: `${about.precision}, ${ENGINES[engine].words}${note}` });
}
async function next() {
  if (isBusy || !session || !waiting.length) return;
  isBusy = true;
  const asked = waiting.shift();
  try {
    self.postMessage({ kind: "answer", id: asked.id, ...await run(asked) });
  } catch (problem) {
    self.postMessage({ kind: "answer", id: asked.id, message: `the model could not be run: ${problem.message}` });
  }
  isBusy = false;
  next();
}
self.onmessage = ({ data }) => {
  if (hasFailed) return self.postMessage({ kind: "answer", id: data.id, message: "the model is not loaded" });
  waiting.push(data);
  if (isReady) next();
};
let isReady = false;
start().then(() => { isReady = true; next(); }, (problem) => {
  hasFailed = true;
  self.postMessage({ kind: "failed", message: `The model cannot be used: ${problem.message}` });
});
