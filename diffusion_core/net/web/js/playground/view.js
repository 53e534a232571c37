// The playground: ask, watch, go back and forth, compare.

import { choice, copy, field, h, notice } from "../dom.js";
import { bind } from "../keys.js";
import * as draft from "./draft.js";
import { Editor } from "./editor.js";
import { legend, primer } from "./legend.js";
import { Options } from "./options.js";
import { Run } from "./run.js";
import { SAMPLES, unmark } from "./samples.js";

export const POLICIES = [
  { value: "auto", text: "best", title: "the best policy that this checkpoint supports" },
  { value: "autoregressive", text: "autoregressive", title: "one token a forward: the reference" },
  { value: "verified", text: "verified", title: "drafts many tokens, keeps those the reference would have chosen: the same text, fewer forwards" },
  { value: "confidence", text: "confidence", title: "commits every slot that the model is sure of: fewest forwards, another text perhaps" },
];

export function openPlayground(view, app) {
  return new Playground(view, app);
}

class Playground {
  constructor(view, app) {
    this.app = app;
    const kept = draft.load() ?? { ...unmark(SAMPLES[0].text), mode: "complete", instruction: "", language: "python", policy: "auto" };
    this.mode = kept.mode;
    this.policy = kept.policy ?? "auto";
    this.editor = new Editor(() => this.#keep());
    this.options = new Options(kept, app.session, () => this.#keep());
    this.instruction = h("input", { type: "text", placeholder: "what to change in the selected lines", maxLength: 10_000, value: kept.instruction ?? "", oninput: () => this.#keep() });
    this.problems = h("div", { "aria-live": "assertive" });
    this.results = h("div", { class: "play" });
    this.#build(view);
    this.editor.set(kept);
    this.#update();
    this.unbind = [
      bind("Enter", "run", () => this.run(), { mod: true }),
      bind("Enter", "compare the three policies", () => this.compare(), { mod: true, shift: true }),
      bind("Escape", "stop what runs", () => this.stop()),
      bind("p", "play the trajectory, or pause", () => this.current?.timeline.toggle()),
      bind(".", "one forward on", () => this.current?.timeline.step(1)),
      bind(",", "one forward back", () => this.current?.timeline.step(-1)),
      bind("i", "insert the answer into the code", () => this.insert()),
    ];
    this.onhide = () => this.#save();
    addEventListener("pagehide", this.onhide);
  }

  #build(view) {
    const samples = h("select", { "aria-label": "Examples", onchange: () => this.#take(SAMPLES[samples.value]) },
      h("option", { value: "" }, "Examples…"), SAMPLES.map((sample, at) => h("option", { value: at }, sample.name)));
    this.samples = samples;
    const mayEdit = this.app.session.scopes.includes("edit");
    this.modes = choice("mode", "Task", [
      { value: "complete", text: "Complete" },
      { value: "edit", text: "Edit", disabled: !mayEdit, title: mayEdit ? null : "this token does not allow edits" },
    ], this.mode, (mode) => { this.mode = mode; this.#update(); this.#keep(); });
    this.policies = choice("policy", "Policy", POLICIES, this.policy, (policy) => { this.policy = policy; this.#keep(); });
    this.runButton = h("button", { class: "primary run", onclick: () => this.run(), "aria-keyshortcuts": "Control+Enter" }, "Run", h("kbd", {}, "Ctrl ⏎"));
    this.compareButton = h("button", { onclick: () => this.compare() }, "Compare policies");
    this.stopButton = h("button", { class: "danger run", onclick: () => this.stop(), hidden: true }, "Stop", h("kbd", {}, "Esc"));
    this.together = h("input", { type: "checkbox" });
    this.hint = h("p", { class: "hint" });
    this.instructionField = field("Instruction", this.instruction);
    this.desk = h("div", { class: "desk" },
      h("section", { class: "ask panel", "aria-label": "What to ask" },
        h("div", { class: "row" }, this.modes, h("span", { class: "grow" }), samples),
        this.editor.element, this.hint, this.instructionField,
        h("div", { class: "row" }, this.policies),
        h("div", { class: "row" }, this.runButton, this.stopButton, this.compareButton,
          h("label", { class: "check", title: "Together they share the machine, so each takes longer than alone" }, this.together, "at the same time")),
        this.options.element),
      this.results);
    view.replaceChildren(h("div", { class: "play" },
      h("div", { class: "play-head" }, h("h1", {}, "Blocks of code, denoised step by step"), legend()), this.problems, this.desk));
    this.results.replaceChildren(primer());
  }

  #update() {
    this.modes.querySelector(`[value=${this.mode}]`).checked = true;
    this.instructionField.hidden = this.mode !== "edit";
    this.hint.textContent = this.mode === "edit" ? "The selected lines are rewritten; with nothing selected, the line of the cursor."
      : "The model fills in at the cursor; what is selected is replaced.";
  }

  #take(sample) {
    if (!sample) return;
    this.samples.value = "";
    this.mode = sample.mode;
    this.options.language = sample.language;
    if (sample.instruction) this.instruction.value = sample.instruction;
    const { text, start, end } = unmark(sample.text);
    this.editor.replace(0, this.editor.text.length, text); // undo brings back what was there
    this.editor.area.setSelectionRange(start, end);
    this.#update();
    this.editor.set({ text: this.editor.text, start, end });
  }

  #keep() {
    clearTimeout(this.keeping);
    this.keeping = setTimeout(() => this.#save(), 200);
  }

  #save() {
    draft.save({ text: this.editor.text, ...this.editor.selection, mode: this.mode, policy: this.policy, instruction: this.instruction.value, ...this.options.values() });
  }

  /** What is asked, by the mode and the selection. */
  ask() {
    const { text } = this.editor;
    let { start, end } = this.editor.selection;
    if (this.mode === "edit") {
      start = text.lastIndexOf("\n", start - 1) + 1;
      const last = end > start && text[end - 1] === "\n" ? end - 1 : end;
      const next = text.indexOf("\n", last);
      end = next < 0 ? text.length : next + 1;
    }
    return { kind: this.mode, before: text.slice(0, start), selection: text.slice(start, end), after: text.slice(end), start, end, instruction: this.instruction.value };
  }

  run() { this.#begin([this.policy], false); }

  compare() { this.#begin(POLICIES.slice(1).map((policy) => policy.value), this.together.checked); }

  stop() { this.current?.abort(); }

  async #begin(policies, isTogether) {
    this.stop();
    this.current?.timeline.stop();
    const ask = this.ask();
    this.problems.replaceChildren();
    if (ask.kind === "edit" && !ask.instruction.trim()) {
      this.problems.replaceChildren(notice("The instruction is empty: say what to change.", { bad: true }));
      return this.instruction.focus();
    }
    this.#save();
    const run = (this.current = new Run(policies, ask, this.options, isTogether));
    this.desk.classList.toggle("wide", policies.length > 1);
    this.results.replaceChildren(...run.elements, this.#afterwards(run, ask));
    this.#busy(true);
    const errors = await run.start();
    if (this.current !== run) return undefined;
    this.#busy(false);
    this.insertButton.disabled = this.copyButton.disabled = !run.best;
    return errors.length ? this.#explain(errors[0]) : undefined;
  }

  #afterwards(run, ask) {
    this.insertButton = h("button", { disabled: true, onclick: () => this.insert() }, "Insert into the code", h("kbd", {}, "i"));
    this.copyButton = h("button", { disabled: true, onclick: async () => { this.copyButton.textContent = (await copy(run.best.text)) ? "Copied" : "Needs TLS"; } }, "Copy");
    this.asked = ask;
    const peek = h("input", { type: "checkbox", onchange: () => this.results.classList.toggle("peek", peek.checked) });
    peek.checked = this.results.classList.contains("peek");
    return h("div", { class: "row" }, this.insertButton, this.copyButton, h("label", { class: "check" }, peek, "peek under the masks"), run.note);
  }

  insert() {
    const text = this.current?.best?.text;
    const { start, end } = this.asked ?? {};
    if (text === undefined) return;
    const before = this.asked.before + this.asked.selection + this.asked.after;
    if (this.editor.text !== before) {
      this.problems.replaceChildren(notice("The code was changed since this was asked: run it again, or copy the answer.", { bad: true }));
      return;
    }
    this.editor.replace(start, end, text);
  }

  #busy(isBusy) {
    const [shown, other] = isBusy ? [this.stopButton, this.runButton] : [this.runButton, this.stopButton];
    const hadFocus = document.activeElement === other;
    shown.hidden = false;
    other.hidden = true;
    if (hadFocus) shown.focus();
    this.results.setAttribute("aria-busy", String(isBusy));
  }

  #explain(error) {
    if (error.name === "AbortError") return undefined;
    if (error.code === "unauthorized") return this.app.signOut("The token does not work any more. Your text is kept: enter another.");
    const again = h("button", { onclick: () => this.current.policies.length > 1 ? this.compare() : this.run() }, "Try again");
    if (error.code === "offline") {
      this.app.offline();
      return this.problems.replaceChildren(notice(`${error.message} Your text is kept.`, { bad: true, action: again }));
    }
    if (error.retryAfter) {
      again.disabled = true;
      this.#countDown(again, Math.ceil(error.retryAfter));
    }
    return this.problems.replaceChildren(notice(error.message, { bad: true, action: again }));
  }

  #countDown(button, seconds) {
    button.textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
    button.disabled = seconds > 0;
    if (seconds > 0 && button.isConnected !== false) setTimeout(() => this.#countDown(button, seconds - 1), 1000);
  }

  /** The server's state was asked anew. */
  update(session) { this.options.offer(session); }

  close() {
    this.#save();
    this.stop();
    this.current?.timeline.stop();
    clearTimeout(this.keeping);
    removeEventListener("pagehide", this.onhide);
    for (const unbind of this.unbind) unbind();
  }
}
