// What of a suggestion is still to come after the user typed into it. No editor needed: see test/typedThrough.test.ts.

/** A suggestion as the server gave it: `insertText` for the text from `start` to `end` of `text`. */
export interface Given {
  readonly text: string;
  readonly start: number;
  readonly end: number;
  readonly insertText: string;
}

/** The same suggestion at a later moment: `insertText` replaces `start` to `end` of the present text. */
export interface Rest {
  readonly start: number;
  readonly end: number;
  readonly insertText: string;
  /** How much of the first suggestion stands in the text, in UTF-16 units. */
  readonly taken: number;
}

/**
 * Follows a suggestion through typing: undefined if the present text is not the old one with a beginning of the
 * suggestion typed at its place, or if nothing is left to show.
 *
 * Right of the cursor may stand what the editor put there by itself, closing brackets and quotes: they are replaced.
 */
export function typedThrough(given: Given, text: string, cursor: number): Rest | undefined {
  const head = given.text.slice(0, given.start);
  const tail = given.text.slice(given.end);
  const end = text.length - tail.length;
  if (cursor < given.start || end < cursor || !text.startsWith(head) || !text.endsWith(tail)) {
    return undefined;
  }
  const typed = text.slice(given.start, cursor);
  const right = text.slice(cursor, end);
  const isClosers = /^[)\]}>"'`]*$/.test(right) && isSubsequence(right, given.insertText.slice(typed.length));
  const same = given.text.slice(given.start, given.end);
  if (
    !given.insertText.startsWith(typed) ||
    given.insertText.length === typed.length ||
    !(isClosers || right === same)
  ) {
    return undefined;
  }
  const lineStart = Math.max(typed.lastIndexOf("\n"), typed.lastIndexOf("\r")) + 1;
  // A range may not span lines: what was typed on earlier lines is cut off.
  return { start: given.start + lineStart, end, insertText: given.insertText.slice(lineStart), taken: typed.length };
}

/** Whether the characters of `part` come in `whole` in this order: then the editor can show the rest between them. */
function isSubsequence(part: string, whole: string): boolean {
  let at = 0;
  for (const character of part) {
    at = whole.indexOf(character, at) + 1;
    if (at === 0) {
      return false;
    }
  }
  return true;
}
