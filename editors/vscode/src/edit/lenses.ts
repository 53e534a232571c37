// The line above an edit's scope: what it is about, and what can be done with all of it.

import * as vscode from "vscode";
import type { EditSession } from "./session";

const MAX_INSTRUCTION = 40;

export class EditLenses implements vscode.CodeLensProvider, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeCodeLenses = this.changed.event;

  constructor(private readonly sessionOf: (document: vscode.TextDocument) => EditSession | undefined) {}

  refresh(): void {
    this.changed.fire();
  }

  provideCodeLenses(document: vscode.TextDocument): vscode.CodeLens[] {
    const session = this.sessionOf(document);
    if (!session) {
      return [];
    }
    const line = Math.min(session.currentLines.first, document.lineCount - 1);
    const range = new vscode.Range(line, 0, line, 0);
    return actions(session).map(([title, command]) => {
      // The editor takes a plain space after an icon away.
      return new vscode.CodeLens(range, { title: title.replace(") ", ")\u00a0"), command });
    });
  }

  dispose(): void {
    this.changed.dispose();
  }
}

/** Titles and commands; an empty command makes plain text. */
function actions(session: EditSession): readonly (readonly [string, string])[] {
  const what = shorten(session.instruction);
  if (session.phase === "running") {
    return [
      [`$(loading~spin) Unmask: ${what}`, ""],
      ["Cancel", "unmask.client.cancelEdit"],
    ];
  }
  if (session.isStale) {
    return [
      ["$(warning) Unmask: the text was changed since", ""],
      ["Run again", "unmask.client.rerun"],
      ["Discard", "unmask.client.rejectAll"],
    ];
  }
  return [
    [`$(sparkle) ${what}: ${summary(session)}`, ""],
    ["Accept all", "unmask.client.acceptAll"],
    ["Reject all", "unmask.client.rejectAll"],
    ["Run again", "unmask.client.rerun"],
    ["Refine…", "unmask.client.refine"],
    ["Diff", "unmask.client.diff"],
  ];
}

function summary(session: EditSession): string {
  const total = session.hunks.length;
  const time = session.answer?.totalMs ? `, ${(session.answer.totalMs / 1000).toFixed(1)} s` : "";
  const open = session.numOpen < total ? `${session.numOpen} of ${total} changes open` : plural(total);
  return open + time;
}

export function plural(count: number): string {
  return count === 1 ? "1 change" : `${count} changes`;
}

function shorten(text: string): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > MAX_INSTRUCTION ? `${line.slice(0, MAX_INSTRUCTION - 1)}…` : line;
}
