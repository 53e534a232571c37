// Users, their limits and their tokens.

import { field, h } from "../dom.js";
import * as calls from "./calls.js";
import { form, showToken } from "./dialogs.js";
import { table, time } from "./table.js";

const LIMITS = [["requests_per_minute", "Requests a minute"], ["requests_at_once", "At once"], ["max_request_bytes", "Bytes a request"]];
const NAME = "[a-z0-9][a-z0-9._@\\-]{0,63}";
const SCOPES = [["complete", "completions"], ["edit", "edits"], ["admin", "administration"], ["metrics", "metrics"]];

export const nameField = (label) => field(label, h("input", { type: "text", name: "name", required: true, pattern: NAME, autocomplete: "off", title: "a-z 0-9 . _ @ -, the first a letter or a digit" }));

export class Users {
  constructor(report) {
    this.report = report;
    this.list = h("div");
    this.detail = h("div");
    this.add = h("button", { class: "primary", hidden: true, onclick: () => this.#add() }, "Add a user");
    this.element = h("div", { class: "stack" }, h("div", { class: "row" }, this.add), this.list, this.detail);
    this.load();
  }

  async load() {
    try {
      const { users: kind, defaults } = await calls.limits();
      this.defaults = defaults ?? {};
      if (kind !== "database") {
        this.list.replaceChildren(table("Users", [], [], "This server has one token, and whoever has it may do everything. Start it with users = \"database\" to give everybody a token of their own."));
        return;
      }
      [this.all, this.workspaces] = await Promise.all([calls.users(), calls.workspaces()]);
      this.add.hidden = false;
      this.#show();
      if (this.chosen) await this.#open(this.chosen);
      this.report(null);
    } catch (error) {
      this.report(error);
    }
  }

  /** Runs a change, then shows what is so now. */
  async #change(run) {
    try {
      await run();
      await this.load();
    } catch (error) {
      this.report(error);
    }
  }

  #limit(user, name) {
    if (user[name] === 0) return "none";
    if (user[name] !== null) return user[name].toLocaleString();
    return `${this.defaults[name] ? this.defaults[name].toLocaleString() : "none"} (default)`;
  }

  #show() {
    this.list.replaceChildren(table("Users", ["Name", "Workspace", ...LIMITS.map(([, text]) => text), "Tokens", "Since", ""],
      this.all.map((user) => [
        h("span", { class: user.is_disabled ? "off" : "" }, user.is_disabled ? `${user.name} (disabled)` : user.name), user.workspace,
        ...LIMITS.map(([name]) => this.#limit(user, name)), user.num_tokens, time(user.created_at),
        h("span", {},
          h("button", { onclick: () => this.#open(user.name), "aria-label": `Tokens of ${user.name}` }, "Tokens"),
          h("button", { onclick: () => this.#edit(user), "aria-label": `Limits of ${user.name}` }, "Limits"),
          h("button", { onclick: () => this.#change(() => calls.changeUser(user.name, { is_disabled: !user.is_disabled })), "aria-label": `${user.is_disabled ? "Enable" : "Disable"} ${user.name}` }, user.is_disabled ? "Enable" : "Disable"),
          h("button", { class: "danger", onclick: () => this.#remove(user), "aria-label": `Remove ${user.name}` }, "Remove")),
      ]), "There are no users yet."));
  }

  #workspaceField(chosen) {
    const options = [["", "a space of their own"], ...this.workspaces.map(({ name }) => [name, name])];
    return field("Workspace (its members share cached prompts)", h("select", { name: "workspace" }, options.map(([value, text]) => h("option", { value, selected: value === (chosen ?? "") }, text))));
  }

  #add() {
    form("Add a user", [nameField("Name"), this.#workspaceField("")], "Add", async (given) => {
      const workspace = given.get("workspace");
      await calls.addUser({ name: given.get("name"), ...(workspace ? { workspace } : {}) });
      this.chosen = given.get("name");
      await this.load();
    });
  }

  #edit(user) {
    const inputs = LIMITS.map(([name, text]) => field(`${text} (empty: the server's ${this.defaults[name] || "none"}; 0: no limit)`, h("input", { type: "number", name, min: 0, max: 1_000_000_000, value: user[name] ?? "" })));
    form(`Limits of ${user.name}`, [...inputs, this.#workspaceField(user.workspace)], "Save", async (given) => {
      const changes = Object.fromEntries(LIMITS.map(([name]) => [name, given.get(name) === "" ? null : Number(given.get(name))]));
      await calls.changeUser(user.name, { ...changes, workspace: given.get("workspace") || null });
      await this.load();
    });
  }

  #remove(user) {
    form(`Remove ${user.name}?`, [h("p", {}, `The ${user.num_tokens} tokens of ${user.name} stop working at once. To keep the name, disable it instead.`)], "Remove", async () => {
      await calls.removeUser(user.name);
      if (this.chosen === user.name) {
        this.chosen = "";
        this.detail.replaceChildren();
      }
      await this.load();
    }, { danger: true });
  }

  async #open(name) {
    this.chosen = name;
    try {
      const now = Date.now();
      const rows = (await calls.tokens(name)).reverse().map((token) => {
        const isOver = token.expires_at && Date.parse(token.expires_at) <= now;
        const state = token.revoked_at ? "revoked" : isOver ? "expired" : "in use";
        const revoke = h("button", { class: "danger", onclick: () => this.#change(() => calls.revokeToken(token.id)), "aria-label": `Revoke ${token.beginning}` }, "Revoke");
        return [h("code", {}, `${token.beginning}…`), token.name || "–", token.scopes.join(", "), h("span", { class: state === "in use" ? "" : "off" }, state), time(token.created_at), token.expires_at ? time(token.expires_at) : "never", time(token.last_used_at), state === "in use" ? revoke : ""];
      });
      this.detail.replaceChildren(h("div", { class: "stack" },
        table(`Tokens of ${name}`, ["Begins with", "Name", "Allows", "State", "Made", "Ends", "Last used", ""], rows, `${name} has no tokens.`),
        h("div", { class: "row" }, h("button", { class: "primary", onclick: () => this.#makeToken(name) }, `Make a token for ${name}`))));
    } catch (error) {
      this.report(error);
    }
  }

  #makeToken(user) {
    const scopes = h("fieldset", {}, h("legend", {}, "Allows"), SCOPES.map(([value, text]) => h("label", { class: "check" }, h("input", { type: "checkbox", name: "scopes", value, checked: ["complete", "edit"].includes(value) }), text)));
    const expires = h("select", { name: "expires" }, [["90d", "in 90 days"], ["365d", "in a year"], ["30d", "in 30 days"], ["7d", "in a week"], ["never", "never"]].map(([value, text]) => h("option", { value }, text)));
    form(`A token for ${user}`, [field("Name (what it is for)", h("input", { type: "text", name: "name", maxLength: 64, autocomplete: "off" })), scopes, field("Ends", expires)], "Make", async (given) => {
      const wanted = { user, scopes: given.getAll("scopes"), expires: given.get("expires") };
      const made = await calls.makeToken(given.get("name") ? { ...wanted, name: given.get("name") } : wanted);
      showToken(made.token, user);
      await this.load();
    });
  }
}
