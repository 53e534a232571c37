// The user's decision about an edit: hunk by hunk or all at once, then one change of the document.

import * as vscode from "vscode";
import type { EditAnswer } from "../protocol";
import type { Connection } from "../server/connection";
import { plural } from "./lenses";
import type { EditRunner } from "./runner";
import type { Decision, EditSession } from "./session";
import type { EditSessions } from "./sessions";

const SAVED_MESSAGE_MS = 4000;

export class EditDecider {
  constructor(
    private readonly server: Connection,
    private readonly sessions: EditSessions,
    private readonly runner: EditRunner,
  ) {}

  /** Decides about the hunk whose zone's button was pressed, or else the one at the cursor. */
  async decide(decision: Decision, thread?: unknown): Promise<void> {
    const pressed = this.sessions.zones.find(thread);
    const session = pressed?.session ?? this.sessions.active;
    const index = pressed?.index ?? session?.hunkAt(cursorLine());
    if (session?.phase !== "deciding" || index === undefined || this.refuseStale(session)) {
      return;
    }
    session.decide(index, decision);
    if (session.numOpen === 0) {
      await this.apply(session);
      return;
    }
    this.sessions.redraw(session);
    this.move(1, session.hunks[index]?.range.start.line);
  }

  async acceptAll(): Promise<void> {
    const session = this.sessions.active;
    if (session?.phase === "deciding" && !this.refuseStale(session)) {
      session.decideOpen("accepted");
      await this.apply(session);
    }
  }

  /** What was accepted before stays accepted only if the user applies it: rejecting all forgets the whole edit. */
  rejectAll(): void {
    const session = this.sessions.active;
    if (session?.phase === "deciding") {
      this.runner.reject(session);
    }
  }

  /** Puts the cursor on the next or previous open hunk. */
  move(step: 1 | -1, from = cursorLine()): void {
    const session = this.sessions.active;
    const index = session?.neighbour(from, step);
    const hunk = index === undefined ? undefined : session?.hunks[index];
    const editor = vscode.window.activeTextEditor;
    if (hunk && editor) {
      editor.selection = new vscode.Selection(hunk.range.start, hunk.range.start);
      editor.revealRange(hunk.range, vscode.TextEditorRevealType.InCenterIfOutsideViewport);
    }
  }

  private async apply(session: EditSession): Promise<void> {
    const hunks = session.accepted;
    if (hunks.length === 0) {
      this.runner.reject(session);
      return;
    }
    session.phase = "applying";
    this.sessions.redraw(session);
    try {
      const answer = await this.server.execute<EditAnswer>("unmask.acceptEdit", { editId: session.editId, hunks });
      this.sessions.remove(session);
      if (answer.status === "applied") {
        vscode.window.setStatusBarMessage(`Unmask: ${plural(hunks.length)} applied`, SAVED_MESSAGE_MS);
      } else {
        void this.offerRerun(session, answer.message);
      }
    } catch (error) {
      this.sessions.remove(session);
      void this.offerRerun(session, error instanceof Error ? error.message : String(error));
    }
  }

  private refuseStale(session: EditSession): boolean {
    if (session.isStale) {
      void this.offerRerun(session, "the text was changed since this edit was made.");
    }
    return session.isStale;
  }

  private async offerRerun(session: EditSession, message: string): Promise<void> {
    const [again, discard] = ["Run again", "Discard"];
    const answer = await vscode.window.showWarningMessage(`Unmask: ${message}`, again, discard);
    if (answer === again) {
      await this.runner.rerun(session);
    } else if (answer === discard) {
      this.runner.reject(session);
    }
  }
}

function cursorLine(): number {
  return vscode.window.activeTextEditor?.selection.active.line ?? 0;
}
