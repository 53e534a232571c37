// What else a request says: language, length, threshold, chance, model.

import { field, h } from "../dom.js";

const LANGUAGES = ["python", "javascript", "typescript", "go", "rust", "java", "c", "cpp", "csharp", "kotlin", "swift", "php", "ruby", "yaml", "html", "css", "sql", "shellscript"];

export class Options {
  constructor(kept, session, onchange) {
    const number = (value, min, max, step = 1) => h("input", { type: "number", value, min, max, step, onchange });
    this.inputs = {
      language: h("select", { onchange }, h("option", { value: "" }, "none"), LANGUAGES.map((name) => h("option", { value: name }, name))),
      max_tokens: number(kept.max_tokens ?? 128, 0, 8192),
      block_size: number(kept.block_size ?? 0, 0, 256),
      tau: number(kept.tau ?? 0.9, 0.05, 1, 0.05),
      temperature: number(kept.temperature ?? 0, 0, 5, 0.1),
      seed: number(kept.seed ?? 0, 0, 2 ** 31),
      model: h("select", { onchange }),
      single_line: h("input", { type: "checkbox", checked: kept.single_line ?? false, onchange }),
    };
    this.language = kept.language ?? "";
    this.keptModel = kept.model ?? "";
    const { language, max_tokens, block_size, tau, temperature, seed, model, single_line } = this.inputs;
    this.element = h("details", { class: "more" }, h("summary", {}, "Options"),
      h("div", { class: "more-grid" },
        field("Language", language), field("Model", model), field("Most tokens (0: the server's)", max_tokens),
        field("Block size (0: chosen)", block_size), field("Threshold of confidence", tau), field("Temperature", temperature), field("Seed", seed),
        h("label", { class: "check" }, single_line, "one line only")));
    this.offer(session);
  }

  set language(name) { this.inputs.language.value = name; }

  /** The models that the server has. */
  offer(session) {
    const names = session.models.map((model) => model.name).join();
    if (names === this.offered) return;
    this.offered = names;
    const chosen = this.inputs.model.value || this.keptModel;
    this.inputs.model.replaceChildren(h("option", { value: "" }, "the server's choice"), ...session.models.map((model) => h("option", { value: model.name }, model.name.split("/").pop())));
    this.inputs.model.value = session.models.some((model) => model.name === chosen) ? chosen : "";
  }

  values() {
    return Object.fromEntries(Object.entries(this.inputs).map(([name, input]) => [name, input.type === "checkbox" ? input.checked : input.type === "number" ? Number(input.value) : input.value]));
  }

  /** The body of a request for `ask` under `policy`. */
  request(ask, policy) {
    const { language, max_tokens, block_size, tau, temperature, seed, model, single_line } = this.values();
    const shared = { language, max_tokens, model, decoding: { policy, block_size, tau }, sampling: { temperature, seed } };
    if (ask.kind === "edit") return { ...shared, selection: ask.selection, instruction: ask.instruction, before: ask.before, after: ask.after, max_tokens: 0 };
    return { ...shared, prefix: ask.before, suffix: ask.after, single_line };
  }
}
