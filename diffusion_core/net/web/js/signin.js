// Asks for the token.

import { get, token } from "./api.js";
import { field, h, notice } from "./dom.js";

/** `onsession` is told who the token speaks for. `reason` is shown if an earlier token stopped working. */
export function signIn(onsession, reason = "") {
  const input = h("input", { type: "password", autocomplete: "off", spellcheck: false, required: true, class: "mono", name: "token" });
  const button = h("button", { class: "primary" }, "Open");
  const problem = h("div", {}, reason ? notice(reason, { bad: true }) : null);
  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    token.set(input.value.trim());
    try {
      onsession(await get("/v1/session"));
    } catch (error) {
      token.forget();
      problem.replaceChildren(notice(error.message, { bad: true }));
      button.disabled = false;
      input.select();
      input.focus();
    }
  }
  const words = ["code", "that", "comes", "out", "of", "the", "mask"].map((word) => h("span", {}, word));
  const view = h("section", { class: "signin" },
    h("div", { class: "signin-slots", "aria-hidden": "true" }, words),
    h("h1", {}, "Watch a block of code being denoised"),
    h("form", { class: "panel", onsubmit: submit },
      field("Access token", input), problem,
      h("div", { class: "row" }, button, h("span", { class: "hint grow" }, "Kept in this tab until you close it."))),
    h("p", { class: "hint" }, "The server prints its token when it starts; on a team server your administrator gives you one."));
  queueMicrotask(() => input.focus());
  return view;
}
