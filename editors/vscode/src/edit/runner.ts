// From a place in a document to an edit that waits for a decision: scope, instruction, the server's work.

import { createHash, randomUUID } from "node:crypto";
import * as vscode from "vscode";
import type { EditAnswer, EditParams, EditPrompt, EditScope } from "../protocol";
import type { Connection } from "../server/connection";
import type { InstructionPrompt } from "./instruction";
import { EditSession, type Scope, touchedLines, wholeLines } from "./session";
import type { EditSessions } from "./sessions";

const SCOPE = "unmask.editScope";
const WARM = "unmask.warmEdit";

export class EditRunner {
  constructor(
    private readonly server: Connection,
    private readonly sessions: EditSessions,
    private readonly prompt: InstructionPrompt,
  ) {}

  /** Edits what a code action points at, or else the selection or definition at the cursor. */
  async start(request?: EditPrompt): Promise<void> {
    const document = request
      ? await vscode.workspace.openTextDocument(vscode.Uri.parse(request.uri))
      : vscode.window.activeTextEditor?.document;
    if (!document) {
      void vscode.window.showInformationMessage("Unmask: open a file first; the edit is made at its cursor.");
      return;
    }
    if (request?.version !== undefined && request.version !== document.version) {
      void vscode.window.showWarningMessage(
        "Unmask: the text was changed since this action was offered. Choose it again.",
      );
      return;
    }
    if (!(await this.mayReplace(this.sessions.of(document)))) {
      return;
    }
    const wanted = request
      ? toRange(request.range)
      : (vscode.window.activeTextEditor?.selection ?? new vscode.Range(0, 0, 0, 0));
    const scope = request && !wanted.isEmpty ? given(wanted) : await this.scopeOf(document, wanted);
    const instruction = request?.instruction ?? (await this.askFor(document, scope));
    if (instruction) {
      await this.run(new EditSession(randomUUID(), document, scope, instruction));
    }
  }

  /**
   * The same once more, on the text as it is now. The server forgets what a ready refinement was made from, so all its
   * instructions are given at once; one that failed is repeated on the edit that still waits.
   */
  async rerun(session: EditSession): Promise<void> {
    const { document, refined, scope } = session;
    const present = this.sessions.of(document);
    if (refined && present === refined && refined.phase === "deciding" && !refined.isStale) {
      const lines = refined.currentLines;
      await this.run(new EditSession(randomUUID(), document, { ...scope, lines }, session.instruction, refined));
      return;
    }
    if (session.isGone) {
      void vscode.window.showWarningMessage(
        "Unmask: the lines of the edit are gone. Undo what took them, or select others and ask again.",
      );
      return;
    }
    if (present !== session && !(await this.mayReplace(present))) {
      return;
    }
    const lines = session.currentLines;
    this.reject(session);
    await this.run(new EditSession(randomUUID(), document, { ...scope, lines }, session.instructions.join("\n")));
  }

  /** A further instruction, on top of the edit that waits. */
  async refine(session: EditSession): Promise<void> {
    if (!this.server.knows(SCOPE)) {
      void vscode.window.showWarningMessage("Unmask: this language server cannot refine an edit. Update it.");
      return;
    }
    const scope = { ...session.scope, lines: session.currentLines };
    const instruction = await this.prompt.ask("Unmask: refine this edit", () => undefined);
    if (instruction && this.sessions.of(session.document) === session) {
      await this.run(new EditSession(randomUUID(), session.document, scope, instruction, session));
    }
  }

  /** Ends an edit without a change. */
  reject(session: EditSession): void {
    this.sessions.remove(session);
    if (session.answer) {
      this.forget(session);
    }
  }

  private forget({ editId }: EditSession): void {
    this.server.execute("unmask.rejectEdit", { editId }).catch(() => undefined);
  }

  private async run(session: EditSession): Promise<void> {
    collapseSelection(session);
    this.sessions.put(session);
    try {
      const answer = await this.server.execute<EditAnswer>(
        "unmask.edit",
        this.params(session),
        session.cancellation.token,
      );
      // A refinement that came in spite of a cancel is shown: at the server it stands in place of what it refines.
      const isShownAnyway =
        session.refined && answer.status === "ready" && this.sessions.of(session.document) === session;
      if (session.cancellation.token.isCancellationRequested && !isShownAnyway) {
        // The answer was on its way already: the server keeps it until somebody decides.
        this.giveUp(session);
        if (answer.status === "ready") {
          this.forget(session);
        }
        return;
      }
      if (answer.status === "ready") {
        session.offer(answer);
        this.sessions.redraw(session);
        return;
      }
      this.giveUp(session);
      void this.report(session, answer.message, answer.status === "cancelled" ? "none" : "information");
    } catch (error) {
      const cancelled = session.cancellation.token.isCancellationRequested;
      this.giveUp(session);
      void this.report(session, error instanceof Error ? error.message : String(error), cancelled ? "none" : "error");
    }
  }

