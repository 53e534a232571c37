// Dark or light: the system's choice, until somebody chooses here. The choice is no secret and outlives the tab.

const KEY = "unmask.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

function apply() {
  document.documentElement.dataset.theme = localStorage.getItem(KEY) ?? (system.matches ? "dark" : "light");
  for (const listen of listeners) listen();
}

export function toggle() {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  if (next === (system.matches ? "dark" : "light")) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, next);
  apply();
}

export const onTheme = (listen) => listeners.add(listen);

/** The present value of a colour of base.css, for canvases. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

system.addEventListener("change", apply);
apply();
