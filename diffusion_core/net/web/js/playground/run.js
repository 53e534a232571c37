// One request under one or several policies, with a timeline over all of them.

import { h, milliseconds } from "../dom.js";
import { lines } from "../api.js";
import { Lane } from "./lane.js";
import { Timeline } from "./timeline.js";

export class Run {
  constructor(policies, ask, options, isTogether) {
    Object.assign(this, { policies, ask, options, isTogether });
    this.lanes = policies.map((policy) => new Lane(policy, ask, (lane, k) => this.timeline.seekForward(lane, k), policies.length > 1));
    this.timeline = new Timeline(this.lanes);
    this.aborter = new AbortController();
    const several = policies.length > 1;
    const how = isTogether ? "Asked at the same time: they share the machine, so each took longer than it would alone." : "Asked one after another, so that each had the machine to itself; replayed side by side.";
    this.note = h("p", { class: "hint" }, several ? how : "");
    this.elements = [this.timeline.element, h("div", { class: several ? "lanes several" : "lanes" }, this.lanes.map((lane) => lane.element))];
  }

  /** The answer to insert: that of the lossless policies first. */
  get best() {
    const done = this.lanes.filter((lane) => lane.trace.result);
    return (done.find((lane) => lane.policy !== "confidence") ?? done[0])?.trace.result ?? null;
  }

  abort() { this.aborter.abort(); }

  /** Ask all; the errors that came. */
  async start() {
    const errors = [];
    const ask = async (lane) => {
      try {
        await this.#follow(lane);
      } catch (error) {
        lane.fail(error);
        errors.push(error);
      }
      this.timeline.grow();
    };
    if (this.isTogether) await Promise.all(this.lanes.map(ask));
    else for (const lane of this.lanes) if (!this.aborter.signal.aborted) await ask(lane);
    this.#compare();
    return errors;
  }

  async #follow(lane) {
    lane.say("reading the prompt");
    for await (const line of lines(`/v1/watch/${this.ask.kind}`, this.options.request(this.ask, lane.policy), this.aborter.signal)) {
      lane.add(line);
      if (line.t === "result") lane.say(describe(line));
      else if (!line.num_prefilled) lane.say("denoising");
      this.#draw();
    }
  }

  /** Draw once a frame, however many forwards came in. */
  #draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.timeline.grow();
    });
  }

  #compare() {
    const reference = this.lanes.find((lane) => lane.policy === "autoregressive")?.trace.result;
    if (!reference || this.lanes.length < 2) return;
    for (const lane of this.lanes) {
      const { result } = lane.trace;
      if (!result || result === reference) continue;
      if (!this.isTogether) lane.speedup = `${(reference.timings.denoise_ms / result.timings.denoise_ms).toFixed(2)} ×`;
      const same = result.text === reference.text ? "the same text" : "another text";
      lane.say(describe(result, `${same}; `));
      lane.show(lane.k);
    }
  }
}

const ENDS = { stop: "the model ended it", line: "its line is complete", scope: "its scope ended", suffix: "what follows began again", repetition: "it repeated itself", length: "the most tokens were reached", deadline: "the time was up" };

function describe(result, remark = "") {
  const notice = result.notice ? ` · ${result.notice}` : "";
  return `${milliseconds(result.timings.total_ms)}; ${remark}${ENDS[result.finish_reason] ?? result.finish_reason}${notice}`;
}
