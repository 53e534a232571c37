// Lines over the last minutes, as SVG: told apart by dashes as well as by colour.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 560;
const HEIGHT = 130;
const LEFT = 46;
const BOTTOM = 18;
const TOP = 8;

function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** 1, 2 or 5 times a power of ten, not below `value`. */
export function niceTop(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((top) => top >= value * 0.999);
}

const short = (value) => (value === null || value === undefined ? "–" : value >= 10_000 ? `${Math.round(value / 1000)} k` : value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(2))));

/** Milliseconds, as an axis says them. */
export const duration = (ms) => (ms === null || ms === undefined ? "–" : ms >= 1000 ? `${Number((ms / 1000).toPrecision(2))} s` : `${Number(ms.toPrecision(2))} ms`);

/** A path through the values; a gap where one is null. A lone value is drawn as a dot's worth of line. */
function path(values, x, y) {
  let isDown = false;
  return values.map((value, at) => {
    if (value === null) { isDown = false; return ""; }
    const next = isDown ? `L${x(at).toFixed(1)} ${y(value).toFixed(1)}` : `M${x(at).toFixed(1)} ${y(value).toFixed(1)}h.01`;
    isDown = true;
    return next;
  }).join("");
}

/** Whether a value stands between gaps, so that no line shows it. */
const isLone = (values, at) => values[at] !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null;

/** `series`: `[{name, values}]`, of equal length, the oldest first; `stepS` seconds apart. */
export class Chart {
  constructor(title, unit, format = short) {
    this.title = title;
    this.format = format;
    this.unit = unit;
    this.svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "chart" });
    this.legend = Object.assign(document.createElement("p"), { className: "chart-legend" });
    this.element = document.createElement("figure");
    this.element.className = "panel chart-panel";
    const caption = document.createElement("figcaption");
    caption.append(Object.assign(document.createElement("h3"), { textContent: `${title}${unit ? `, ${unit}` : ""}` }), this.legend);
    this.element.append(caption, this.svg);
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => { this.at = null; this.#draw(); });
  }

  show(series, stepS) {
    Object.assign(this, { series, stepS });
    this.#draw();
  }

  #point(event) {
    const box = this.svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - 8);
    const last = (this.series?.[0].values.length ?? 1) - 1;
    this.at = Math.max(0, Math.min(last, Math.round(share * last)));
    this.#draw();
  }

  #draw() {
    const { series, stepS } = this;
    if (!series) return;
    const length = series[0].values.length;
    const top = niceTop(Math.max(0, ...series.flatMap((each) => each.values.filter((value) => value !== null))));
    const x = (at) => LEFT + (length < 2 ? 1 : at / (length - 1)) * (WIDTH - LEFT - 8);
    const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
    const marks = [0, top / 2, top].flatMap((value) => [
      s("line", { x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value), class: "grid" }),
      s("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, this.format(value)),
    ]);
    const minutes = Math.round(((length - 1) * stepS) / 60);
    const times = [s("text", { x: LEFT, y: HEIGHT - 3 }, minutes > 0 ? `${minutes} min ago` : ""), s("text", { x: WIDTH - 8, y: HEIGHT - 3, "text-anchor": "end" }, "now")];
    const lines = series.flatMap((each, number) => [
      s("path", { d: path(each.values, x, y), class: `line line-${number}` }),
      ...each.values.flatMap((value, at) => (isLone(each.values, at) ? [s("circle", { cx: x(at), cy: y(value), r: 3.5 - number, class: `dot dot-${number}` })] : [])),
    ]);
    const cursor = this.at === null || this.at === undefined ? [] : [s("line", { x1: x(this.at), x2: x(this.at), y1: TOP, y2: HEIGHT - BOTTOM, class: "cursor" })];
    this.svg.replaceChildren(...marks, ...times, ...lines, ...cursor);
    const shown = cursor.length ? this.at : length - 1;
    this.legend.replaceChildren(...series.map((each, number) => {
      const item = document.createElement("span");
      item.className = `key key-${number}`;
      item.textContent = `${each.name} ${this.format(each.values[shown])}`;
      return item;
    }));
    this.svg.setAttribute("aria-label", `${this.title}: ${series.map((each) => `${each.name} ${this.format(each.values[length - 1])} now`).join(", ")}`);
  }
}
