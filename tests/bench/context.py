"""Does context of other files help? Holes cut from a repository that has tests, through a real language server.

    python -m bench.context --repository DIR --sources 'pkg/*.py' --tests 'python -m pytest -q tests/test_x.py' \\
        --limit 20 --kinds none declarations similar --out OUT.json

A hole is a line inside of a function that uses a name which its file imports from the same repository: the lines where
other files could matter. For each kind of context every hole is asked once, with the line removed and nothing else.
Two figures a kind: exact matches (the line as it was), and holes after which the repository's tests still pass. The
repository is copied first and its tests must pass there before anything is cut; a hole that they do not notice (they
pass with the line removed) is not counted. The command runs in the copy, without a shell.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from helpers.lsp_client import EditorClient, open_editor

from diffusion_core.config import ClientConfig
from diffusion_core.net.launcher import LocalEngine, connect
from lsp_server.context.source_files import LANGUAGE_OF
from lsp_server.syntax import imports, names_in, parse
from lsp_server.syntax.tree import ancestors

KINDS = {"declarations": "declarations", "similar": "similar", "recent_edits": "recentEdits"}
MIN_LINE = 12  # characters: shorter lines say little
INDEX_WAIT_S = 10.0  # a few hundred files, with room for a busy machine
TEST_TIMEOUT_S = 300


@dataclass(frozen=True)
class Hole:
    """A line of a file, counted from 0."""

    path: Path
    line: int
    text: str


def find_holes(root: Path, sources: list[str]) -> Iterator[Hole]:
    """Lines of function bodies that use a name imported from the repository itself."""
    files = sorted({path for pattern in sources for path in root.glob(pattern) if path.suffix in LANGUAGE_OF})
    modules = {part for path in root.rglob("*.py") for part in path.relative_to(root).with_suffix("").parts}
    for path in files:
        lines = path.read_text(encoding="utf-8").split("\n")
        tree = parse(lines, LANGUAGE_OF[path.suffix])
        if tree is None:
            continue
        own = {
            found.alias for found in imports(tree)
            if found.module.startswith(".") or found.module.split(".")[0] in modules
        }  # fmt: skip
        for number, line in enumerate(lines):
            column = len(line) - len(line.lstrip())
            offset = sum(len(each.encode()) + 1 for each in lines[:number]) + column
            node = tree.root.descendant_for_byte_range(offset, offset)
            is_statement = node is not None and node.type not in {"comment", "string", "string_content"}
            in_function = any(around.type in tree.kinds.functions for around in ancestors(node))
            uses_own = bool(own & names_in(lines, number, number + 1).keys())
            if uses_own and len(line.strip()) >= MIN_LINE and column and is_statement and in_function:
                yield Hole(path.relative_to(root), number, line)


def tests_pass(root: Path, command: list[str]) -> bool:
    """Whether the tests pass in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=TEST_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def put(root: Path, hole: Hole, line: str | None) -> None:
    """Write the hole's file with another line, or without it."""
    path = root / hole.path
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[hole.line : hole.line + 1] = [] if line is None else line.split("\n")
    path.write_text("\n".join(lines), encoding="utf-8")


async def ask(editor: EditorClient, root: Path, hole: Hole) -> str:
    """The line that the ghost text makes of the hole; the indentation alone if there is none."""
    path = root / hole.path
    indent = hole.text[: len(hole.text) - len(hole.text.lstrip())]
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[hole.line] = indent
    uri = path.as_uri()
    editor.open("\n".join(lines), uri=uri, language=LANGUAGE_OF[path.suffix])
    items = await editor.inline(hole.line, len(indent), uri=uri, invoked=True)
    editor.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
    return indent + (items[0]["insertText"] if items else "")


async def answers(root: Path, holes: list[Hole], kinds: list[str]) -> tuple[list[str], list[float]]:
    """Lines for all holes with some kinds of context, and the milliseconds each took."""
    context = {KINDS[kind]: True for kind in kinds if kind != "none"}
    completion = {"multiLine": "never", "deadlineMs": 120_000, "alternatives": 1, "warmAhead": False}
    found, times = [], []
    async with open_editor(env={"UNMASK_STATE_DIR": os.environ["UNMASK_STATE_DIR"]}) as editor:
        await editor.initialize({"completion": {**completion, "context": context}}, folders=[root])
        await editor.wait_for_status("ready", timeout_s=120)
        await asyncio.sleep(INDEX_WAIT_S)
        if "similar" in kinds:
            for path in sorted({hole.path for hole in holes}):
                text = (root / path).read_text(encoding="utf-8")
                editor.open(text, uri=(root / path).as_uri(), language=LANGUAGE_OF[path.suffix])
        for hole in holes:
            begin = asyncio.get_running_loop().time()
            found.append(await ask(editor, root, hole))
            times.append((asyncio.get_running_loop().time() - begin) * 1000)
        await editor.shut_down()
    return found, times


async def stop_engine() -> None:
    """End the engine that the language servers started."""
    client = connect(ClientConfig())
    if isinstance(client, LocalEngine):
        await client.stop()
    await client.aclose()


def measure(
    repository: Path, sources: list[str], tests: str, limit: int, seed: int, kinds: list[str]
) -> dict[str, Any]:
    """Answers, matches and test results by kind of context."""
    command = shlex.split(tests)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["UNMASK_STATE_DIR"] = str(Path(folder) / "state")
        root = Path(folder) / repository.resolve().name
        ignored = shutil.ignore_patterns(".git", ".venv", "node_modules", "__pycache__")
        shutil.copytree(repository, root, ignore=ignored)
        if not tests_pass(root, command):
            raise SystemExit(f"the tests do not pass in a copy of {repository}: {tests}")
        candidates = list(find_holes(root, sources))
        random.Random(seed).shuffle(candidates)
        holes: list[Hole] = []
        for hole in candidates:
            if len(holes) == limit:
                break
            put(root, hole, None)
            if not tests_pass(root, command):
                holes.append(hole)
            path = root / hole.path
            path.write_bytes((repository / hole.path).read_bytes())
        report: dict[str, Any] = {"repository": repository.name, "n": len(holes), "candidates": len(candidates)}
        for kind in kinds:
            texts, times = asyncio.run(answers(root, holes, [kind]))
            items = []
            for hole, text in zip(holes, texts, strict=True):
                is_exact = text.rstrip() == hole.text.rstrip()
                put(root, hole, text)
                items.append({"hole": f"{hole.path}:{hole.line + 1}", "exact": is_exact,
                              "passes": is_exact or tests_pass(root, command), "answer": text})  # fmt: skip
                (root / hole.path).write_bytes((repository / hole.path).read_bytes())
            report[kind] = {
                "exact": sum(item["exact"] for item in items), "passes": sum(item["passes"] for item in items),
                "median_ms": round(median(times)) if times else 0, "items": items,
            }  # fmt: skip
        asyncio.run(stop_engine())
    return report


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, type=Path)
    parser.add_argument("--sources", required=True, nargs="+", help="globs below the repository")
    parser.add_argument("--tests", required=True, help="the command that runs the tests")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=["none", *KINDS], default=["none", "declarations", "similar"])
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    report = measure(args.repository, args.sources, args.tests, args.limit, args.seed, args.kinds)
    args.out.write_text(json.dumps(report, indent=1), encoding="utf-8")
    for kind in args.kinds:
        print(kind, {key: value for key, value in report[kind].items() if key != "items"}, "of", report["n"])


if __name__ == "__main__":
    main()