  /** Back to the edit that was to be refined, if there is one: it still waits at the server. */
  private giveUp(session: EditSession): void {
    const isCurrent = this.sessions.of(session.document) === session;
    this.sessions.remove(session);
    if (isCurrent && session.refined) {
      this.sessions.put(session.refined);
    }
  }

  private params(session: EditSession): EditParams {
    const text = session.original;
    return {
      uri: this.server.toUri(session.document.uri),
      range: plain(session.range),
      instruction: session.instruction,
      version: session.document.version,
      apply: false,
      editId: session.editId,
      // A text with half a surrogate pair has no UTF-8; the version alone has to do there.
      ...(text.isWellFormed() && { originalSha256: createHash("sha256").update(text, "utf8").digest("hex") }),
      ...(session.refined && { refine: session.refined.editId }),
    };
  }

  private async scopeOf(document: vscode.TextDocument, range: vscode.Range): Promise<Scope> {
    if (this.server.knows(SCOPE)) {
      const argument = { uri: this.server.toUri(document.uri), range: plain(range) };
      const scope = await this.server.execute<EditScope>(SCOPE, argument);
      return { lines: touchedLines(toRange(scope.range)), kind: scope.kind, name: scope.name };
    }
    const isBlank = range.isEmpty && document.lineAt(range.start.line).isEmptyOrWhitespace;
    return { lines: touchedLines(range), kind: isBlank ? "insert" : range.isEmpty ? "line" : "selection", name: "" };
  }

  private async askFor(document: vscode.TextDocument, scope: Scope): Promise<string | undefined> {
    const range = wholeLines(document, scope.lines);
    const uri = this.server.toUri(document.uri);
    this.sessions.highlight(document, range);
    const warm = (instruction: string): void => {
      if (this.server.knows(WARM)) {
        const argument = { uri, range: plain(range), ...(instruction && { instruction }) };
        this.server.execute(WARM, argument).catch(() => undefined);
      }
    };
    try {
      const { version } = document;
      const instruction = await this.prompt.ask(promptTitle(scope), warm);
      if (instruction && version !== document.version) {
        void vscode.window.showWarningMessage(
          "Unmask: the text was changed while the instruction was typed. Start again.",
        );
        return undefined;
      }
      return instruction;
    } finally {
      this.sessions.highlight(document, undefined);
    }
  }

  private async mayReplace(present: EditSession | undefined): Promise<boolean> {
    if (!present) {
      return true;
    }
    if (present.phase !== "deciding") {
      void vscode.window.showInformationMessage(
        "Unmask: an edit of this file is being made. Wait for it or cancel it.",
      );
      return false;
    }
    const discard = "Reject it and go on";
    const answer = await vscode.window.showWarningMessage(
      "Unmask: an edit of this file waits for your decision.",
      discard,
    );
    if (answer === discard) {
      this.reject(present);
    }
    return answer === discard;
  }

  private async report(session: EditSession, message: string, level: "none" | "information" | "error"): Promise<void> {
    if (level === "none") {
      return;
    }
    const again = "Run again";
    const show = level === "error" ? vscode.window.showErrorMessage : vscode.window.showInformationMessage;
    if ((await show(`Unmask: ${message}`, again)) === again && !session.document.isClosed) {
      await this.rerun(session);
    }
  }
}

/** A selection would cover the preview: the cursor goes to the scope's first line. */
function collapseSelection({ document, range }: EditSession): void {
  const editor = vscode.window.activeTextEditor;
  if (editor?.document === document && !editor.selection.isEmpty) {
    editor.selection = new vscode.Selection(range.start, range.start);
  }
}

function promptTitle({ lines, kind, name }: Scope): string {
  const first = lines.first + 1;
  const where = lines.last > lines.first ? `lines ${first} to ${lines.last + 1}` : `line ${first}`;
  return kind === "insert" ? `Unmask: insert at line ${first}` : `Unmask: edit ${name ? `${name}, ` : ""}${where}`;
}

function given(range: vscode.Range): Scope {
  return { lines: touchedLines(range), kind: "selection", name: "" };
}

/** A range for the server: in JSON the editor's own class is something else. */
function plain({ start, end }: vscode.Range): EditScope["range"] {
  return {
    start: { line: start.line, character: start.character },
    end: { line: end.line, character: end.character },
  };
}

function toRange({ start, end }: EditScope["range"]): vscode.Range {
  return new vscode.Range(start.line, start.character, end.line, end.character);
}
