import assert from "node:assert/strict";
import { test } from "node:test";
import { type Given, typedThrough } from "../src/inline/typedThrough";

function give(before: string, after: string, insertText: string, replaced = 0): Given {
  return { text: before + after, start: before.length, end: before.length + replaced, insertText };
}

test("nothing typed: the whole suggestion", () => {
  assert.deepEqual(typedThrough(give("a = ", "\nb", "foo(x)"), "a = \nb", 4), {
    start: 4,
    end: 4,
    insertText: "foo(x)",
    taken: 0,
  });
});

test("a beginning typed stays in the range, so that the editor shows what follows it", () => {
  assert.deepEqual(typedThrough(give("a = ", "\nb", "foo(x)"), "a = fo\nb", 6), {
    start: 4,
    end: 6,
    insertText: "foo(x)",
    taken: 2,
  });
});

test("an auto-closed bracket right of the cursor is replaced", () => {
  assert.deepEqual(typedThrough(give("a = ", "\nb", "foo(x)"), "a = foo()\nb", 8), {
    start: 4,
    end: 9,
    insertText: "foo(x)",
    taken: 4,
  });
});

test("a closer that the suggestion does not have ends it", () => {
  assert.equal(typedThrough(give("a = ", "", "foo(x"), "a = foo()", 8), undefined);
});

test("other text ends it, before, in and behind the suggestion", () => {
  const given = give("a = ", "\nb", "foo(x)");
  assert.equal(typedThrough(given, "a = g\nb", 5), undefined);
  assert.equal(typedThrough(given, "z = f\nb", 5), undefined);
  assert.equal(typedThrough(given, "a = f\nc", 5), undefined);
  assert.equal(typedThrough(given, "a = foo(x)\nb", 10), undefined, "all of it typed");
  assert.equal(typedThrough(given, "a = fo\nb", 5), undefined, "the cursor went back");
});

test("a typed line break starts a new range", () => {
  const given = give("if x:", "\n", "\n    a()\n    b()");
  assert.deepEqual(typedThrough(given, "if x:\n    \n", 10), {
    start: 6,
    end: 10,
    insertText: "    a()\n    b()",
    taken: 5,
  });
  assert.deepEqual(typedThrough(give("x", "", "\r\ny"), "x\r\n", 3), { start: 3, end: 3, insertText: "y", taken: 2 });
});

test("closers that were there before are replaced as the server asked", () => {
  const given = give("print(", ")\n", "x)", 1);
  assert.deepEqual(typedThrough(given, "print(x)\n", 7), { start: 6, end: 8, insertText: "x)", taken: 1 });
});
