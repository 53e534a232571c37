import assert from "node:assert/strict";
import { test } from "node:test";
import { applyChanges, type Change, contentLines, descending, follow } from "../src/edit/lines";

const LINES = { first: 4, last: 6 };

function change(l1: number, c1: number, l2: number, c2: number, text: string): Change {
  return { range: { start: { line: l1, character: c1 }, end: { line: l2, character: c2 } }, text };
}

test("a change below leaves the lines where they are", () => {
  assert.deepEqual(follow(LINES, change(7, 0, 9, 2, "x\ny\nz\n")), LINES);
});

test("lines added and removed above move them", () => {
  assert.deepEqual(follow(LINES, change(1, 3, 1, 3, "\n\r\n")), { first: 6, last: 8 });
  assert.deepEqual(follow(LINES, change(0, 0, 2, 0, "")), { first: 2, last: 4 });
});

test("a whole line put directly above, and the line above taken away", () => {
  assert.deepEqual(follow(LINES, change(4, 0, 4, 0, "new\n")), { first: 5, last: 7 });
  assert.deepEqual(follow(LINES, change(3, 0, 4, 0, "")), { first: 3, last: 5 });
});

test("text put in front of the first line is inside", () => {
  assert.deepEqual(follow(LINES, change(4, 0, 4, 0, "x")), LINES);
  assert.deepEqual(follow(LINES, change(4, 0, 4, 0, "a\nx")), { first: 4, last: 7 });
});

test("the line above joined to the first one is inside", () => {
  assert.deepEqual(follow(LINES, change(3, 5, 4, 0, "")), { first: 3, last: 5 });
});

test("lines typed and deleted inside make them longer and shorter, and undoing that restores them", () => {
  const longer = follow(LINES, change(5, 2, 5, 2, "\n\n"));
  assert.deepEqual(longer, { first: 4, last: 8 });
  assert.deepEqual(follow(longer, change(5, 2, 7, 0, "")), LINES);
});

test("all of them deleted leaves one line", () => {
  assert.deepEqual(follow(LINES, change(4, 0, 7, 0, "")), { first: 4, last: 4 });
});

test("the line below joined to the last one is inside, and so is what is typed over both", () => {
  assert.deepEqual(follow(LINES, change(6, 9, 7, 0, "")), LINES);
  assert.deepEqual(follow(LINES, change(5, 2, 9, 3, "x")), { first: 4, last: 5 });
  assert.deepEqual(follow(LINES, change(5, 0, 9, 0, "")), { first: 4, last: 4 });
});

test("as many lines as before are the same ones, wherever the change begins and ends", () => {
  assert.deepEqual(follow(LINES, change(0, 0, 20, 0, "x\n".repeat(20))), LINES);
  assert.deepEqual(follow(LINES, change(2, 0, 5, 0, "x\n".repeat(3))), LINES);
});

test("several changes of one event, in any order", () => {
  const changes = [change(0, 0, 0, 0, "a\n"), change(9, 0, 9, 0, "b\n"), change(2, 0, 3, 0, "")];
  assert.deepEqual(descending(changes).reduce(follow, LINES), LINES);
  assert.deepEqual(descending([...changes].reverse()).reduce(follow, LINES), LINES);
});

test("hunks are applied to the text that they were made for, whatever its line ends", () => {
  const edits = [change(0, 0, 1, 0, "A\r\n"), change(2, 0, 2, 0, "new\r\n"), change(3, 0, 3, 1, "D")];
  assert.equal(applyChanges("a\r\nb\r\nc\r\nd", edits), "A\r\nb\r\nnew\r\nc\r\nD");
});

test("a line end at the end of a hunk is no line", () => {
  assert.deepEqual(contentLines("a\r\nb\r\n"), ["a", "b"]);
  assert.deepEqual(contentLines("a\n\n"), ["a", ""]);
  assert.deepEqual(contentLines(""), []);
});
