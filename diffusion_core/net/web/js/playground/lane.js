// One policy's answer: its stage, what the forward did, the map of all forwards, and the figures.

import { h, milliseconds, plural } from "../dom.js";
import { TrajectoryMap } from "./map.js";
import { Stage } from "./stage.js";
import { Trace } from "./trace.js";

const SOURCES = { "": "the drafter", lookup: "a look-up in the text", selection: "the selection", suggestion: "the last suggestion", outlook: "the prompt's own forward", answer: "the answer" };

export class Lane {
  constructor(policy, ask, onpick, isOneOfSeveral) {
    this.isOneOfSeveral = isOneOfSeveral;
    this.policy = policy;
    this.ask = ask;
    this.trace = new Trace();
    this.stage = new Stage(this.trace, ask, `Answer, ${policy}`);
    this.map = new TrajectoryMap(this.trace, (k) => onpick(this, k));
    this.state = h("span", { class: "hint" }, "waiting");
    this.title = h("h2", {}, policy);
    this.caption = h("p", { class: "caption" });
    this.figures = h("dl", { class: "figures" });
    this.element = h("section", { class: "lane panel", "aria-label": policy },
      h("div", { class: "lane-head" }, this.title, this.state), this.stage.element, this.caption, this.map.canvas, this.figures);
    this.k = 0;
    this.show(0);
  }

  add(line) {
    this.trace.add(line);
    if (line.t === "result") this.title.textContent = this.policy === line.policy ? line.policy : `${this.policy} → ${line.policy}`;
  }

  fail(error) {
    this.trace.error = error;
    this.say(error.name === "AbortError" ? "stopped" : error.message);
    this.stage.show(this.k);
  }

  say(text) {
    this.state.textContent = text;
    this.state.title = text;
  }

  show(k) {
    this.k = k;
    this.stage.show(k);
    this.map.show(k);
    this.#describe(k);
    this.#count(k);
  }

  #describe(k) {
    const frame = this.trace.frame(k);
    const numNew = frame.settled.length;
    if (!k) return this.caption.replaceChildren(this.trace.length ? "Before the first forward: nothing is known." : "");
    const parts = [`Forward ${k}: `, numNew ? `${plural(numNew, "token")} settled` : "nothing settled yet"];
    if (frame.num_accepted) parts.push(` (${frame.num_accepted} as drafted by ${SOURCES[frame.source] ?? frame.source})`);
    const numMasked = frame.slots.filter((slot) => slot.is_masked).length;
    if (numMasked) parts.push(`, ${numMasked} still masked`);
    if (frame.rejected.length) parts.push("; refused:", ...frame.rejected.slice(0, 12).map((token) => h("del", {}, token.text.replaceAll("\n", "⏎") || "·")));
    return this.caption.replaceChildren(...parts);
  }

  #count(k) {
    const { trace } = this;
    const isDone = trace.result && k === trace.length;
    const num = isDone ? trace.result.num_tokens : trace.counts[k];
    const forwards = isDone ? trace.result.num_forwards : k;
    const ms = isDone ? trace.result.timings.denoise_ms : trace.times[k];
    const figures = [
      ["tokens", num], ["forwards", forwards], ["tokens/forward", forwards ? (num / forwards).toFixed(2) : "–"],
      ["denoising", milliseconds(ms)], ["per token", num ? milliseconds(ms / num) : "–"],
      ["prompt", milliseconds(trace.result?.timings.prefill_ms ?? trace.prefillMs)],
    ];
    figures.push(["prompt reused", trace.result ? `${trace.result.num_reused_tokens} / ${trace.result.num_prompt_tokens}` : "–"]);
    if (this.isOneOfSeveral) figures.push(["speed-up", this.speedup ?? "–"]);
    this.figures.replaceChildren(...figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));
  }
}
