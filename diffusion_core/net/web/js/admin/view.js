// The administrator's part: load, users and their tokens, workspaces, what was done, models.

import { choice, h, notice } from "../dom.js";
import { Audit } from "./audit.js";
import { Live } from "./live.js";
import { Models } from "./models.js";
import { Users } from "./users.js";
import { Workspaces } from "./workspaces.js";

const PARTS = [
  { value: "live", text: "Load", open: Live },
  { value: "users", text: "Users", open: Users },
  { value: "workspaces", text: "Workspaces", open: Workspaces },
  { value: "audit", text: "Audit log", open: Audit },
  { value: "models", text: "Models", open: Models },
];

export function openAdmin(view, app) {
  let part = null;
  const body = h("div");
  const problems = h("div", { "aria-live": "assertive" });
  const report = (error) => {
    if (!error) return problems.replaceChildren();
    if (error.code === "unauthorized") return app.signOut(error.message);
    if (error.code === "offline") app.offline();
    return problems.replaceChildren(notice(error.message, { bad: error.code !== "not_found" }));
  };
  function show(name) {
    part?.close?.();
    problems.replaceChildren();
    const chosen = PARTS.find((each) => each.value === name) ?? PARTS[0];
    part = new chosen.open(report, app);
    body.replaceChildren(part.element);
    history.replaceState(null, "", `#/admin?${chosen.value}`);
  }
  const asked = location.hash.split("?")[1] ?? "live";
  view.replaceChildren(h("div", { class: "stack" },
    h("div", { class: "row" }, h("h1", { class: "grow" }, "Administration"), choice("part", "Part", PARTS, asked, show)), problems, body));
  show(asked);
  return { close: () => part?.close?.(), update: (session) => part?.update?.(session) };
}
