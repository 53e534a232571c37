// What the server counted, as a page that exists only in memory.

import * as vscode from "vscode";
import type { FullStatus } from "../protocol";
import type { Connection } from "../server/connection";
import { explainReason } from "./reasons";

const PAGE = vscode.Uri.from({ scheme: "unmask-statistics", path: "Unmask statistics.md" });

export class Statistics implements vscode.TextDocumentContentProvider, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<vscode.Uri>();
  private readonly registration = vscode.workspace.registerTextDocumentContentProvider(PAGE.scheme, this);
  readonly onDidChange = this.changed.event;

  constructor(private readonly server: Connection) {}

  async provideTextDocumentContent(): Promise<string> {
    return describe(await this.server.execute<FullStatus>("unmask.status", {}), this.server.origin);
  }

  async show(): Promise<void> {
    this.changed.fire(PAGE);
    await vscode.window.showTextDocument(await vscode.workspace.openTextDocument(PAGE), { preview: true });
  }

  dispose(): void {
    this.registration.dispose();
    this.changed.dispose();
  }
}

/** Says why the last request brought nothing. */
export async function showWhy(server: Connection, statistics: Statistics): Promise<void> {
  const { lastReason } = await server.execute<FullStatus>("unmask.status", {});
  const text = lastReason ? explainReason(lastReason) : "Every request so far brought a suggestion.";
  const choice = await vscode.window.showInformationMessage(`Unmask: ${text}`, "Statistics");
  if (choice) {
    await statistics.show();
  }
}

function describe(status: FullStatus, origin: string | undefined): string {
  const reasons = Object.entries(status.reasons).sort(([, a], [, b]) => b - a);
  const rows = reasons.map(([reason, count]) => `| ${count} | ${explainReason(reason)} |`);
  const table =
    rows.length > 0
      ? ["| times | why no suggestion came |", "| ---: | --- |", ...rows]
      : ["Every request brought a suggestion."];
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
