// Things to try. `‸` is the cursor; two of them are a selection.

export const SAMPLES = [
  {
    name: "Python: a function from its docstring", mode: "complete", language: "python",
    text: 'def binary_search(items: list[int], wanted: int) -> int | None:\n    """The index of `wanted` in the sorted `items`, or None."""\n    low, high = 0, len(items) - 1\n    ‸\n\n\nprint(binary_search([1, 3, 5, 8, 13], 8))\n',
  },
  {
    name: "Python: repetitive code (drafts shine)", mode: "complete", language: "python",
    text: 'class Point:\n    def __init__(self, x: float, y: float, z: float) -> None:\n        self.x = x\n        self.y = y\n        self.z = z\n\n    def __add__(self, other: "Point") -> "Point":\n        return Point(self.x + other.x, self.y + other.y, self.z + other.z)\n\n    def __sub__(self, other: "Point") -> "Point":\n        ‸\n',
  },
  {
    name: "JavaScript: a hole in the middle", mode: "complete", language: "javascript",
    text: 'export function debounce(run, waitMs) {\n  let timer = 0;\n  return (...given) => {\n    ‸\n  };\n}\n',
  },
  {
    name: "Rust: the rest of a match", mode: "complete", language: "rust",
    text: 'enum Shape {\n    Circle { radius: f64 },\n    Rectangle { width: f64, height: f64 },\n}\n\nfn area(shape: &Shape) -> f64 {\n    match shape {\n        Shape::Circle { radius } => ‸\n    }\n}\n',
  },
  {
    name: "Edit: add types and a docstring", mode: "edit", language: "python", instruction: "Add type hints and a one-line docstring.",
    text: 'import math\n\n\n‸def distance(a, b):\n    dx = a[0] - b[0]\n    dy = a[1] - b[1]\n    return math.sqrt(dx * dx + dy * dy)\n‸',
  },
  {
    name: "Edit: rename a variable", mode: "edit", language: "python", instruction: "Rename `res` to `totals`.",
    text: '‸def count_words(lines):\n    res = {}\n    for line in lines:\n        for word in line.split():\n            res[word] = res.get(word, 0) + 1\n    return res\n‸',
  },
];

/** Text without its marks, and where they were. */
export function unmark(text) {
  const start = text.indexOf("‸");
  const plain = text.replaceAll("‸", "");
  const end = text.lastIndexOf("‸") - (text.indexOf("‸") === text.lastIndexOf("‸") ? 0 : 1);
  return { text: plain, start: Math.max(0, start), end: Math.max(0, end) };
}
