// Questions in dialogs, and a token that is shown once.

import { copy, h, notice } from "../dom.js";

/** A form; `submit` gets its values and may throw: then the dialog stays and says why. */
export function form(title, controls, verb, submit, { danger = false } = {}) {
  const problem = h("div", {});
  const go = h("button", { class: danger ? "danger" : "primary" }, verb);
  const dialog = h("dialog", { "aria-label": title, onclose: () => dialog.remove() },
    h("form", {
      onsubmit: async (event) => {
        event.preventDefault();
        go.disabled = true;
        try {
          await submit(new FormData(event.target));
          dialog.close();
        } catch (error) {
          problem.replaceChildren(notice(error.message, { bad: true }));
          go.disabled = false;
        }
      },
    }, h("h2", {}, title), ...controls, problem,
    h("div", { class: "row" }, go, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
  document.body.append(dialog);
  dialog.showModal();
}

export function showToken(token, user) {
  const shown = h("input", { type: "text", class: "mono token", readOnly: true, value: token, "aria-label": "The token", onfocus: () => shown.select() });
  const copied = h("span", { class: "hint", role: "status" });
  const take = async () => {
    const isCopied = await copy(token);
    if (!isCopied) shown.select();
    copied.textContent = isCopied ? "copied" : "copy it by hand: the browser does not let this page do it";
  };
  const dialog = h("dialog", { "aria-label": "The new token", onclose: () => dialog.remove() },
    h("div", { class: "stack" }, h("h2", {}, `A token for ${user}`),
      h("p", {}, "It is shown this once: the server keeps only what it needs to recognise it. Give it to its owner by a way that nobody else reads."),
      shown, h("div", { class: "row" }, h("button", { class: "primary", onclick: take }, "Copy"), h("button", { onclick: () => dialog.close() }, "I have it"), copied)));
  document.body.append(dialog);
  dialog.showModal();
  shown.select();
}
