"""What is shown of other files: the index, what imports mean, likeness, edits, and the order of it all."""

import shutil
import time
from pathlib import Path

import pytest

from diffusion_core.requests import Snippet
from lsp_server.context.collector import DECLARED, DIAGNOSTICS, EDITS, SIMILAR, Block, ContextCollector, arrange
from lsp_server.context.declared import MAX_FILE_CHARACTERS, declared_files
from lsp_server.context.diagnostics import SeenDiagnostics
from lsp_server.context.ignore import IgnoreRules
from lsp_server.context.index import IndexLimits, WorkspaceIndex
from lsp_server.context.recent_edits import PAUSE_MS, RecentEdits
from lsp_server.context.similar import SimilarPieces
from lsp_server.positions import Encoding
from lsp_server.settings import ContextSettings
from lsp_server.snapshot import Point, Snapshot
from lsp_server.syntax import Trees, imports, names_in, parse
from lsp_server.text_sync import Document, split_lines


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def snapshot(text, uri="file:///w/main.py", language="python", version=1):
    lines = tuple(split_lines(text))
    return Snapshot(uri=uri, version=version, language=language, encoding=Encoding.UTF16, lines=lines)


@pytest.fixture
def make_index():
    made = []

    def make(folder, limits=None, ignore=None):
        index = WorkspaceIndex([folder], ignore or IgnoreRules(), limits)
        made.append(index)
        index.start()
        assert index.is_complete.wait(20)
        return index

    yield make
    for index in made:
        index.close()
        assert not index._thread.is_alive()


def wait_for(condition, timeout_s=10):
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


# The index


def test_the_index_reads_sources_and_leaves_out_what_is_ignored(tmp_path, make_index):
    write(
        tmp_path,
        {
            ".git/HEAD": "", ".gitignore": "generated/\n", "a.py": "def f(): pass\n",
            "pkg/b.ts": "export const b = 1;\n",
            "generated/c.py": "def g(): pass\n", "node_modules/d.js": "function h() {}\n", "notes.txt": "def no(): x\n",
            ".hidden/e.py": "x = 1\n", "big.py": "x = 1\n" * 100_000, "secrets.py": "KEY = 1\n",
        },
    )  # fmt: skip
    index = make_index(tmp_path, ignore=IgnoreRules(globs=("secrets.*",)))
    assert len(index) == 2
    assert [d.name for d in index.entry(tmp_path / "a.py").declared] == ["f"]
    assert index.entry(tmp_path / "pkg/b.ts").language == "typescript"


def test_the_index_keeps_to_its_limits(tmp_path, make_index):
    write(tmp_path, {f"f{number:02}.py": "x = 1\n" * 100 for number in range(20)})
    assert len(make_index(tmp_path, IndexLimits(max_files=5))) == 5
    assert len(make_index(tmp_path, IndexLimits(max_bytes=1500))) == 3
    assert len(make_index(tmp_path, IndexLimits(max_first_round_s=0))) == 0


def test_the_index_follows_changes(tmp_path, make_index):
    write(tmp_path, {"a.py": "def f(): pass\n"})
    index = make_index(tmp_path)
    write(tmp_path, {"a.py": "def g(): pass\n", "b.py": "def h(): pass\n"})
    index.note_change(tmp_path / "a.py")
    index.note_change(tmp_path / "b.py")
    wait_for(lambda: len(index) == 2 and index.entry(tmp_path / "a.py").declared[0].name == "g")
    (tmp_path / "a.py").unlink()
    index.note_change(tmp_path / "a.py")
    wait_for(lambda: len(index) == 1)
    assert index.ending_with("a.py") == []
    assert [entry.path.name for entry in index.ending_with("b.py")] == ["b.py"]


def test_an_index_that_reads_a_large_workspace_is_closed_at_once(tmp_path):
    write(tmp_path, {f"d{number}/f{number}.py": "def f(): pass\n" * 2000 for number in range(60)})
    index = WorkspaceIndex([tmp_path], IgnoreRules())
    index.start()
    begin = time.monotonic()
    index.close()
    assert time.monotonic() - begin < 3 and not index._thread.is_alive()


# What imports mean

