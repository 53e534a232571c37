// The change that was just made, where it belongs as well. The server finds the place and makes the edit; here it is
// shown like any other one, never while another waits, and it goes when the user does something else.

import * as vscode from "vscode";
import type { NextEditAnswer } from "../protocol";
import type { Connection } from "../server/connection";
import type { EditRunner } from "./runner";
import { EditSession } from "./session";
import type { EditSessions } from "./sessions";

const NEXT_EDIT = "unmask.nextEdit";
/** How long the user has to pause before a place is looked for. */
const PAUSE_MS = 700;
const MESSAGE_MS = 6000;

export class NextEdits implements vscode.Disposable {
  private timer: NodeJS.Timeout | undefined;
  private offered: EditSession | undefined;
  private readonly subscription: vscode.Disposable;

  constructor(
    private readonly server: Connection,
    private readonly sessions: EditSessions,
    private readonly runner: EditRunner,
  ) {
    this.subscription = vscode.workspace.onDidChangeTextDocument((event) => this.note(event));
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.subscription.dispose();
  }

  private note({ document, contentChanges, reason }: vscode.TextDocumentChangeEvent): void {
    if (contentChanges.length === 0 || vscode.window.activeTextEditor?.document !== document) {
      return; // another document's change, for instance of the log's view
    }
    clearTimeout(this.timer);
    if (this.offered?.phase === "deciding" && this.sessions.of(document) === this.offered) {
      this.runner.reject(this.offered);
    }
    const isEnabled = vscode.workspace.getConfiguration("unmask", document).get("nextEdit.enabled", false);
    if (isEnabled && reason === undefined && this.server.knows(NEXT_EDIT)) {
      this.timer = setTimeout(() => void this.look(document), PAUSE_MS);
    }
  }

  private async look(document: vscode.TextDocument): Promise<void> {
    if (document.isClosed || this.sessions.of(document)) {
      return;
    }
    const { version } = document;
    const argument = { uri: this.server.toUri(document.uri), version };
    // No answer is no loss: nobody asked.
    const answer = await this.server.execute<NextEditAnswer | null>(NEXT_EDIT, argument).catch(() => undefined);
    if (!answer) {
      return;
    }
    if (document.version !== version || this.sessions.of(document)) {
      return; // the server forgets edits that nobody decides about
    }
    const lines = { first: answer.line, last: answer.line };
    const session = new EditSession(answer.editId, document, { lines, kind: "line", name: "" }, answer.instruction);
    session.offer(answer);
    this.offered = session;
    this.sessions.put(session);
    const place = `Unmask: the same change belongs at line ${answer.line + 1}`;
    vscode.window.setStatusBarMessage(place, MESSAGE_MS);
  }
}
