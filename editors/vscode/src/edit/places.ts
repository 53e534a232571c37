// Where the changes of an edit are, in the document and in the text that it would become: the two count lines
// differently from the first change on. No editor needed: see test/places.test.ts.

import type { Change } from "./lines";

export type Place = Change["range"];

/** A change, and whether the other text has it: one that was rejected keeps its old lines there. */
export interface Choice extends Change {
  readonly isIn: boolean;
}

/** Where each change is in the text that has the chosen ones; `choices` are sorted and do not overlap. */
export function placesAfter(choices: readonly Choice[]): Place[] {
  let shift = 0;
  return choices.map(({ range: { start, end }, text, isIn }) => {
    const first = { line: start.line + shift, character: start.character };
    if (!isIn) {
      return { start: first, end: { line: end.line + shift, character: end.character } };
    }
    const lines = text.split(/\r\n|\r|\n/);
    const tail = lines.at(-1)?.length ?? 0;
    const breaks = lines.length - 1;
    shift += breaks - (end.line - start.line);
    const character = breaks > 0 ? tail : start.character + tail;
    return { start: first, end: { line: first.line + breaks, character } };
  });
}

/** The last line that a place touches; one that ends before the first column of a line does not touch it. */
export function lastLine({ start, end }: Place): number {
  return end.character === 0 && end.line > start.line ? end.line - 1 : end.line;
}

/** The change to act on at a line: the one there, else the next open one, else the last open one. */
export function changeAt(places: readonly Place[], isOpen: (index: number) => boolean, line: number): number {
  const here = places.findIndex((place) => line >= place.start.line && line <= lastLine(place));
  if (here >= 0) {
    return here;
  }
  const next = places.findIndex((place, index) => isOpen(index) && place.start.line >= line);
  return next >= 0 ? next : places.findLastIndex((_, index) => isOpen(index));
}

/** The open change after or before a line, round the end; -1 if none is open. */
export function neighbour(
  places: readonly Place[],
  isOpen: (index: number) => boolean,
  line: number,
  step: 1 | -1,
): number {
  if (step === 1) {
    const next = places.findIndex((place, index) => isOpen(index) && place.start.line > line);
    return next >= 0 ? next : places.findIndex((_, index) => isOpen(index));
  }
  const previous = places.findLastIndex((place, index) => isOpen(index) && place.start.line < line);
  return previous >= 0 ? previous : places.findLastIndex((_, index) => isOpen(index));
}
