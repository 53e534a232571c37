// What the server counted, as a page.

import * as vscode from "vscode";
import type { FullStatus } from "../protocol";
import type { Connection } from "../server/connection";
import { explainReason } from "./reasons";

export async function showStatistics(server: Connection): Promise<void> {
  const status = await server.execute<FullStatus>("unmask.status", {});
  const content = describe(status, server.origin);
  const document = await vscode.workspace.openTextDocument({ language: "markdown", content });
  await vscode.window.showTextDocument(document, { preview: true });
}

/** Says why the last request brought nothing. */
export async function showWhy(server: Connection): Promise<void> {
  const { lastReason } = await server.execute<FullStatus>("unmask.status", {});
  const text = lastReason ? explainReason(lastReason) : "Every request so far brought a suggestion.";
  const choice = await vscode.window.showInformationMessage(`Unmask: ${text}`, "Statistics");
  if (choice) {
    await showStatistics(server);
  }
}

function describe(status: FullStatus, origin: string | undefined): string {
  const reasons = Object.entries(status.reasons).sort(([, a], [, b]) => b - a);
  const rows = reasons.map(([reason, count]) => `| ${count} | ${explainReason(reason)} |`);
  const table = rows.length > 0 ? ["| times | why no suggestion came |", "| ---: | --- |", ...rows] : ["Every request brought a suggestion."];
  return [
    "# Unmask: statistics of this session",
    "",
    `- State: ${status.message}`,
    `- Model: ${status.model || "none yet"}`,
    `- Last suggestion: ${status.latencyMs > 0 ? `${status.latencyMs} ms` : "none yet"}`,
    `- Suggestions kept for reuse: ${status.numSuggestionsKept}`,
    `- Language server: ${origin ?? "not running"}`,
    "",
    ...table,
    "",
  ].join("\n");
}
