// The place of an edit's lines, from change to change: found again when their old text comes back, and known to be lost
// where the changed text no longer tells it. No editor needed: see test/anchor.test.ts.

import { breaks, type Change, descending, follow, keepsLineStart, type Lines, splitLines } from "./lines";

type LineAt = (line: number) => string | undefined;

export class Anchor {
  private known = true;
  private readonly block: readonly string[];
  /** The length of the last line: what was taken away up to there took all of it. */
  private lastLength: number;

  /** `text` is that of the whole lines. */
  constructor(
    private current: Lines,
    text: string,
  ) {
    this.block = splitLines(text).slice(0, current.last - current.first + 1);
    this.lastLength = this.block.at(-1)?.length ?? 0;
  }

  get lines(): Lines {
    return this.current;
  }

  /** Whether these are still the edit's lines, changed or not; otherwise `lines` is a guess. */
  get isKnown(): boolean {
    return this.known;
  }

  /** Follows the changes of one event; `lineAt` reads the document after them. */
  follow(changes: readonly Change[], lineAt: LineAt): void {
    for (const change of descending(changes)) {
      this.known = this.known && !loses(this.current, this.lastLength, change);
      this.current = this.known ? follow(this.current, change) : covering(this.current, change);
    }
    this.search(touched(changes), lineAt);
    this.lastLength = lineAt(this.current.last)?.length ?? 0;
  }

  /**
   * Looks for the old text where it could have come back: at the lines that were just changed, because a copy that
   * stood elsewhere all the time is another one. Away from where the lines were it has to be the only one.
   */
  private search(places: readonly Lines[], lineAt: LineAt): void {
    const { first, last } = this.current;
    if (this.isAt(first, lineAt) && (this.known || last - first + 1 === this.block.length)) {
      this.settle(first);
      return;
    }
    const found = new Set<number>();
    for (const place of places) {
      for (let line = Math.max(0, place.first - this.block.length + 1); line <= place.last; line++) {
        if (this.isAt(line, lineAt)) {
          found.add(line);
        }
      }
    }
    const [near, ...more] = [...found].filter((line) => line <= last && line + this.block.length > first);
    if (near !== undefined && more.length === 0) {
      this.settle(near);
      return;
    }
    const [only] = found;
    if (only !== undefined && !this.known && this.block.some((text) => text.trim()) && this.isUnique(lineAt)) {
      this.settle(only);
    }
  }

  private settle(first: number): void {
    this.current = { first, last: first + this.block.length - 1 };
    this.known = true;
  }

  private isAt(first: number, lineAt: LineAt): boolean {
    return this.block.every((text, index) => lineAt(first + index) === text);
  }

  private isUnique(lineAt: LineAt): boolean {
    let times = 0;
    for (let line = 0; lineAt(line) !== undefined && times < 2; line++) {
      times += this.isAt(line, lineAt) ? 1 : 0;
    }
    return times === 1;
  }
}

/**
 * Whether a change leaves nothing of the lines, or mixes some of them with others: then nothing tells where they end.
 * As many lines as before are taken for the same ones, which is what a formatter does.
 */
function loses({ first, last }: Lines, lastLength: number, change: Change): boolean {
  const { start, end } = change.range;
  const takesFirst = start.line < first || (start.line === first && start.character === 0);
  const takesLast = end.line > last || (end.line === last && end.character >= lastLength);
  const takesAll = takesFirst && takesLast;
  if (start.line >= first && (end.line <= last || (end.line === last + 1 && end.character === 0))) {
    return takesAll && end.line > last && !change.text.trim(); // an empty line that stays is still the place
  }
  const isBorder = end.line === first && end.character === 0;
  const isAbove = end.line < first || (isBorder && (keepsLineStart(change) || !takesAll));
  const numBreaks = breaks(change.text);
  return start.line <= last && !isAbove && numBreaks !== end.line - start.line && (takesAll || numBreaks > 0);
}

/** A guess at lines whose place is lost: where they were, with all that was put there. */
function covering(lines: Lines, { range: { start, end }, text }: Change): Lines {
  const delta = breaks(text) - (end.line - start.line);
  if (start.line > lines.last) {
    return lines;
  }
  if (end.line < lines.first) {
    return { first: lines.first + delta, last: lines.last + delta };
  }
  const first = Math.min(lines.first, start.line);
  return { first, last: Math.max(first, start.line + breaks(text), lines.last + delta) };
}

/** The lines that the changes of one event put there, in the document after all of them. */
function touched(changes: readonly Change[]): Lines[] {
  let shift = 0;
  return descending(changes)
    .reverse()
    .map(({ range: { start, end }, text }) => {
      const first = start.line + shift;
      shift += breaks(text) - (end.line - start.line);
      return { first, last: first + breaks(text) };
    });
}
