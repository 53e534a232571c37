// A text area with line numbers that shows its hole or selection also when it has no focus.

import { h } from "../dom.js";

export class Editor {
  constructor(onchange) {
    this.onchange = onchange;
    this.area = h("textarea", {
      "aria-label": "Code", spellcheck: false, autocomplete: "off", autocapitalize: "off", wrap: "off",
      oninput: () => this.#changed(), onscroll: () => this.#follow(),
      onselect: () => this.#changed(), onkeyup: () => this.#changed(), onpointerup: () => this.#changed(),
    });
    this.gutter = h("pre", { class: "gutter mono", "aria-hidden": "true" });
    this.back = h("pre", { class: "mono", "aria-hidden": "true" });
    this.element = h("div", { class: "editor" }, this.gutter, h("div", { class: "surface" }, this.back, this.area));
    this.numLines = 0;
    this.seen = "";
  }

  get text() { return this.area.value; }
  get selection() { return { start: this.area.selectionStart, end: this.area.selectionEnd }; }

  set({ text, start = 0, end = start }) {
    this.area.value = text;
    this.area.setSelectionRange(start, end);
    this.#changed();
  }

  /** Replace a range as if it had been typed, so that undo takes it back. */
  replace(start, end, text) {
    this.area.focus();
    this.area.setSelectionRange(start, end);
    if (!document.execCommand("insertText", false, text)) this.area.setRangeText(text, start, end, "end");
    this.#changed();
  }

  #changed() {
    const { start, end } = this.selection;
    const state = `${start},${end},${this.text}`;
    if (state === this.seen) return;
    this.seen = state;
    const numLines = this.text.split("\n").length;
    if (numLines !== this.numLines) {
      this.numLines = numLines;
      this.gutter.textContent = Array.from({ length: numLines }, (_, at) => at + 1).join("\n");
    }
    const hole = h("mark", { class: start === end ? "caret" : "" }, this.text.slice(start, end));
    this.back.replaceChildren(this.text.slice(0, start), hole, `${this.text.slice(end)}\n`);
    this.#follow();
    this.onchange();
  }

  #follow() {
    this.gutter.scrollTop = this.back.scrollTop = this.area.scrollTop;
    this.back.scrollLeft = this.area.scrollLeft;
  }
}
