// Back and forth through the forwards of one answer, or through the time of several.

import { h, milliseconds } from "../dom.js";

export class Timeline {
  constructor(lanes) {
    this.lanes = lanes;
    this.isSeveral = lanes.length > 1;
    this.isLive = true; // follow the end while forwards come in
    this.speed = 1;
    this.clock = 0;
    this.range = h("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": this.isSeveral ? "Time" : "Forward", oninput: () => { this.stop(); this.#seek(Number(this.range.value)); } });
    this.output = h("output", {});
    this.playButton = h("button", { class: "primary", onclick: () => this.toggle(), "aria-label": "Play" }, "▶");
    const speed = h("select", { "aria-label": "Speed", onchange: () => { this.speed = Number(speed.value); } },
      [[1, "real time"], [0.5, "½ speed"], [0.25, "¼ speed"], [0.1, "1⁄10 speed"], [4, "4 × speed"]].map(([value, text]) => h("option", { value }, text)));
    this.element = h("div", { class: "timeline panel", role: "group", "aria-label": "Trajectory" },
      this.playButton,
      h("button", { onclick: () => this.step(-1), "aria-label": "One forward back" }, "‹"),
      h("button", { onclick: () => this.step(1), "aria-label": "One forward on" }, "›"),
      this.range, this.output, speed);
  }

  get end() { return this.isSeveral ? Math.ceil(Math.max(...this.lanes.map((lane) => lane.trace.duration))) : this.lanes[0].trace.length; }

  /** Forwards came in. */
  grow() {
    this.range.max = String(this.end);
    if (this.isLive) this.#show(this.end);
    else this.#show(Number(this.range.value));
  }

  step(by) {
    this.stop();
    if (!this.isSeveral) return this.#seek(Math.max(0, Math.min(this.end, this.value + by)));
    const moments = this.lanes.flatMap((lane) => lane.trace.times).sort((a, b) => a - b);
    const next = by > 0 ? moments.find((ms) => ms > this.value + 1) : moments.findLast((ms) => ms < this.value - 1);
    return this.#seek(Math.ceil(next ?? (by > 0 ? this.end : 0)));
  }

  get value() { return Number(this.range.value); }

  seekForward(lane, k) {
    this.stop();
    this.#seek(this.isSeveral ? Math.ceil(lane.trace.times[k]) : k);
  }

  toggle() {
    if (this.frame) return this.stop();
    const { trace } = this.lanes[0];
    const isAtEnd = this.value >= this.end;
    this.clock = this.isSeveral ? (isAtEnd ? 0 : this.value) : trace.times[isAtEnd ? 0 : this.value];
    this.isLive = false;
    this.playButton.textContent = "⏸";
    this.playButton.setAttribute("aria-label", "Pause");
    let last = performance.now();
    const tick = (now) => {
      this.clock += (now - last) * this.speed;
      last = now;
      const value = this.isSeveral ? Math.min(this.clock, this.end) : trace.at(this.clock);
      this.#seek(value, false);
      if (value >= this.end) return this.stop();
      this.frame = requestAnimationFrame(tick);
      return undefined;
    };
    this.frame = requestAnimationFrame(tick);
    return undefined;
  }

  stop() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.playButton.textContent = "▶";
    this.playButton.setAttribute("aria-label", "Play");
  }

  #seek(value, byHand = true) {
    if (byHand) this.isLive = value >= this.end;
    this.#show(value);
  }

  #show(value) {
    this.range.value = String(value);
    for (const lane of this.lanes) {
      const k = this.isSeveral ? lane.trace.at(value + 0.5) : value;
      if (k !== lane.k || lane.trace.length !== lane.shown || lane.trace.isOver !== lane.shownOver) lane.show(k);
      lane.shown = lane.trace.length;
      lane.shownOver = lane.trace.isOver;
    }
    const text = this.isSeveral ? `${milliseconds(value)} of ${milliseconds(this.end)}` : `forward ${value} of ${this.end} · ${milliseconds(this.lanes[0].trace.times[value])}`;
    this.output.textContent = text;
    this.range.setAttribute("aria-valuetext", text);
  }
}
