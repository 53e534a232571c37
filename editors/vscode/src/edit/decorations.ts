// How an edit looks in the text: its scope, the preview that sharpens in place, lines that go. Nothing enters the buffer.

import * as vscode from "vscode";
import type { EditPreview } from "../protocol";
import { splitLines } from "./lines";
import { lastLine } from "./places";
import { anchorLine, type EditSession, type Hunk, touchedLines } from "./session";

const color = (id: string): vscode.ThemeColor => new vscode.ThemeColor(id);
const create = (options: vscode.DecorationRenderOptions): vscode.TextEditorDecorationType =>
  vscode.window.createTextEditorDecorationType({
    rangeBehavior: vscode.DecorationRangeBehavior.ClosedClosed,
    ...options,
  });

/** A decoration for one line's start. */
type Mark = vscode.DecorationOptions;

export class EditDecorations implements vscode.Disposable {
  private readonly scope = create({
    isWholeLine: true,
    backgroundColor: color("editor.rangeHighlightBackground"),
    overviewRulerColor: color("editorOverviewRuler.rangeHighlightForeground"),
  });
  private readonly removed = create({
    isWholeLine: true,
    backgroundColor: color("diffEditor.removedLineBackground"),
    overviewRulerColor: color("editorOverviewRuler.deletedForeground"),
  });
  private readonly decided = create({ isWholeLine: true, opacity: "0.5" });
  private readonly note = create({ after: { margin: "0 0 0 3ch" } });
  private readonly hidden = create({ opacity: "0" });
  private readonly waiting = create({ opacity: "0.4" });
  private readonly settled = create({ before: { color: color("editor.foreground") } });
  private readonly unsettled = create({ after: { color: color("disabledForeground"), fontStyle: "italic" } });

  /** Highlights the lines that an edit would change. */
  showScope(editor: vscode.TextEditor, lines: vscode.Range | undefined): void {
    editor.setDecorations(this.scope, lines ? [lineRange(lines.start.line, touchedLines(lines).last)] : []);
  }

  /**
   * Draws the text so far over the scope's lines. Lines that are not made yet stay, faded.
   *
   * The result is the text that has no line to be drawn over.
   */
  showPreview(editor: vscode.TextEditor, session: EditSession, preview: EditPreview): Surplus {
    const { first, last } = session.currentLines;
    const rows = previewRows(preview);
    const tab = typeof editor.options.tabSize === "number" ? editor.options.tabSize : 4;
    const settled: Mark[] = [];
    const unsettled: Mark[] = [];
    const hidden: vscode.Range[] = [];
    for (const [index, row] of rows.slice(0, last - first + 1).entries()) {
      const line = first + index;
      const start = new vscode.Range(line, 0, line, 0);
      if (!row.unsettled && row.settled === editor.document.lineAt(line).text) {
        continue; // the same text in the colours of its language
      }
      hidden.push(editor.document.lineAt(line).range);
      settled.push({ range: start, renderOptions: { before: { contentText: visible(row.settled, tab) } } });
      unsettled.push({ range: start, renderOptions: { after: { contentText: visible(row.unsettled, tab) } } });
    }
    const done = first + rows.length;
    editor.setDecorations(this.hidden, hidden);
    editor.setDecorations(this.settled, settled);
    editor.setDecorations(this.unsettled, unsettled);
    editor.setDecorations(this.waiting, done <= last ? [lineRange(done, last)] : []);
    return surplus(rows.slice(last - first + 1));
  }

  /** Marks the lines that hunks take away, and what was decided. */
  showHunks(editor: vscode.TextEditor, session: EditSession): void {
    const open = session.hunks.filter(({ decision }) => decision === "open");
    const decided = session.hunks.filter(({ decision }) => decision !== "open");
    editor.setDecorations(this.removed, removedLines(open));
    editor.setDecorations(this.decided, removedLines(decided));
    editor.setDecorations(
      this.note,
      decided.map(({ range, decision }) => ({
        range: editor.document.lineAt(Math.min(anchorLine(range), editor.document.lineCount - 1)).range,
        renderOptions: {
          after: {
            contentText: decision === "accepted" ? "✓ change accepted" : "✗ change rejected",
            color: color(decision === "accepted" ? "charts.green" : "charts.red"),
          },
        },
      })),
    );
  }

  clearPreview(editor: vscode.TextEditor): void {
    for (const type of [this.hidden, this.waiting, this.settled, this.unsettled]) {
      editor.setDecorations(type, []);
    }
  }

  clear(editor: vscode.TextEditor): void {
    this.clearPreview(editor);
    for (const type of [this.scope, this.removed, this.decided, this.note]) {
      editor.setDecorations(type, []);
    }
  }

  dispose(): void {
    const preview = [this.hidden, this.waiting, this.settled, this.unsettled];
    for (const type of [this.scope, this.removed, this.decided, this.note, ...preview]) {
      type.dispose();
    }
  }
}

interface Row {
  readonly settled: string;
  readonly unsettled: string;
}

/** Text of a preview that does not fit over the scope's lines. */
export interface Surplus {
  readonly settled: string;
  readonly unsettled: string;
}

/** A preview line by line: at most one line is partly settled. */
function previewRows(preview: EditPreview): Row[] {
  const settled = splitLines(preview.settled);
  const [head = "", ...tail] = splitLines(preview.unsettled);
  const rows = settled.map((text, index) => ({ settled: text, unsettled: index === settled.length - 1 ? head : "" }));
  const all = [...rows, ...tail.map((text) => ({ settled: "", unsettled: text }))];
  const last = all.at(-1);
  return last && !last.settled && !last.unsettled ? all.slice(0, -1) : all;
}

function surplus(rows: readonly Row[]): Surplus {
  const firstUnsettled = rows.findIndex(({ unsettled }) => unsettled);
  const split = firstUnsettled < 0 ? rows.length : firstUnsettled;
  const text = ({ settled, unsettled }: Row): string => settled + unsettled;
  return { settled: rows.slice(0, split).map(text).join("\n"), unsettled: rows.slice(split).map(text).join("\n") };
}

function removedLines(hunks: readonly Hunk[]): vscode.Range[] {
  return hunks.filter(({ range }) => !range.isEmpty).map(({ range }) => lineRange(range.start.line, lastLine(range)));
}

function lineRange(first: number, last: number): vscode.Range {
  return new vscode.Range(first, 0, last, Number.MAX_SAFE_INTEGER);
}

/** Decorations collapse white space: spaces become such that do not. */
function visible(text: string, tabSize: number): string {
  return text.replaceAll("\t", " ".repeat(tabSize)).replaceAll(" ", "\u00a0");
}
