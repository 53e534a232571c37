// Elements without a framework, and numbers as people read them.

/** An element. `on…` keys are listeners, `class` and `data` as named, other keys are properties or attributes. */
export function h(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list" && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Radio buttons that look like one control; `onchoose` is told the value. */
export function choice(name, label, options, chosen, onchoose) {
  const group = h("div", { class: "choice", role: "radiogroup", "aria-label": label });
  for (const { value, text, disabled, title } of options) {
    const radio = h("input", { type: "radio", name, value, checked: value === chosen, disabled, onchange: () => onchoose(value) });
    group.append(h("label", { title }, radio, text));
  }
  return group;
}

export function field(label, control) {
  return h("label", { class: "field" }, h("span", {}, label), control);
}

export function notice(text, { bad = false, action = null } = {}) {
  return h("div", { class: bad ? "notice bad" : "notice", role: bad ? "alert" : "status" }, h("span", {}, text), action);
}

export function milliseconds(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms >= 10_000) return `${(ms / 1000).toFixed(1)} s`;
  return ms >= 100 ? `${Math.round(ms)} ms` : `${ms.toFixed(1)} ms`;
}

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  for (; number >= 1024 && at < units.length - 1; at += 1) number /= 1024;
  return `${number.toFixed(number < 10 && at ? 1 : 0)} ${units[at]}`;
}

/** Put a text on the clipboard; false where the browser does not let a page do so (one without TLS, for instance). */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

export function plural(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}