CASES = {
    "python": (
        {"pkg/shapes.py": "class Circle:\n    def __init__(self, r: float): ...\n"
         "    def area(self) -> float:\n        return 1\ndef other(): pass\n",
         "pkg/__init__.py": "from .shapes import Circle\n", "pkg/tools.py": "def used(): pass\n"},
        "pkg/main.py",
        "from .shapes import Circle\nfrom pkg import tools\nimport os\nc = Circle(1).area()\ntools.used()\n",
        {"pkg/shapes.py": ["class Circle: ...", "    def __init__(self, r: float): ...",
                           "    def area(self) -> float: ..."],
         "pkg/tools.py": ["def used(): ..."]},
    ),
    "python through a package": (
        {"lib/core/deep.py": "def find(x: int) -> int: return x\n",
         "lib/__init__.py": "from lib.core.deep import find\n"},
        "app.py",
        "from lib import find\nfind(1)\n",
        {"lib/core/deep.py": ["def find(x: int) -> int: ..."]},
    ),
    "typescript": (
        {"src/model.ts": "export interface User { id: number }\nexport function load(id: number): User { return x; }\n",
         "src/util/index.ts": "export const clamp = (a: number) => { return a; };\n"},
        "src/main.ts",
        "import { load, User } from './model.js';\nimport * as util from './util';\n"
        "load(1); util.clamp(2); let u: User;\n",
        {"src/model.ts": ["export interface User { id: number }", "export function load(id: number): User { ... }"],
         "src/util/index.ts": ["export const clamp = (a: number) => { ... }"]},
    ),
    "go": (
        {"util/text.go": "package util\nfunc Trim(s string) string { return s }\n",
         "other.go": "package main\nfunc helper() {}\n"},
        "main.go",
        'package main\nimport "example.com/x/util"\nfunc main() { util.Trim("a"); helper() }\n',
        {"util/text.go": ["func Trim(s string) string { ... }"], "other.go": ["func helper() { ... }"]},
    ),
    "rust": (
        {"src/shape.rs": "pub struct Circle { pub r: f64 }\nimpl Circle { pub fn area(&self) -> f64 { 1.0 } }\n"},
        "src/main.rs",
        "use crate::shape::Circle;\nfn main() { let c = Circle { r: 1.0 }; c.area(); }\n",
        {"src/shape.rs": ["pub struct Circle { pub r: f64 }", "impl Circle { ... }",
                          "    pub fn area(&self) -> f64 { ... }"]},
    ),
    "java": (
        {"src/a/b/Shape.java": "package a.b;\npublic class Shape { public double area() { return 1; } }\n"},
        "src/a/c/Main.java",
        "package a.c;\nimport a.b.Shape;\nclass Main { double x = new Shape().area(); }\n",
        {"src/a/b/Shape.java": ["public class Shape { ... }", "    public double area() { ... }"]},
    ),
    "c": (
        {"include/list.h": "struct list { int n; };\nint list_size(struct list *l);\nint unused(void);\n"},
        "src/main.c",
        '#include "list.h"\nint main(void) { struct list l; return list_size(&l); }\n',
        {"include/list.h": ["struct list { int n; }", "int list_size(struct list *l);"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_declarations_of_what_is_imported_and_used(tmp_path, make_index, name):
    files, path, text, expected = CASES[name]
    write(tmp_path, {**files, path: text})
    language = {"typescript": "typescript"}.get(name, name.split()[0])
    tree = parse(text.split("\n"), language)
    found = declared_files(
        path=tmp_path / path, language=language, imported=imports(tree),
        used=names_in(tree.lines, 0, len(tree.lines)), index=make_index(tmp_path),
    )  # fmt: skip
    assert {str(file.path.relative_to(tmp_path)): file.text.splitlines() for file in found} == expected


def test_what_is_not_used_or_not_in_the_workspace_is_not_shown(tmp_path, make_index):
    write(tmp_path, {"a.py": "def ff(): pass\ndef gg(): pass\n"})
    tree = parse(["from a import ff, gg", "import os, numpy", "gg()"], "python")
    found = declared_files(
        path=tmp_path / "main.py", language="python", imported=imports(tree),
        used=names_in(tree.lines, 2, 3), index=make_index(tmp_path),
    )  # fmt: skip
    assert [file.text for file in found] == ["def gg(): ...\n"]


def test_a_large_file_is_shown_in_part(tmp_path, make_index):
    names = [f"function_with_a_long_name_{number}" for number in range(200)]
    write(tmp_path, {"a.py": "".join(f"def {name}(argument: int) -> int: pass\n" for name in names)})
    tree = parse(["from a import *", *names], "python")
    (file,) = declared_files(
        path=tmp_path / "main.py", language="python", imported=imports(tree),
        used=names_in(tree.lines, 0, 999), index=make_index(tmp_path),
    )  # fmt: skip
    assert MAX_FILE_CHARACTERS - 100 < len(file.text) <= MAX_FILE_CHARACTERS and file.text.endswith("...\n")


# Likeness

BODY = (
    "def load_{0}(path):\n    with open(path) as stream:\n        rows = parse_rows(stream)\n"
    "    return validate(rows)\n"
)


def test_the_likest_piece_of_other_documents_is_found():
    pieces = SimilarPieces()
    other = snapshot("\n" * 40 + BODY.format("users") + "\n" * 40 + "alpha = beta\n" * 20, uri="file:///w/b.py")
    unlike = snapshot(
        "import sys\nprint(sys.argv, flush=True, end='')\nclass X: a, b, c, d = range(4)\n", uri="file:///w/c.py"
    )
    lua = snapshot(BODY.format("users"), uri="file:///w/d.lua", language="lua")
    here = snapshot(BODY.format("orders"))
    (found,) = pieces.find(here, Point(3, 0), [here, other, unlike, lua])
    assert found.uri == "file:///w/b.py" and "load_users" in found.text and found.likeness > 0.5
    assert pieces.find(snapshot("x = 1\n"), Point(1, 0), [other]) == []


def test_a_changed_document_is_looked_at_again():
    pieces = SimilarPieces()
    here, uri = snapshot(BODY.format("orders")), "file:///w/b.py"
    assert pieces.find(here, Point(3, 0), [snapshot("nothing = 1\n", uri=uri)]) == []
    assert len(pieces.find(here, Point(3, 0), [snapshot(BODY.format("users"), uri=uri, version=2)])) == 1


def test_thousands_of_lines_are_compared_quickly():
    pieces = SimilarPieces()
    others = [snapshot((BODY.format(n) * 200), uri=f"file:///w/{n}.py") for n in range(10)]
    here = snapshot(BODY.format("orders"))
    pieces.find(here, Point(3, 0), others)
    times = []
    for _ in range(8):
        begin = time.perf_counter()
        assert len(pieces.find(here, Point(3, 0), others)) == 2
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.05


# Edits


def type_into(document, start, end, text):
    from lsprotocol.types import Position, Range, TextDocumentContentChangePartial

    old = document.snapshot()
    change = TextDocumentContentChangePartial(range=Range(start=Position(*start), end=Position(*end)), text=text)
    document.apply([change], document.version + 1)
    return old, document.snapshot()


def test_key_strokes_near_each_other_are_one_edit_and_the_present_one_is_left_out():
    text = "".join(f"line_{number} = {number}\n" for number in range(100))
    document = Document(uri="file:///w/a.py", version=1, language="python", text=text, encoding=Encoding.UTF16)
    edits, now = RecentEdits(), 0.0
    for count, character in enumerate("new_"):
        edits.note(*type_into(document, (10, count), (10, count), character), now := now + 100)
    edits.note(*type_into(document, (12, 0), (13, 0), ""), now := now + 100)
    assert edits.describe(now, lambda _: "a.py") == []
    edits.note(*type_into(document, (80, 0), (80, 0), "x"), now := now + 100)
    (found,) = edits.describe(now, lambda _: "a.py")
    assert found.splitlines() == ["a.py", " line_9 = 9", "-line_10 = 10", "+new_line_10 = 10", " line_11 = 11",
                                  "-line_12 = 12", " line_13 = 13"]  # fmt: skip
    assert len(edits.describe(now + PAUSE_MS, lambda _: "a.py")) == 2
    assert edits.describe(now, lambda _: None) == []


def test_an_edit_that_was_taken_back_or_is_a_paste_tells_nothing():
    document = Document(uri="file:///w/a.py", version=1, language="python", text="a\n", encoding=Encoding.UTF16)
    edits = RecentEdits()
    edits.note(*type_into(document, (0, 0), (0, 0), "x"), 0)
    edits.note(*type_into(document, (0, 0), (0, 1), ""), 10)
    edits.note(*type_into(document, (1, 0), (1, 0), "pasted\n" * 100), 10_000)
    assert edits.describe(99_999, lambda _: "a.py") == []


def test_diagnostics_are_those_of_the_version_and_near_the_cursor():
    seen, text = SeenDiagnostics(), snapshot("x = y\n" * 100)
    seen.note(text, [(3, "y is\nnot defined"), (90, "far away")])
    assert seen.describe(text, 5) == "x = y\n  y is not defined"
    assert seen.describe(snapshot("x = y\n" * 100, version=2), 5) == ""
    assert seen.describe(snapshot("", uri="file:///other"), 0) == ""


# Order


def block(key, kind=DECLARED, size=10, text=None):
    return Block(kind, key, Snippet(path="", text=text or key * size))


def test_blocks_that_stay_keep_their_place_and_new_ones_come_behind():
    old = (block("a"), block("b"), block("s", SIMILAR))
    assert arrange(old, [block("n"), block("b"), block("a")], 1000) == (block("a"), block("b"), block("n"))
    assert arrange(old, [block("b"), block("t", SIMILAR), block("s", SIMILAR)], 1000) == (
        block("b"), block("s", SIMILAR), block("t", SIMILAR))  # fmt: skip
    changed = block("a", text="other")
    assert arrange(old, [changed, block("b")], 1000) == (block("b"), changed)
    kinds = [block("d", DIAGNOSTICS), block("e", EDITS), block("s", SIMILAR), block("a")]
    assert [found.kind for found in arrange((), kinds, 1000)] == [DECLARED, SIMILAR, EDITS, DIAGNOSTICS]


def test_the_budget_goes_to_what_is_wanted_most():
    assert arrange((block("b", size=60),), [block("a", size=60), block("b", size=60), block("c", size=30)], 100) == (
        block("a", size=60), block("c", size=30))  # fmt: skip


def test_everything_is_off_by_default_and_then_costs_nothing(tmp_path):
    collector = ContextCollector(Trees(), lambda: pytest.fail("nothing is to be looked at"))
    collector.configure(ContextSettings(), [tmp_path], IgnoreRules())
    assert not collector.is_on and collector.index is None
    assert collector.snippets(snapshot("x = 1\n"), Point(0, 0)) == ()


def test_a_declaring_file_that_is_ignored_since_or_gone_is_not_shown(tmp_path):
    write(tmp_path, {".git/HEAD": "", "vault.py": 'API_KEY = "a-secret"\n', "pkg/other.py": "LIMIT = 3\n"})
    collector = ContextCollector(Trees(), list)
    collector.configure(ContextSettings(declarations=True), [tmp_path], IgnoreRules())
    assert collector.index is not None and collector.index.is_complete.wait(20)
    main = tmp_path / "main.py"
    here = snapshot("from vault import API_KEY\nfrom pkg.other import LIMIT\nx = API_KEY, LIMIT\n", uri=main.as_uri())
    assert {snippet.path for snippet in collector.snippets(here, Point(2, 0))} == {"vault.py", "pkg/other.py"}
    write(tmp_path, {".unmaskignore": "vault.py\n"})
    collector.note_file((tmp_path / ".unmaskignore").as_uri())
    assert {snippet.path for snippet in collector.snippets(here, Point(2, 0))} == {"pkg/other.py"}
    shutil.rmtree(tmp_path / "pkg")
    collector.note_file((tmp_path / ".unmaskignore").as_uri())
    assert collector.snippets(here, Point(2, 0)) == ()
    collector.close()


def test_snippets_stand_still_while_the_cursor_stays_in_its_region(tmp_path):
    others = [snapshot(BODY.format("users"), uri=(tmp_path / "b.py").as_uri())]
    collector = ContextCollector(Trees(), lambda: others)
    collector.configure(ContextSettings(similar=True), [tmp_path], IgnoreRules())
    here = snapshot(BODY.format("orders"), uri=(tmp_path / "a.py").as_uri())
    first = collector.snippets(here, Point(3, 0))
    assert [snippet.path for snippet in first] == ["b.py"]
    others[:] = [snapshot(BODY.format("x") * 9, uri=(tmp_path / "b.py").as_uri(), version=2)]
    assert collector.snippets(here, Point(4, 0)) == first
    far = snapshot("\n" * 50 + BODY.format("orders"), uri=here.uri)
    assert collector.snippets(far, Point(53, 0), may_choose=False) == first
    assert collector.snippets(far, Point(53, 0)) != first
    collector.close()
