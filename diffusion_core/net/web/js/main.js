// The frame of the page: who is signed in, which view is shown, and whether the server answers.

import { get, token } from "./api.js";
import { h } from "./dom.js";
import { bind, showKeys } from "./keys.js";
import { signIn } from "./signin.js";
import { toggle } from "./theme.js";
import { openPlayground } from "./playground/view.js";
import { openAdmin } from "./admin/view.js";

const POLL_MS = { ready: 15_000, loading: 700, failed: 15_000, offline: 2_000 };
const view = document.getElementById("view");
const pill = document.getElementById("engine");
const views = [
  { path: "#/", name: "Playground", open: openPlayground, may: () => true },
  { path: "#/admin", name: "Admin", open: openAdmin, may: (session) => session.scopes.includes("admin") },
];
let session = null;
let shown = null;
let timer = 0;

const app = {
  get session() { return session; },
  /** The token stopped working: ask for another. What was typed is kept by the views themselves. */
  signOut(reason = "") {
    token.forget();
    session = null;
    render(reason);
  },
  offline() { describe("offline"); poll(); },
};

function describe(state) {
  pill.dataset.state = state;
  const main = session?.models[0];
  const texts = {
    ready: main ? `${main.name.split("/").pop()} · ${session.device} · ${session.dtype}` : "ready",
    loading: "the model is being loaded",
    failed: session?.notices.join("; ") || "the model could not be loaded",
    offline: "the server does not answer; trying again",
  };
  pill.textContent = session || state === "offline" ? texts[state] ?? state : "";
}

async function poll() {
  clearTimeout(timer);
  if (!token.get()) return;
  let state = "offline";
  try {
    const fresh = await get("/v1/session");
    const isFirst = !session;
    session = fresh;
    state = fresh.status;
    if (isFirst) render();
    shown?.update?.(fresh);
  } catch (error) {
    if (error.code === "unauthorized") return app.signOut(error.message);
    if (!session) view.replaceChildren(h("p", { class: "empty" }, "The server does not answer; trying again."));
  }
  describe(state);
  if (session || state === "offline") timer = setTimeout(poll, POLL_MS[state] ?? POLL_MS.ready);
}

function render(reason = "") {
  shown?.close?.();
  shown = null;
  const nav = document.querySelector(".tabs");
  if (!session) {
    nav.replaceChildren();
    pill.textContent = "";
    view.replaceChildren(signIn((fresh) => { session = fresh; render(); view.focus(); describe(fresh.status); poll(); }, reason));
  } else {
    const allowed = views.filter((each) => each.may(session));
    const chosen = allowed.find((each) => each.path === location.hash.split("?")[0]) ?? allowed[0];
    nav.replaceChildren(...(allowed.length > 1 ? allowed : []).map((each) =>
      h("a", { href: each.path, "aria-current": each === chosen ? "page" : null }, each.name)));
    shown = chosen.open(view, app);
    document.title = `Unmask · ${chosen.name}`;
  }
  document.querySelector(".bar-tools").replaceChildren(
    h("button", { class: "quiet", onclick: showKeys, title: "Keys (?)", "aria-label": "Show the keys" }, "?"),
    h("button", { class: "quiet", onclick: toggle, title: "Dark or light (t)", "aria-label": "Switch between dark and light" }, "◐"),
    session ? h("button", { class: "quiet", onclick: () => app.signOut() }, "Sign out") : "");
}

addEventListener("hashchange", () => { render(); view.focus(); });
bind("?", "these keys", showKeys);
bind("t", "dark or light", toggle);
if (token.get()) poll();
else render();
