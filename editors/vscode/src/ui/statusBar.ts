// The status bar item: the server's state at a glance, details in the tooltip, the menu on a click.

import * as vscode from "vscode";
import type { Status, StatusKind } from "../protocol";

const ICONS: Readonly<Record<StatusKind, string>> = {
  Normal: "$(sparkle)",
  Busy: "$(loading~spin)",
  Warning: "$(warning)",
  Error: "$(error)",
  Inactive: "$(circle-slash)",
};

const BACKGROUNDS: Partial<Record<StatusKind, string>> = {
  Warning: "statusBarItem.warningBackground",
  Error: "statusBarItem.errorBackground",
};

/** Whether what the server reports is a token that is missing or wrong. */
export function lacksToken(status: Status | undefined): boolean {
  return status?.reason === "unauthorized" || (status?.reason === "config" && status.message.includes("token"));
}

export class StatusBar implements vscode.Disposable {
  private readonly item: vscode.StatusBarItem;
  private shown: Status | undefined;

  constructor(menuCommand: string) {
    this.item = vscode.window.createStatusBarItem("unmask.status", vscode.StatusBarAlignment.Right, 100);
    this.item.name = "Unmask";
    this.item.command = menuCommand;
    this.item.text = `${ICONS.Busy} Unmask`;
    this.item.show();
  }

  /** What is shown now. */
  get status(): Status | undefined {
    return this.shown;
  }

  show(status: Status): void {
    this.shown = status;
    this.item.text = `${ICONS[status.kind]} Unmask`;
    const background = BACKGROUNDS[status.kind];
    this.item.backgroundColor = background ? new vscode.ThemeColor(background) : undefined;
    this.item.tooltip = tooltip(status);
    this.item.accessibilityInformation = { label: `Unmask: ${status.message}`, role: "button" };
  }

  dispose(): void {
    this.item.dispose();
  }
}

function tooltip(status: Status): vscode.MarkdownString {
  const text = new vscode.MarkdownString("", true);
  text.appendMarkdown(`**Unmask** ${ICONS[status.kind]} `).appendText(status.message);
  if (status.model) {
    text.appendMarkdown("\n\nModel: ").appendText(status.model);
  }
  if (status.latencyMs > 0) {
    text.appendMarkdown(`\n\nLast suggestion: ${status.latencyMs} ms`);
  }
  if (lacksToken(status)) {
    text.isTrusted = { enabledCommands: ["unmask.client.setToken"] };
    text.appendMarkdown("\n\n[Set the engine's token](command:unmask.client.setToken)");
  }
  if (status.kind === "Warning" || status.kind === "Error") {
    text.appendMarkdown("\n\nReason: ").appendText(status.reason);
  }
  return text;
}
