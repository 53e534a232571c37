// What the server does now, and did in the last minutes.

import { get } from "../api.js";
import { bytes, h, milliseconds } from "../dom.js";
import { Chart, duration } from "./chart.js";
import { table } from "./table.js";

const POLL_MS = 2000;

export class Live {
  constructor(report) {
    this.report = report;
    this.user = "";
    this.charts = [new Chart("Requests", "per second"), new Chart("Latency", "", duration), new Chart("Tokens", "per second"), new Chart("In the engine", "requests")];
    this.who = h("select", { "aria-label": "Whose history", onchange: () => { this.user = this.who.value; this.poll(); } }, h("option", { value: "" }, "everybody"));
    this.figures = h("dl", { class: "figures panel" });
    this.users = h("div");
    this.element = h("div", { class: "stack" }, this.figures,
      h("div", { class: "row" }, h("h2", { class: "grow" }, "The last ten minutes"), h("label", { class: "row" }, "of", this.who)),
      h("div", { class: "charts" }, this.charts.map((chart) => chart.element)), this.users);
    this.poll();
  }

  async poll() {
    clearTimeout(this.timer);
    if (this.isClosed) return;
    if (document.visibilityState === "visible") {
      try {
        this.#show(await get(`/v1/load${this.user ? `?user=${encodeURIComponent(this.user)}` : ""}`));
        this.report(null);
      } catch (error) {
        if (this.isClosed) return;
        this.report(error);
      }
    }
    clearTimeout(this.timer);
    if (!this.isClosed) this.timer = setTimeout(() => this.poll(), POLL_MS);
  }

  #show(load) {
    const { current, window: last, history, totals } = load;
    const share = (part) => (part === null || part === undefined ? "–" : `${Math.round(part * 100)} %`);
    const figures = [
      ["being computed", current.active], ["waiting", current.queued], ["requests a minute", last.requests],
      ["median", milliseconds(last.p50_ms)], ["95th percentile", milliseconds(last.p95_ms)],
      ["tokens / forward", last.tokens_per_forward?.toFixed(2) ?? "–"], ["prompt kept", share(last.cache_hit_rate)],
      ["refused in all", totals.rejected], ["failed in all", totals.errors], ["memory", bytes(current.memory_bytes)],
    ];
    this.figures.replaceChildren(...figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));
    const rate = (values) => values.map((value) => (value === null ? null : value / history.step_s));
    this.charts[0].show([{ name: "asked", values: rate(history.requests) }, { name: "failed or refused", values: rate(history.errors) }], history.step_s);
    this.charts[1].show([{ name: "median", values: history.p50_ms }, { name: "95th percentile", values: history.p95_ms }], history.step_s);
    this.charts[2].show([{ name: "tokens", values: history.tokens_per_s }], history.step_s);
    this.charts[3].show([{ name: "computed", values: history.active }, { name: "waiting", values: history.queued }], history.step_s);
    this.#offer(load.users);
    this.users.replaceChildren(table("Users of the last ten minutes", ["User", "Now", "Requests", "Refused", "Failed", "Median", "95th", "Tokens", "Tokens / forward", "Last seen"],
      load.users.map((user) => [user.user, user.active, user.requests, user.rejected, user.errors, milliseconds(user.p50_ms), milliseconds(user.p95_ms), user.tokens, user.tokens_per_forward?.toFixed(2) ?? "–", `${Math.round(user.last_s)} s ago`]),
      "Nobody has asked anything in the last ten minutes."));
  }

  #offer(users) {
    const names = users.map((user) => user.user);
    if (this.user && !names.includes(this.user)) names.push(this.user);
    if (names.join() === this.offered || document.activeElement === this.who) return;
    this.offered = names.join();
    this.who.replaceChildren(h("option", { value: "" }, "everybody"), ...names.map((name) => h("option", { value: name }, name)));
    this.who.value = this.user;
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
  }
}
