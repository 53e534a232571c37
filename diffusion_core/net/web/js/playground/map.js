// The whole trajectory in one picture: a row for each forward, a column for each token of the answer.

import { h } from "../dom.js";
import { colour, onTheme } from "../theme.js";
import { bin } from "./trace.js";

export class TrajectoryMap {
  /** `onpick` is told the forward that was pointed at. */
  constructor(trace, onpick) {
    this.trace = trace;
    this.k = 0;
    this.canvas = h("canvas", { class: "map", role: "img", onpointerdown: (event) => this.#pick(event, onpick), onpointermove: (event) => event.buttons && this.#pick(event, onpick) });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    onTheme(() => this.draw());
  }

  show(k) {
    this.k = k;
    this.draw();
  }

  #pick(event, onpick) {
    if (!this.trace.length) return;
    onpick(Math.max(0, Math.min(this.trace.length, Math.round(event.offsetY / this.rowHeight + 0.5))));
  }

  draw() {
    cancelAnimationFrame(this.waiting);
    this.waiting = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    const { trace, canvas } = this;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width) return;
    const ratio = devicePixelRatio;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const scale = Array.from({ length: 7 }, (_, at) => colour(`c${at}`));
    const [mask, faint, line, accent, gone] = ["mask", "sunk", "line", "accent", "gone"].map(colour);
    const fill = (p) => scale[bin(p)] ?? line;
    const numColumns = Math.max(24, trace.tokens.length + Math.max(0, ...trace.frames.map((frame, at) => trace.counts[at + 1] + Math.max(frame.slots.length, frame.rejected.length) - trace.tokens.length)));
    const cell = width / numColumns;
    const row = (this.rowHeight = Math.min(14, height / Math.max(1, trace.length)));
    const gap = cell > 4 ? 1 : 0;
    trace.frames.forEach((frame, at) => {
      const y = at * row;
      const [first, end] = [trace.counts[at], trace.counts[at + 1]];
      const tall = Math.max(1, row - (row > 4 ? 1 : 0));
      pen.globalAlpha = 1;
      pen.fillStyle = faint;
      pen.fillRect(0, y, first * cell, tall);
      for (let token = first; token < end; token += 1) {
        pen.fillStyle = fill(trace.tokens[token].p);
        pen.fillRect(token * cell, y, Math.max(1, cell - gap), tall);
      }
      pen.strokeStyle = gone;
      pen.lineWidth = 1;
      pen.globalAlpha = 0.8;
      if (cell > 5 && tall > 4) frame.rejected.forEach((_, number) => pen.strokeRect((end + number) * cell + 1.5, y + 1.5, cell - gap - 3, tall - 3));
      frame.slots.forEach((slot, number) => {
        pen.globalAlpha = slot.is_masked ? 0.85 : 0.4;
        pen.fillStyle = slot.is_masked ? mask : fill(slot.p);
        const inset = slot.is_masked ? 0 : Math.min(2, tall / 4);
        pen.fillRect((end + number) * cell, y + inset, Math.max(1, cell - gap), tall - 2 * inset);
      });
    });
    pen.globalAlpha = 1;
    if (this.k && trace.length) {
      pen.strokeStyle = accent;
      pen.lineWidth = 1.5;
      pen.strokeRect(0.75, (this.k - 1) * row + 0.25, width - 1.5, Math.max(2, row - 0.5));
    }
    canvas.setAttribute("aria-label", `Trajectory: ${trace.tokens.length} tokens in ${trace.length} forwards`);
  }
}
