// What the colours and shapes mean.

import { h } from "../dom.js";
import { LABELS } from "./trace.js";

export function legend() {
  const scale = LABELS.map((label, at) => h("span", { class: "tok settled", data: { c: at }, title: label, role: "img", "aria-label": label }));
  return h("div", { class: "legend", role: "group", "aria-label": "Legend" },
    h("span", { class: "scale", title: "The probability that the model gave to the token, at its place" }, "unsure", scale, "sure"),
    h("span", {}, h("span", { class: "tok masked", data: { c: 3 }, "aria-hidden": "true" }, "mask"), " masked"),
    h("span", {}, h("span", { class: "tok draft", data: { c: 4 }, "aria-hidden": "true" }, "draft"), " may change"),
    h("span", {}, h("span", { class: "tok settled", data: { c: 5 }, "aria-hidden": "true" }, "code"), " settled"),
    h("span", { title: "In the map: tokens that were drafted and that the model would not have chosen" }, h("span", { class: "refused", "aria-hidden": "true" }), " refused"));
}

// `_` is masked, `~` drafted, a digit the step of the confidence scale.
const ONE_BY_ONE = [[["return", 6]], [["return", 6], ["low", 5]], [["return", 6], ["low", 5], ["+", 3]], [["return", 6], ["low", 5], ["+", 3], ["1", 4]]];
const BY_BLOCKS = [[["return", "_"], ["low", "_"], ["+", "_"], ["1", "_"]], [["return", 6], ["low", 5], ["+", "~"], ["1", "_"]], [["return", 6], ["low", 5], ["+", 3], ["1", 4]]];

function steps(title, rows) {
  const token = ([text, state]) => h("span", { class: `tok ${{ _: "masked", "~": "draft" }[state] ?? "settled"}`, data: { c: typeof state === "number" ? state : 3 } }, text);
  return h("div", {}, h("h2", {}, title), h("ol", {}, rows.map((row) => h("li", {}, row.map(token)))));
}

/** What one sees before anything was asked. */
export function primer() {
  return h("section", { class: "panel primer", "aria-label": "How to read it" },
    h("p", {}, "A block-diffusion model need not write one token after the other. It puts a block of masks where code belongs and unmasks what it is sure of, several tokens in one forward."),
    h("figure", {}, steps("One by one", ONE_BY_ONE), steps("By blocks", BY_BLOCKS),
      h("figcaption", { class: "hint" }, "An illustration. Each numbered row is one forward of the model.")),
    h("p", {}, "Put the cursor where code is missing and run it. Then drag the slider back and watch it happen again."));
}
