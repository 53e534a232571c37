// Tables that scroll in themselves where the page is narrow.

import { h } from "../dom.js";

/** `rows` of cells (text or elements); `empty` is said when there are none. */
export function table(caption, heads, rows, empty) {
  if (!rows.length) return h("section", { class: "panel" }, h("h2", { class: "table-title" }, caption), h("p", { class: "empty" }, empty));
  return h("div", { class: "panel scroll", tabIndex: 0, role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, at) => (at ? h("td", {}, cell ?? "–") : h("th", { scope: "row" }, cell))))))));
}

/** An ISO time as the reader's clock shows it. */
export function time(iso) {
  if (!iso) return "–";
  const at = new Date(iso);
  return h("time", { dateTime: iso, title: iso }, at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }));
}
