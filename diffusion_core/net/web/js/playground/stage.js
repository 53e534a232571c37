// The code with its hole, as it was after a forward. Going on appends, going back takes away: nothing is drawn anew.

import { h } from "../dom.js";
import { diffLines } from "./diff.js";
import { bin } from "./trace.js";

const NUM_BEFORE = 14;
const NUM_AFTER = 8;
const percent = (p) => (p === null || p === undefined ? "no figure" : `${(p * 100).toFixed(p >= 0.9995 || p < 0.1 ? 1 : 0)} %`);

/** A token as it is shown: a line break has a sign of its own where the token is a box. */
export function tokenSpan(token, state, title = "") {
  const text = state === "settled" ? token.text : token.text.replaceAll("\n", "⏎") || "·";
  const span = h("span", { class: `tok ${state}`, data: { c: bin(token.p) }, title: `${title || state}, ${percent(token.p)}` });
  if (token.is_end) return h("span", { class: "end", title: `the end of the answer, ${percent(token.p)}` }, state === "settled" ? "end" : "end?");
  span.append(text);
  return span;
}

export class Stage {
  /** `ask` is what was asked: `{kind, before, after, selection}`. */
  constructor(trace, ask, label) {
    this.trace = trace;
    this.ask = ask;
    this.spans = [];
    this.k = -1;
    this.seen = 0;
    this.answer = h("span");
    this.behind = h("span");
    const before = ask.before.split("\n").slice(-NUM_BEFORE).join("\n");
    const after = ask.after.split("\n").slice(0, NUM_AFTER).join("\n");
    this.code = h("code");
    if (ask.kind === "complete") this.code.append(h("span", { class: "ctx" }, before), this.answer, this.behind, h("span", { class: "ctx" }, after));
    this.element = h("div", { class: "stage", tabIndex: 0, role: "region", "aria-label": label }, h("pre", {}, this.code));
  }

  /** Show the state after forward `k`. */
  show(k) {
    const isNews = this.trace.isOver && !this.wasOver;
    if (k === this.k && !isNews) return;
    this.wasOver = this.trace.isOver;
    if (this.ask.kind === "edit") this.#showDiff(k);
    else this.#showTokens(k, isNews);
    this.k = k;
  }

  #showTokens(k, isNews) {
    const count = this.trace.counts[k] ?? 0;
    const from = this.trace.counts[Math.max(0, k - 1)];
    if (isNews) this.#cut();
    while (this.spans.length < count) this.spans.push(this.#settledSpan(this.trace.tokens[this.spans.length]));
    while (this.seen < count) this.answer.append(this.spans[this.seen++]);
    while (this.seen > count) this.spans[--this.seen].remove();
    for (const span of this.fresh ?? []) span.classList.remove("new");
    this.fresh = k === this.trace.length && this.trace.isOver ? [] : this.spans.slice(from, count);
    for (const span of this.fresh) span.classList.add("new");
    const isDone = k === this.trace.length && this.trace.isOver;
    const slots = isDone ? [] : this.trace.frame(k).slots.map((slot) => tokenSpan(slot, slot.is_masked ? "masked" : "draft", slot.is_masked ? "masked; the model leans to this" : "drafted, may change"));
    this.behind.replaceChildren(...(isDone || slots.length ? slots : [h("span", { class: "hole" })]));
    if (!this.trace.isOver || !isNews) this.#keepInView();
  }

  #settledSpan(token) {
    const title = `forward ${token.at}${token.wasDrafted ? ", drafted before" : ""}`;
    if (token.kept === undefined || token.kept === token.text.length || token.is_end) return tokenSpan(token, "settled", title);
    const rest = tokenSpan({ ...token, text: token.text.slice(token.kept) }, "settled", "behind the end of the answer");
    rest.classList.add("cut");
    if (!token.kept) return rest;
    return h("span", {}, tokenSpan({ ...token, text: token.text.slice(0, token.kept) }, "settled", title), rest);
  }

  /** The answer is complete: what stands behind its end is struck out. */
  #cut() {
    this.trace.tokens.forEach((token, at) => {
      if (token.kept === token.text.length || !this.spans[at]) return;
      const span = this.#settledSpan(token);
      this.spans[at].replaceWith(span);
      this.spans[at] = span;
    });
  }

  #showDiff(k) {
    const { settled, rest } = this.trace.textAt(k);
    const isDone = k === this.trace.length && Boolean(this.trace.result);
    const fresh = isDone ? this.trace.result.text : k ? settled + rest : this.ask.selection;
    const known = isDone ? fresh.split("\n") : settled.split("\n");
    const pieces = this.#piecesByLine(k);
    const lines = diffLines(this.ask.selection.replace(/\n$/, ""), fresh.replace(/\n$/, "")).map(({ kind, text, line }) => {
      const said = { gone: "removed: ", added: "added: " }[kind];
      const element = h("span", { class: `diff-line ${kind}` }, said ? h("span", { class: "sr" }, said) : null);
      if (kind === "gone") element.append(text || "\u200b");
      else {
        // The line that is being written is settled up to where the model is; behind that it is what is expected.
        const open = text.slice((known[line] ?? "").length);
        element.append(...(pieces[line] ?? []), open ? h("span", { class: "unsure" }, open) : text ? "" : "\u200b");
      }
      return element;
    });
    const context = (text, take) => h("span", { class: "ctx" }, ...text.split("\n").slice(...take).map((line) => h("span", { class: "diff-line" }, line || "\u200b")));
    this.code.replaceChildren(
      context(this.ask.before.replace(/\n$/, ""), [-4]), ...lines, context(this.ask.after.replace(/^\n/, ""), [0, 4]));
  }

  /** Spans of the settled tokens, cut at line breaks. */
  #piecesByLine(k) {
    const lines = [[]];
    const count = this.trace.counts[k];
    const from = this.trace.counts[Math.max(0, k - 1)];
    this.trace.tokens.slice(0, count).forEach((token, at) => {
      const shown = token.kept === undefined ? token.text : token.text.slice(0, token.kept);
      shown.split("\n").forEach((part, number) => {
        if (number) lines.push([]);
        if (!part) return;
        const span = tokenSpan({ ...token, text: part, is_end: false }, "settled", `forward ${token.at}`);
        if (at >= from && !(this.trace.isOver && k === this.trace.length)) span.classList.add("new");
        lines[lines.length - 1].push(span);
      });
    });
    return lines;
  }

  #keepInView() {
    const place = this.behind.offsetTop + this.behind.offsetHeight - this.element.clientHeight + 60;
    if (place > this.element.scrollTop) this.element.scrollTop = place;
  }
}
