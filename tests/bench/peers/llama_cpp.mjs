// llama.cpp behind standard input and output: one JSON object a line, token ids in and out.
//
//   node llama_cpp.mjs MODEL.gguf THREADS CONTEXT lookup|plain
//
// -> {"tokens": [...], "maxTokens": N}    an answer is wanted: greedy, from an empty cache
// <- {"prefillMs": X}                     the prompt but for its last token is in the cache
// <- {"token": T, "ms": X}                each token, X after the prompt was computed
// -> {"stop": true}                       enough: the caller's stop rule holds
// <- {"done": true}                       nothing more comes for this prompt
import { createInterface } from "node:readline";
import { performance } from "node:perf_hooks";
import { InputLookupTokenPredictor, getLlama } from "node-llama-cpp";

const [modelPath, threads, contextSize, mode] = process.argv.slice(2);
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");

const llama = await getLlama({ gpu: false, build: "never", skipDownload: true, maxThreads: Number(threads), logLevel: "error" });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const context = await model.createContext({ contextSize: Number(contextSize), threads: Number(threads), batchSize: 512 });
// As long a look ahead as the other lookup peer's (prompt_lookup_num_tokens=10).
const predictor = mode === "lookup"
  ? new InputLookupTokenPredictor({ patternLength: { min: 2 }, predictionLength: { min: 1, max: 10 } })
  : undefined;
const sequence = context.getSequence(predictor ? { tokenPredictor: predictor } : {});

let stopped = false;
let working = Promise.resolve();

async function answer({ tokens, maxTokens }) {
  stopped = false;
  await sequence.clearHistory();
  predictor?.updateInputTokens(tokens);
  const started = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, -1));
  const begin = performance.now();
  say({ prefillMs: begin - started });
  let count = 0;
  for await (const token of sequence.evaluate(tokens.slice(-1), { temperature: 0, yieldEogToken: true })) {
    say({ token, ms: performance.now() - begin });
    count += 1;
    // A turn of the event loop, in which a stop can arrive.
    await new Promise((resolve) => setImmediate(resolve));
    if (stopped || count >= maxTokens) break;
  }
  say({ done: true });
}

say({ ready: true, version: llama.llamaCppRelease.release, threads: context.currentThreads });
createInterface({ input: process.stdin }).on("line", (line) => {
  const message = JSON.parse(line);
  if (message.stop) stopped = true;
  else working = working.then(() => answer(message)).catch((error) => {
    say({ error: String(error) });
    process.exitCode = 1;
    process.exit();
  });
}).on("close", () => process.exit());
