// A diff by lines, as an edit sharpens.

/** Pairs of equal lines that make the longest common subsequence. */
function common(a, b) {
  let first = 0;
  while (first < a.length && first < b.length && a[first] === b[first]) first += 1;
  let last = 0;
  while (last < a.length - first && last < b.length - first && a[a.length - 1 - last] === b[b.length - 1 - last]) last += 1;
  const rows = a.length - first - last;
  const columns = b.length - first - last;
  const best = Array.from({ length: rows + 1 }, () => new Uint16Array(columns + 1));
  for (let i = rows - 1; i >= 0; i -= 1) {
    for (let j = columns - 1; j >= 0; j -= 1) {
      best[i][j] = a[first + i] === b[first + j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    }
  }
  const pairs = [];
  for (let k = 0; k < first; k += 1) pairs.push([k, k]);
  for (let i = 0, j = 0; i < rows && j < columns;) {
    if (a[first + i] === b[first + j]) pairs.push([first + i++, first + j++]);
    else if (best[i + 1][j] >= best[i][j + 1]) i += 1;
    else j += 1;
  }
  for (let k = last; k > 0; k -= 1) pairs.push([a.length - k, b.length - k]);
  return pairs;
}

/** Lines in order: `{kind: "same" | "gone" | "added", text, line}`; `line` counts the lines of the new text. */
export function diffLines(old, fresh) {
  const a = old.split("\n");
  const b = fresh.split("\n");
  const lines = [];
  let i = 0;
  let j = 0;
  for (const [x, y] of [...common(a, b), [a.length, b.length]]) {
    for (; i < x; i += 1) lines.push({ kind: "gone", text: a[i] });
    for (; j < y; j += 1) lines.push({ kind: "added", text: b[j], line: j });
    if (x < a.length) lines.push({ kind: "same", text: a[x], line: y });
    i = x + 1;
    j = y + 1;
  }
  return lines;
}
