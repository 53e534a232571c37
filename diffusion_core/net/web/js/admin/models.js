// Models, notices, and loading changed checkpoints.

import { request } from "../api.js";
import { bytes, h, notice } from "../dom.js";
import { table } from "./table.js";

export class Models {
  constructor(report, app) {
    this.report = report;
    this.outcome = h("div", { "aria-live": "polite" });
    this.list = h("div");
    this.button = h("button", { class: "primary", onclick: () => this.#reload() }, "Load the checkpoints once more");
    this.element = h("div", { class: "stack" }, this.list,
      h("div", { class: "row" }, this.button, h("span", { class: "hint grow" }, "Requests go on with the old model until the new one has passed its test. Takes the memory of both for that time.")),
      this.outcome);
    this.update(app.session);
  }

  async #reload() {
    this.button.disabled = true;
    this.outcome.replaceChildren(notice("Loading…"));
    try {
      this.#tell((await request("POST", "/v1/admin/reload")).models);
    } catch (error) {
      if (error.body?.models) this.#tell(error.body.models);
      else this.outcome.replaceChildren(notice(error.message, { bad: true }));
    }
    this.button.disabled = false;
  }

  #tell(models) {
    this.outcome.replaceChildren(...models.map((model) => notice(`${model.name}: ${model.state}${model.detail ? `: ${model.detail}` : ""}`, { bad: model.state !== "replaced" })));
  }

  update(session) {
    const notices = session.notices.map((text) => notice(text));
    this.list.replaceChildren(...notices, table(`Models on ${session.device}, ${session.dtype}`, ["Model", "For", "State", "Memory", ""],
      session.models.map((model) => [model.name, model.task === "edit" ? "edits" : "completions", model.state.replace("_", " "), bytes(model.memory_bytes), model.detail]), "No models."));
  }
}
