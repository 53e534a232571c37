// Shortcuts: bound in one place, listed by `?`. Single letters do nothing while somebody types.

import { h } from "./dom.js";

const bound = [];

/** `key` as `event.key`; `mod` is Ctrl or Command. Returns how to unbind. */
export function bind(key, text, run, { mod = false, shift = false } = {}) {
  const entry = { key, text, run, mod, shift };
  bound.push(entry);
  return () => bound.splice(bound.indexOf(entry), 1);
}

function isTyping(target) {
  return target.matches?.("textarea, select, input:not([type=range], [type=checkbox], [type=radio])") ?? false;
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey) return;
  const mod = event.ctrlKey || event.metaKey;
  const found = bound.find((each) => each.key === event.key && each.mod === mod && (!each.mod || each.shift === event.shiftKey));
  if (!found || (!found.mod && found.key !== "Escape" && isTyping(event.target))) return;
  if (document.querySelector("dialog[open]")) return;
  event.preventDefault();
  found.run();
});

const names = { Escape: "Esc", Enter: "Enter" };

export function showKeys() {
  const list = h("dl", { class: "keys" });
  for (const { key, text, mod, shift } of bound) {
    const shown = [mod && "Ctrl", shift && "Shift", names[key] ?? key].filter(Boolean).flatMap((part, at) => [at ? " + " : "", h("kbd", {}, part)]);
    list.append(h("dt", {}, ...shown), h("dd", {}, text));
  }
  const dialog = h("dialog", { "aria-labelledby": "keys-title", onclose: () => dialog.remove() },
    h("div", { class: "stack" },
      h("h2", { id: "keys-title" }, "Keys"), list,
      h("p", { class: "hint" }, "On a Mac, Ctrl is ⌘. Tab moves on, also out of the editor."),
      h("form", { method: "dialog" }, h("button", { autofocus: true }, "Close"))));
  document.body.append(dialog);
  dialog.showModal();
}
