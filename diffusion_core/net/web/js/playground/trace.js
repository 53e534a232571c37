// An answer and how it came about: what was settled, drafted and masked after each forward.

/** Edges of the confidence scale: seven steps, the last from 99 % on. */
export const EDGES = [0.25, 0.5, 0.7, 0.85, 0.95, 0.99];
export const LABELS = ["below 25 %", "25–50 %", "50–70 %", "70–85 %", "85–95 %", "95–99 %", "99 % or more"];

export function bin(p) {
  if (p === null || p === undefined) return "";
  let at = 0;
  while (at < EDGES.length && p >= EDGES[at]) at += 1;
  return String(at);
}

const NONE = { slots: [], rejected: [], settled: [], num_accepted: 0, source: "", expected: "" };

export class Trace {
  constructor() {
    this.frames = [];
    this.tokens = []; // settled, in order; `at` is the forward that settled them
    this.counts = [0]; // settled tokens after each forward
    this.times = [0]; // ms since the prompt was ready, after each forward
    this.prefillMs = 0;
    this.result = null;
    this.error = null;
  }

  get length() { return this.frames.length; }
  get duration() { return this.times[this.times.length - 1]; }
  get isOver() { return Boolean(this.result || this.error); }

  /** Take a line of /v1/watch. */
  add(line) {
    if (line.t === "result") {
      this.result = line;
      this.#cut(line.text);
    } else if (line.num_prefilled) {
      this.prefillMs = line.ms;
    } else {
      const frame = { ...NONE, ...line };
      this.frames.push(frame);
      frame.settled.forEach((token, at) => this.tokens.push({ ...token, at: this.length, wasDrafted: at < frame.num_accepted }));
      this.counts.push(this.tokens.length);
      this.times.push(line.ms - this.prefillMs);
    }
  }

  /** The forward `k` (1-based; 0 is the beginning). */
  frame(k) { return this.frames[k - 1] ?? NONE; }

  /** How many forwards had ended `ms` after the prompt was ready. */
  at(ms) {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.times[middle] <= ms) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The text after forward `k`, and how much of it is settled. */
  textAt(k) {
    const settled = this.tokens.slice(0, this.counts[k]).map((token) => token.text).join("");
    return { settled, rest: this.frame(k).expected };
  }

  /** An answer ends by a rule: what the model wrote behind that is no part of it. */
  #cut(text) {
    let left = text.length;
    for (const token of this.tokens) {
      token.kept = Math.max(0, Math.min(token.text.length, left));
      left -= token.text.length;
    }
  }
}
