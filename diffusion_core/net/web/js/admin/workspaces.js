// Workspaces: whose members share cached prompts.

import { h } from "../dom.js";
import * as calls from "./calls.js";
import { form } from "./dialogs.js";
import { table, time } from "./table.js";
import { nameField } from "./users.js";

export class Workspaces {
  constructor(report) {
    this.report = report;
    this.list = h("div");
    this.element = h("div", { class: "stack" },
      h("div", { class: "row" }, h("button", { class: "primary", onclick: () => this.#add() }, "Add a workspace"),
        h("p", { class: "hint grow" }, "Members reuse each other's cached prompts, so one's first completion in a file that another has open is fast. It also means that they can tell, by the time an answer takes, that somebody had that text open.")),
      this.list);
    this.load();
  }

  async load() {
    try {
      const all = await calls.workspaces();
      this.list.replaceChildren(table("Workspaces", ["Name", "Members", "Since", ""], all.map((space) => [
        space.name, space.members.join(", ") || "nobody", time(space.created_at),
        h("button", { class: "danger", onclick: () => this.#remove(space), "aria-label": `Remove ${space.name}` }, "Remove"),
      ]), "There are no workspaces: everybody has a space of their own."));
      this.report(null);
    } catch (error) {
      this.report(error);
    }
  }

  #add() {
    form("Add a workspace", [nameField("Name")], "Add", async (given) => {
      await calls.addWorkspace(given.get("name"));
      await this.load();
    });
  }

  #remove(space) {
    form(`Remove ${space.name}?`, [h("p", {}, "Its members go on, each in a space of their own.")], "Remove", async () => {
      await calls.removeWorkspace(space.name);
      await this.load();
    }, { danger: true });
  }
}
