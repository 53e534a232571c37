// Where an edit's lines are while the document changes around them. No editor needed: see test/lines.test.ts.

/** Lines `first` to `last`, both included, 0-based. */
export interface Lines {
  readonly first: number;
  readonly last: number;
}

/** One replacement in a document, as editors report it: a range of the old text and what is there now. */
export interface Change {
  readonly range: {
    readonly start: { readonly line: number; readonly character: number };
    readonly end: { readonly line: number; readonly character: number };
  };
  readonly text: string;
}

/**
 * The same lines after a change. A change above moves them, one below leaves them; one inside of them (or across their
 * border) makes them longer or shorter, so that they can be compared with what stood there before.
 */
export function follow(lines: Lines, change: Change): Lines {
  const { start, end } = change.range;
  const delta = breaks(change.text) - (end.line - start.line);
  if (start.line > lines.last) {
    return lines;
  }
  const keepsEnd = keepsLineStart(change);
  const isAbove = end.line < lines.first || (end.line === lines.first && keepsEnd);
  if (isAbove && (end.line < lines.first || start.line < lines.first || change.text !== "")) {
    return { first: lines.first + delta, last: lines.last + delta };
  }
  if (delta === 0) {
    return lines;
  }
  const first = Math.min(lines.first, start.line);
  // What is joined to the last line from below belongs to it; a line below that stays whole does not.
  const newLast = start.line + breaks(change.text) - (keepsEnd ? 1 : 0);
  return { first, last: Math.max(first, end.line > lines.last ? newLast : lines.last + delta) };
}

/** Whether the line that a change ends before is whole and starts a line afterwards too. */
export function keepsLineStart({ range: { start, end }, text }: Change): boolean {
  return end.character === 0 && (start.character === 0 ? /(^|[\r\n])$/ : /[\r\n]$/).test(text);
}

/** The changes of one event from the end of the document to its beginning: none moves what is still to come. */
export function descending(changes: readonly Change[]): Change[] {
  return [...changes].sort(
    (a, b) => b.range.start.line - a.range.start.line || b.range.start.character - a.range.start.character,
  );
}

/** How many line ends a text has. */
export function breaks(text: string): number {
  return text.match(/\r\n|\r|\n/g)?.length ?? 0;
}

/** The lines of a text without their ends; `\n`, `\r\n` and `\r` end a line. */
export function splitLines(text: string): string[] {
  return text.split(/\r\n|\r|\n/);
}

/** The lines of a hunk's text: what follows its last line end is no line of its own. */
export function contentLines(text: string): string[] {
  const lines = splitLines(text);
  return lines.at(-1) === "" ? lines.slice(0, -1) : lines;
}

/** A text with some of its whole-line replacements made; `edits` are sorted and do not overlap. */
export function applyChanges(text: string, edits: readonly Change[]): string {
  const starts = lineStarts(text);
  const offset = (position: { line: number; character: number }): number =>
    Math.min(text.length, (starts[position.line] ?? text.length) + position.character);
  let result = "";
  let done = 0;
  for (const edit of edits) {
    result += text.slice(done, offset(edit.range.start)) + edit.text;
    done = offset(edit.range.end);
  }
  return result + text.slice(done);
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (const match of text.matchAll(/\r\n|\r|\n/g)) {
    starts.push(match.index + match[0].length);
  }
  return starts;
}
