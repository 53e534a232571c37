import assert from "node:assert/strict";
import { test } from "node:test";
import { Anchor } from "../src/edit/anchor";
import { applyChanges, type Change, splitLines } from "../src/edit/lines";

const NUM_LINES = 40;
const TEXT = Array.from({ length: NUM_LINES }, (_, number) => `line ${number}\n`).join("");
const LINES = { first: 10, last: 20 };

function change(l1: number, c1: number, l2: number, c2: number, text: string): Change {
  return { range: { start: { line: l1, character: c1 }, end: { line: l2, character: c2 } }, text };
}

/** A document, the lines of an edit in it, and the editor's undo. */
class Edited {
  readonly anchor: Anchor;
  private readonly undone: Change[] = [];

  constructor(
    private text = TEXT,
    lines = LINES,
  ) {
    this.anchor = new Anchor(lines, between(text, change(lines.first, 0, lines.last + 1, 0, "")));
  }

  make(made: Change): this {
    const { start } = made.range;
    const added = splitLines(made.text);
    const tail = added.at(-1)?.length ?? 0;
    const end = {
      line: start.line + added.length - 1,
      character: added.length > 1 ? tail : start.character + tail,
    };
    this.undone.push({ range: { start, end }, text: between(this.text, made) });
    this.text = applyChanges(this.text, [made]);
    const lines = splitLines(this.text);
    this.anchor.follow([made], (line) => lines[line]);
    return this;
  }

  undo(): this {
    const last = this.undone.pop();
    assert.ok(last);
    this.make(last);
    this.undone.pop();
    return this;
  }
}

function between(text: string, { range }: Change): string {
  const before = applyChanges(text, [{ range: { start: { line: 0, character: 0 }, end: range.start }, text: "" }]);
  const after = applyChanges(text, [{ range: { start: { line: 0, character: 0 }, end: range.end }, text: "" }]);
  return before.slice(0, before.length - after.length);
}

const ACROSS: readonly [string, Change, boolean][] = [
  ["Backspace before the first line", change(9, 6, 10, 0, ""), true],
  ["Delete behind the last line", change(20, 7, 21, 0, ""), true],
  ["the first lines deleted", change(10, 0, 13, 0, ""), true],
  ["the last lines deleted", change(17, 0, 21, 0, ""), true],
  ["a part deleted with what stands above", change(7, 0, 13, 0, ""), true],
  ["a part typed over with what stands below", change(15, 3, 25, 2, "x"), true],
  ["a part replaced by several lines with what stands above", change(7, 0, 13, 0, "a\nb\n"), false],
  ["all of them deleted", change(10, 0, 21, 0, ""), false],
  ["all of them deleted, and the end of the line above", change(9, 6, 20, 7, ""), false],
  ["all of them deleted with others", change(5, 0, 25, 0, ""), false],
  ["all of them replaced with others", change(5, 0, 25, 0, "a\nb\n"), false],
  ["the whole document replaced", change(0, 0, NUM_LINES, 0, "a\nb\n"), false],
];

for (const [what, made, isKnown] of ACROSS) {
  test(`${what}: undoing it brings the lines back`, () => {
    const edited = new Edited().make(made);
    assert.equal(edited.anchor.isKnown, isKnown);
    edited.undo();
    assert.deepEqual(edited.anchor.lines, LINES);
    assert.equal(edited.anchor.isKnown, true);
  });

  test(`${what}, then others typed above: undoing both brings the lines back`, () => {
    const edited = new Edited()
      .make(made)
      .make(change(1, 0, 1, 0, "above\n\n"))
      .undo()
      .undo();
    assert.deepEqual(edited.anchor.lines, LINES);
    assert.equal(edited.anchor.isKnown, true);
  });
}

test("what is left of the lines after a change across their border", () => {
  assert.deepEqual(new Edited().make(change(9, 6, 10, 0, "")).anchor.lines, { first: 9, last: 19 });
  assert.deepEqual(new Edited().make(change(20, 7, 21, 0, "")).anchor.lines, LINES);
  assert.deepEqual(new Edited().make(change(17, 0, 21, 0, "")).anchor.lines, { first: 10, last: 16 });
});

test("a formatter that replaces more than the lines by as many keeps them", () => {
  const { anchor } = new Edited().make(change(5, 0, 25, 0, "formatted\n".repeat(20)));
  assert.deepEqual(anchor.lines, LINES);
  assert.equal(anchor.isKnown, true);
});

test("lines cut and put elsewhere are found there", () => {
  const block = Array.from({ length: 11 }, (_, number) => `line ${10 + number}\n`).join("");
  const { anchor } = new Edited().make(change(10, 0, 21, 0, "")).make(change(25, 0, 25, 0, block));
  assert.deepEqual(anchor.lines, { first: 25, last: 35 });
});

test("a copy that stands elsewhere is not taken for the lines", () => {
  const text = "def f():\n    pass\n\ndef f():\n    pass\n\n";
  const edited = new Edited(text, { first: 0, last: 1 }).make(change(0, 0, 2, 0, ""));
  assert.equal(edited.anchor.isKnown, false);
  edited.make(change(4, 0, 4, 0, "x = 1\n"));
  assert.equal(edited.anchor.isKnown, false);
  edited.undo().undo();
  assert.deepEqual(edited.anchor.lines, { first: 0, last: 1 });
  assert.deepEqual(new Edited(text, { first: 0, last: 1 }).make(change(1, 4, 1, 4, "x")).anchor.lines, {
    first: 0,
    last: 1,
  });
});

test("a blank line is found again where it was, and no other is taken for it", () => {
  const edited = new Edited("a\n\nb\n\nc\n", { first: 1, last: 1 }).make(change(0, 1, 1, 0, ""));
  assert.equal(edited.anchor.isKnown, false);
  edited.make(change(3, 1, 3, 1, "\n\n"));
  assert.equal(edited.anchor.isKnown, false);
  edited.undo().undo();
  assert.deepEqual(edited.anchor.lines, { first: 1, last: 1 });
});

test("lines at the end of a document without a last line end", () => {
  const edited = new Edited("a\nb\nc", { first: 1, last: 2 }).make(change(0, 1, 2, 1, ""));
  assert.equal(edited.anchor.isKnown, false);
  edited.undo();
  assert.deepEqual(edited.anchor.lines, { first: 1, last: 2 });
});
