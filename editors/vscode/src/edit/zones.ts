// New text below the lines it replaces. A stable extension cannot add lines to the view by itself; comment threads do,
// with colours of the language, buttons and a place in the accessible view.

import * as vscode from "vscode";
import type { Surplus } from "./decorations";
import { contentLines } from "./lines";
import { anchorLine, type EditSession, type Hunk, sizeOf } from "./session";

export const CONTROLLER = "unmask.hunks";
const PREVIEW_INTERVAL_MS = 150;

interface Shown {
  readonly thread: vscode.CommentThread;
  readonly session: EditSession;
  readonly index: number;
  /** Whether it was opened or closed last: the user may have done otherwise since, and that stays. */
  isOpen: boolean | undefined;
}

export class Zones implements vscode.Disposable {
  private readonly controller = vscode.comments.createCommentController(CONTROLLER, "Unmask");
  private readonly shown: Shown[] = [];
  private readonly folded = new Set<EditSession>();
  private readonly previews = new Map<EditSession, { thread: vscode.CommentThread; updatedMs: number }>();

  /** What the zone's button was pressed for. */
  find(thread: unknown): { readonly session: EditSession; readonly index: number } | undefined {
    return this.shown.find((each) => each.thread === thread);
  }

  /** Draws the hunks of a session where they are and as they are decided now. */
  showHunks(session: EditSession): void {
    this.clearPreview(session);
    for (const [index, hunk] of session.hunks.entries()) {
      const shown = this.shownFor(session, hunk, index);
      const { thread } = shown;
      const range = anchor(hunk.range);
      if (!thread.range?.isEqual(range)) {
        thread.range = range;
      }
      thread.label = title(session, hunk, index);
      thread.contextValue = hunk.decision;
      const isOpen = hunk.decision === "open" && !this.folded.has(session);
      if (isOpen !== shown.isOpen) {
        shown.isOpen = isOpen;
        thread.collapsibleState = vscode.CommentThreadCollapsibleState[isOpen ? "Expanded" : "Collapsed"];
      }
    }
  }

  /** Folds the zones of a session while something else shows its text. */
  fold(session: EditSession, isFolded: boolean): void {
    if (isFolded) {
      this.folded.add(session);
    } else {
      this.folded.delete(session);
    }
  }

  /** Draws what a preview has beyond the scope's lines, now and then: a zone is slower than a decoration. */
  showSurplus(session: EditSession, surplus: Surplus): void {
    if (!surplus.settled && !surplus.unsettled) {
      return;
    }
    const present = this.previews.get(session);
    if (present && Date.now() - present.updatedMs < PREVIEW_INTERVAL_MS) {
      return;
    }
    const { last } = session.currentLines;
    const text = new vscode.MarkdownString();
    text.appendCodeblock(surplus.settled, session.document.languageId);
    text.appendCodeblock(surplus.unsettled, "plaintext");
    const comment = { body: text, mode: vscode.CommentMode.Preview, author: { name: "" } };
    const thread = present?.thread ?? this.create(session.document.uri, new vscode.Range(last, 0, last, 0), text, "");
    if (present) {
      thread.comments = [comment];
    } else {
      thread.label = "Unmask is writing";
      thread.contextValue = "preview";
      thread.collapsibleState = vscode.CommentThreadCollapsibleState.Expanded;
    }
    this.previews.set(session, { thread, updatedMs: Date.now() });
  }

  clearPreview(session: EditSession): void {
    this.previews.get(session)?.thread.dispose();
    this.previews.delete(session);
  }

  clear(session: EditSession): void {
    this.clearPreview(session);
    this.folded.delete(session);
    for (const each of this.shown.filter((shown) => shown.session === session)) {
      each.thread.dispose();
      this.shown.splice(this.shown.indexOf(each), 1);
    }
  }

  dispose(): void {
    this.controller.dispose();
  }

  private shownFor(session: EditSession, hunk: Hunk, index: number): Shown {
    const present = this.shown.find((each) => each.session === session && each.index === index);
    if (present) {
      return present;
    }
    const thread = this.create(session.document.uri, anchor(hunk.range), body(session, hunk), describe(hunk));
    const shown = { thread, session, index, isOpen: undefined };
    this.shown.push(shown);
    return shown;
  }

  private create(
    uri: vscode.Uri,
    range: vscode.Range,
    text: vscode.MarkdownString,
    author: string,
  ): vscode.CommentThread {
    const comment = { body: text, mode: vscode.CommentMode.Preview, author: { name: author } };
    const thread = this.controller.createCommentThread(uri, range, [comment]);
    thread.canReply = false;
    // Resolved threads do not open the editor's comments panel (see configurationDefaults in package.json).
    thread.state = vscode.CommentThreadState.Resolved;
    return thread;
  }
}

function anchor(range: vscode.Range): vscode.Range {
  const line = anchorLine(range);
  return new vscode.Range(line, 0, line, 0);
}

function body(session: EditSession, hunk: Hunk): vscode.MarkdownString {
  const text = new vscode.MarkdownString();
  return hunk.text
    ? text.appendCodeblock(contentLines(hunk.text).join("\n"), session.document.languageId)
    : text.appendText("These lines are removed.");
}

function title(session: EditSession, hunk: Hunk, index: number): string {
  const decision = hunk.decision === "open" ? "" : `, ${hunk.decision}`;
  return `Unmask: change ${index + 1} of ${session.hunks.length}${decision}`;
}

function describe(hunk: Hunk): string {
  const { removed, added } = sizeOf(hunk);
  return [added ? `+${added}` : "", removed ? `−${removed}` : ""].filter(Boolean).join(" ");
}
