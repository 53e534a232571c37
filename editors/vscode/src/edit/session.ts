// One edit from the instruction to the decision: where its lines are now, its hunks, and what was decided about them.

import * as vscode from "vscode";
import type { EditAnswer, ScopeKind } from "../protocol";
import { Anchor } from "./anchor";
import { applyChanges, type Change, contentLines, type Lines } from "./lines";
import { changeAt, lastLine, neighbour, type Place, placesAfter } from "./places";

export type Phase = "running" | "deciding" | "applying";
/** The document itself, or the text that it would become, which a diff shows beside it. */
export type Side = "original" | "proposed";
export type Decision = "open" | "accepted" | "rejected";

/** The lines that an edit may change. */
export interface Scope {
  readonly lines: Lines;
  readonly kind: ScopeKind;
  readonly name: string;
}

/** One changed place: these lines of the document become `text`. */
export interface Hunk {
  /** In the document as it is now. */
  readonly range: vscode.Range;
  readonly text: string;
  readonly decision: Decision;
}

interface Proposed {
  readonly range: vscode.Range;
  readonly text: string;
}

export class EditSession {
  readonly cancellation = new vscode.CancellationTokenSource();
  readonly original: string;
  phase: Phase = "running";
  answer: EditAnswer | undefined;
  private readonly anchor: Anchor;
  private readonly firstLine: number;
  private proposed: readonly Proposed[] = [];
  private decisions: Decision[] = [];

  constructor(
    readonly editId: string,
    readonly document: vscode.TextDocument,
    readonly scope: Scope,
    readonly instruction: string,
    /** The ready edit that this one refines; it stays valid until this one is ready. */
    readonly refined?: EditSession,
  ) {
    this.firstLine = scope.lines.first;
    this.original = document.getText(wholeLines(document, scope.lines));
    this.anchor = new Anchor(scope.lines, this.original);
  }

  /** The scope's whole lines, as the server is asked for them, where they are now. */
  get range(): vscode.Range {
    return wholeLines(this.document, this.anchor.lines);
  }

  get currentLines(): Lines {
    return this.anchor.lines;
  }

  /** Whether nothing of the scope is left, or its place is not known. Undoing the change undoes this too. */
  get isGone(): boolean {
    const isBlank = this.original.trim() !== "" && this.document.getText(this.range).trim() === "";
    return this.document.isClosed || !this.anchor.isKnown || isBlank;
  }

  /** All that was asked for, the first instruction first: this one's alone unless it refines another edit. */
  get instructions(): readonly string[] {
    return [...(this.refined?.instructions ?? []), this.instruction];
  }

  /** Whether the text of the scope is not the one that the edit was made from. Undoing the change undoes this too. */
  get isStale(): boolean {
    return this.document.isClosed || this.document.getText(this.range) !== this.original;
  }

  get hunks(): readonly Hunk[] {
    const shift = this.anchor.lines.first - this.firstLine;
    return this.proposed.map((hunk, index) => ({
      range: moved(hunk.range, shift),
      text: hunk.text,
      decision: this.decisions[index] ?? "open",
    }));
  }

  get numOpen(): number {
    return this.decisions.filter((decision) => decision === "open").length;
  }

  /** The numbers of the hunks that are wanted, as the server counts them. */
  get accepted(): readonly number[] {
    return this.decisions.flatMap((decision, index) => (decision === "accepted" ? [index] : []));
  }

  follow(changes: readonly Change[]): void {
    const { document } = this;
    this.anchor.follow(changes, (line) => (line < document.lineCount ? document.lineAt(line).text : undefined));
  }

  /** Takes the server's answer. Its ranges belong to the version asked about; the lines may have moved since. */
  offer(answer: EditAnswer): void {
    this.answer = answer;
    this.proposed = answer.edits.map(({ range: { start, end }, newText }) => ({
      range: new vscode.Range(start.line, start.character, end.line, end.character),
      text: newText,
    }));
    this.decisions = this.proposed.map(() => "open");
    this.phase = "deciding";
  }

  decide(index: number, decision: Decision): void {
    if (index in this.decisions) {
      this.decisions[index] = decision;
    }
  }

  decideOpen(decision: Decision): void {
    this.decisions = this.decisions.map((present) => (present === "open" ? decision : present));
  }

  /** The hunk to act on at a line of one side: the one there, else the next open one, else the last open one. */
  hunkAt(line: number, side: Side): number | undefined {
    return found(changeAt(this.places(side), (index) => this.decisions[index] === "open", line));
  }

  /** The open hunk after or before a line of one side, round the end. */
  neighbour(line: number, step: 1 | -1, side: Side): number | undefined {
    return found(neighbour(this.places(side), (index) => this.decisions[index] === "open", line, step));
  }

  /** Where the hunks are on one side, with the present decisions. */
  places(side: Side): readonly Place[] {
    return side === "original"
      ? this.hunks.map(({ range }) => range)
      : placesAfter(this.hunks.map((hunk) => ({ ...hunk, isIn: hunk.decision !== "rejected" })));
  }

  /** The whole document with every hunk that was not rejected. */
  proposedText(): string {
    return applyChanges(
      this.document.getText(),
      this.hunks.filter(({ decision }) => decision !== "rejected"),
    );
  }
}

/** From the first column of the first line to the start of the line after the last one, or the document's end. */
export function wholeLines(document: vscode.TextDocument, lines: Lines): vscode.Range {
  const end = lines.last + 1 < document.lineCount ? new vscode.Position(lines.last + 1, 0) : endOf(document);
  return new vscode.Range(new vscode.Position(Math.max(0, lines.first), 0), end);
}

/** The lines that a range touches; one that ends before the first column of a line does not touch it. */
export function touchedLines(range: vscode.Range): Lines {
  return { first: range.start.line, last: Math.max(range.start.line, lastLine(range)) };
}

/** How many lines a hunk takes away and how many it puts there. */
export function sizeOf(hunk: Hunk): { readonly removed: number; readonly added: number } {
  return {
    removed: hunk.range.isEmpty ? 0 : lastLine(hunk.range) - hunk.range.start.line + 1,
    added: contentLines(hunk.text).length,
  };
}

/** The line that a hunk's new text is shown below: the last one that goes, or the one above an insertion. */
export function anchorLine(range: vscode.Range): number {
  return range.isEmpty ? Math.max(0, range.start.line - 1) : lastLine(range);
}

function found(index: number): number | undefined {
  return index < 0 ? undefined : index;
}

function endOf(document: vscode.TextDocument): vscode.Position {
  return document.lineAt(document.lineCount - 1).range.end;
}

function moved(range: vscode.Range, shift: number): vscode.Range {
  const line = (position: vscode.Position): vscode.Position => position.translate(Math.max(shift, -position.line));
  return shift ? new vscode.Range(line(range.start), line(range.end)) : range;
}
