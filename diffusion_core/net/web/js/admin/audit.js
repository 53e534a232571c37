// What administrators did.

import { h } from "../dom.js";
import * as calls from "./calls.js";
import { table, time } from "./table.js";

export class Audit {
  constructor(report) {
    this.report = report;
    this.entries = [];
    this.list = h("div");
    this.more = h("button", { hidden: true, onclick: () => this.load() }, "Earlier ones");
    this.element = h("div", { class: "stack" }, this.list, h("div", { class: "row" }, this.more));
    this.load();
  }

  async load() {
    try {
      const found = await calls.audit(this.entries.at(-1)?.id);
      this.entries.push(...found);
      this.more.hidden = found.length < 100;
      this.list.replaceChildren(table("Audit log", ["When", "Who", "Did", "On", "Details"], this.entries.map((entry) => [
        time(entry.at), entry.actor, entry.action, entry.target, h("span", { class: "mono" }, Object.entries(entry.detail).map(([name, value]) => `${name}: ${Array.isArray(value) ? value.join(", ") : value}`).join("; ") || "–"),
      ]), "Nothing was done yet."));
      this.report(null);
    } catch (error) {
      this.report(error);
    }
  }
}
