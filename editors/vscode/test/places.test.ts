import assert from "node:assert/strict";
import { test } from "node:test";
import { applyChanges, splitLines } from "../src/edit/lines";
import { type Choice, changeAt, neighbour, placesAfter } from "../src/edit/places";

const ALL_OPEN = (): boolean => true;
const TEN = "new\n".repeat(10);

function choice(first: number, end: number, text: string, isIn = true): Choice {
  return { range: { start: { line: first, character: 0 }, end: { line: end, character: 0 } }, text, isIn };
}

test("a line of the proposed text belongs to the change whose text it is", () => {
  const choices = [choice(5, 5, TEN), choice(12, 13, "changed\n")];
  const before = choices.map(({ range }) => range);
  const after = placesAfter(choices);
  assert.equal(changeAt(before, ALL_OPEN, 12), 1);
  assert.equal(changeAt(after, ALL_OPEN, 12), 0);
  assert.equal(changeAt(after, ALL_OPEN, 22), 1);
  assert.deepEqual(
    after.map(({ start }) => start.line),
    [5, 22],
  );
});

test("a rejected change has its old lines in the proposed text", () => {
  const after = placesAfter([choice(5, 7, TEN, false), choice(12, 13, "changed\n")]);
  assert.equal(changeAt(after, ALL_OPEN, 6), 0);
  assert.equal(changeAt(after, ALL_OPEN, 12), 1);
});

test("removed lines move what follows up", () => {
  const after = placesAfter([choice(2, 6, ""), choice(12, 13, "one\ntwo\n")]);
  assert.equal(changeAt(after, ALL_OPEN, 2), 0);
  assert.equal(changeAt(after, ALL_OPEN, 9), 1);
});

test("the places are where the text really is, at the document's end too", () => {
  const text = "a\nb\nc\nd";
  const choices = [
    choice(0, 0, "x\ny\n"),
    { range: { start: { line: 3, character: 0 }, end: { line: 3, character: 1 } }, text: "D\nE", isIn: true },
  ];
  const [first, second] = placesAfter(choices);
  const lines = splitLines(applyChanges(text, choices));
  assert.deepEqual(lines.slice(first?.start.line, first?.end.line), ["x", "y"]);
  assert.deepEqual(second, { start: { line: 5, character: 0 }, end: { line: 6, character: 1 } });
  assert.deepEqual(lines.slice(5, 7), ["D", "E"]);
});

test("going round the open ones", () => {
  const places = placesAfter([choice(5, 5, TEN), choice(12, 13, "changed\n"), choice(20, 21, "")]);
  assert.equal(neighbour(places, ALL_OPEN, 5, 1), 1);
  assert.equal(neighbour(places, ALL_OPEN, 30, 1), 0);
  assert.equal(neighbour(places, ALL_OPEN, 5, -1), 2);
  assert.equal(
    neighbour(places, (index) => index !== 1, 5, 1),
    2,
  );
  assert.equal(
    neighbour(places, () => false, 5, 1),
    -1,
  );
  assert.equal(
    changeAt(places, (index) => index === 0, 40),
    0,
  );
});
