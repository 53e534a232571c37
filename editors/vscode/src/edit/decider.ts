// The user's decision about an edit: hunk by hunk or all at once, then one change of the document.

import * as vscode from "vscode";
import type { EditAnswer } from "../protocol";
import type { Connection } from "../server/connection";
import { plural } from "./lenses";
import type { EditRunner } from "./runner";
import type { Decision, EditSession } from "./session";
import { type EditSessions, PROPOSED_SCHEME } from "./sessions";

const SAVED_MESSAGE_MS = 4000;
const MAX_LAG_MS = 1000;
const LAG_INTERVAL_MS = 10;

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
    if (session?.phase !== "deciding" || this.refuseStale(session)) {
      return;
    }
    await untilShown(session);
    const index = pressed?.index ?? session.hunkAt(cursorLine(), this.sessions.activeSide);
    if (index === undefined || session.phase !== "deciding") {
      return;
    }
    session.decide(index, decision);
    if (session.numOpen === 0) {
      await this.apply(session);
      return;
    }
    this.sessions.redraw(session);
    await untilShown(session);
    this.move(1, session.places(this.sessions.activeSide)[index]?.start.line);
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
    const side = this.sessions.activeSide;
    const index = session?.neighbour(from, step, side);
    const place = index === undefined ? undefined : session?.places(side)[index];
    const editor = vscode.window.activeTextEditor;
    if (place && editor) {
      const start = new vscode.Position(place.start.line, place.start.character);
      const end = new vscode.Position(place.end.line, place.end.character);
      editor.selection = new vscode.Selection(start, start);
      editor.revealRange(new vscode.Range(start, end), vscode.TextEditorRevealType.InCenterIfOutsideViewport);
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

/** The proposed side follows a decision a moment later; until then its lines are not those that the hunks speak of. */
async function untilShown(session: EditSession): Promise<void> {
  const document = vscode.window.activeTextEditor?.document;
  const wanted = session.proposedText().replaceAll("\r\n", "\n");
  const isShown = (): boolean => document?.getText().replaceAll("\r\n", "\n") === wanted;
  const giveUpMs = Date.now() + MAX_LAG_MS;
  while (document?.uri.scheme === PROPOSED_SCHEME && !isShown() && Date.now() < giveUpMs) {
    await new Promise((resolve) => setTimeout(resolve, LAG_INTERVAL_MS));
  }
}
