"""Notebook cells through a real language-server process: sync, and the cells above as context."""

import random

import pytest
from helpers.lsp_client import ReferenceBuffer, wait_until

NOTEBOOK = "file:///project/analysis.ipynb"


class NotebookEditor:
    """The client's side of one notebook: a list of cells, each (URI, language), with buffers in the editor."""

    def __init__(self, editor, cells):
        self.editor = editor
        self.version = 1
        self.next_number = 0
        self.cells = [self.make(language, text) for language, text in cells]
        editor.notify(
            "notebookDocument/didOpen",
            {
                "notebookDocument": {
                    "uri": NOTEBOOK, "notebookType": "jupyter-notebook", "version": 1,
                    "cells": [self.cell(uri) for uri, _ in self.cells],
                },
                "cellTextDocuments": [self.item(uri) for uri, _ in self.cells],
            },
        )  # fmt: skip

    def make(self, language, text):
        self.next_number += 1
        uri = f"vscode-notebook-cell:/project/analysis.ipynb#W{self.next_number}sZmlsZQ%3D%3D"
        self.editor.buffers[uri] = ReferenceBuffer(text, self.editor.encoding)
        self.editor.versions[uri] = 1
        self.editor.languages = {**getattr(self.editor, "languages", {}), uri: language}
        return uri, language

    def cell(self, uri):
        return {"kind": 1 if self.editor.languages[uri] == "markdown" else 2, "document": uri}

    def item(self, uri):
        language, text = self.editor.languages[uri], self.editor.buffers[uri].text
        return {"uri": uri, "languageId": language, "version": self.editor.versions[uri], "text": text}

    def change(self, cells):
        self.version += 1
        document = {"uri": NOTEBOOK, "version": self.version}
        self.editor.notify("notebookDocument/didChange", {"notebookDocument": document, "change": {"cells": cells}})

    def splice(self, start, num_deleted, new=(), *, opened=(), closed=()):
        self.cells[start : start + num_deleted] = new
        array = {"start": start, "deleteCount": num_deleted, "cells": [self.cell(uri) for uri, _ in new]}
        structure = {"array": array}
        if opened:
            structure["didOpen"] = [self.item(uri) for uri in opened]
        if closed:
            structure["didClose"] = [{"uri": uri} for uri in closed]
        self.change({"structure": structure})

    def insert(self, at, language, text):
        new = self.make(language, text)
        self.splice(at, 0, [new], opened=[new[0]])

    def delete(self, at):
        uri, _ = self.cells[at]
        self.splice(at, 1, closed=[uri])

    def move(self, source, target):
        """As VS Code says it: one cell goes, the same one comes; its document stays open."""
        moved = self.cells[source]
        self.splice(source, 1)
        self.splice(target, 0, [moved])

    def type(self, at, start, end, text):
        uri, _ = self.cells[at]
        self.editor.buffers[uri].replace(start, end, text)
        self.editor.versions[uri] += 1
        span = {"start": {"line": start[0], "character": start[1]}, "end": {"line": end[0], "character": end[1]}}
        document = {"uri": uri, "version": self.editor.versions[uri]}
        self.change({"textContent": [{"document": document, "changes": [{"range": span, "text": text}]}]})

    def text(self, at):
        return self.editor.buffers[self.cells[at][0]].text

    def expected_prefix(self, at):
        """What the model is to read before the end of a cell, put together anew from the client's buffers."""
        language = self.cells[at][1]
        above = ["\n".join(_without_blank_end(self.text(n))) for n in range(at) if self.cells[n][1] == language]
        return "".join(f"{text}\n\n" for text in above if text) + self.text(at)

    async def ask(self, at):
        last = self.text(at).split("\n")[-1]
        place = (self.text(at).count("\n"), len(last.encode("utf-16-le")) // 2)
        return await self.editor.inline(*place, invoked=True, uri=self.cells[at][0])

    async def check_prefix(self, engine, at):
        """The engine is asked with the cells as they are; or it was asked so before, and its answer is kept."""
        num_asked, expected = len(engine.asked), self.expected_prefix(at)
        await self.ask(at)
        if len(engine.asked) > num_asked:
            assert engine.asked[-1].prefix == expected
        else:
            assert any(request.prefix == expected for request in engine.asked)
        return expected


def _without_blank_end(text):
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


CELLS = [
    ("python", "import os\n"),
    ("markdown", "# Load"),
    ("python", "def load(path):\n    return open(path)"),
    ("python", "   \n"),
    ("sql", "SELECT 1"),
    ("python", "data = "),
    ("python", "print(data)"),
]


async def test_notebooks_are_announced_to_clients_that_have_them(connect):
    async with connect(notebooks=True) as editor:
        assert editor.capabilities["notebookDocumentSync"] == {"notebookSelector": [{"notebook": "*"}], "save": False}
    async with connect() as editor:
        assert "notebookDocumentSync" not in editor.capabilities


async def test_the_cells_above_of_the_same_language_are_part_of_the_prefix(engine, connect):
    engine.completions = {"data = ": "load('x')"}
    async with connect(notebooks=True) as editor:
        notebook = NotebookEditor(editor, CELLS)
        (item,) = await notebook.ask(5)
        assert item["insertText"] == "load('x')"
        assert item["range"]["start"] == item["range"]["end"] == {"line": 0, "character": 7}
        (request,) = engine.asked
        assert request.prefix == "import os\n\ndef load(path):\n    return open(path)\n\ndata = "
        assert (request.suffix, request.language) == ("", "python")
        assert request.path == "project/analysis.ipynb"
        await notebook.ask(4)
        assert engine.asked[-1].prefix == "SELECT 1"


async def test_inserted_deleted_moved_and_changed_cells(engine, connect):
    async with connect(notebooks=True) as editor:
        notebook = NotebookEditor(editor, CELLS)

        async def check(at):
            return await notebook.check_prefix(engine, at)

        notebook.insert(3, "python", "limit = 5\n")
        assert "limit = 5\n\ndata" in await check(6)
        notebook.delete(2)
        assert "def load" not in await check(5)
        notebook.move(0, 5)
        assert "import os" not in await check(4)
        assert (await check(6)).count("import os") == 1
        notebook.type(1, (0, 8), (0, 9), "😀7")
        notebook.type(1, (0, 10), (0, 11), "8")
        assert "limit = 😀8\n\n" in await check(6)
        notebook.insert(0, "python", "first = True")
        assert (await check(7)).startswith("first = True\n\nlimit")


@pytest.mark.parametrize("seed", range(4))
async def test_any_sequence_of_changes_keeps_server_and_client_alike(engine, connect, seed):
    rng = random.Random(seed)
    async with connect(notebooks=True) as editor:
        notebook = NotebookEditor(editor, CELLS)
        for step in range(60):
            num_cells = len(notebook.cells)
            match rng.choice(["insert", "delete", "move", "type", "type"]):
                case "insert":
                    language = rng.choice(["python", "python", "markdown"])
                    notebook.insert(rng.randint(0, num_cells), language, f"value_{step} = {step}\n")
                case "delete" if num_cells > 2:
                    notebook.delete(rng.randrange(num_cells))
                case "move":
                    notebook.move(rng.randrange(num_cells), rng.randrange(num_cells))
                case "type":
                    at = rng.randrange(num_cells)
                    start = (rng.randint(0, 2), rng.randint(0, 8))
                    end = (start[0] + rng.randint(0, 1), start[1] + rng.randint(0, 3))
                    notebook.type(at, start, end, rng.choice(["x", "", "a\nb", "\n", "😀"]))
            at = rng.randrange(len(notebook.cells))
            text = notebook.text(at)
            if not text.strip():
                continue
            await notebook.check_prefix(engine, at)


async def test_an_edit_of_a_cell(engine, connect):
    engine.edits = {"close it": "with open(path) as file:\n    return file.read()\n"}
    async with connect(notebooks=True) as editor:
        notebook = NotebookEditor(editor, CELLS)
        uri, _ = notebook.cells[2]
        where = {"start": {"line": 1, "character": 4}, "end": {"line": 1, "character": 4}}
        scope = await editor.execute("unmask.editScope", {"uri": uri, "range": where})
        assert (scope["kind"], scope["name"]) == ("definition", "load")
        await editor.execute("unmask.warmEdit", {"uri": uri, "range": where})
        await wait_until(lambda: engine.warmed)
        answer = await editor.execute(
            "unmask.edit", {"uri": uri, "version": 1, "range": where, "instruction": "close it", "apply": False}
        )
        assert (answer["status"], answer["uri"], answer["version"]) == ("ready", uri, 1)
        assert engine.asked_edits[0].before == engine.warmed[0].edit.before == "import os\n\ndef load(path):\n"
        notebook.type(2, (0, 0), (0, 0), "# top\n")
        notebook.type(0, (0, 0), (0, 0), "import sys\n")
        answer = await editor.execute("unmask.acceptEdit", {"editId": answer["editId"]})
        assert (answer["status"], answer["version"]) == ("applied", 2)
        expected = "# top\ndef load(path):\n    with open(path) as file:\n        return file.read()"
        assert notebook.text(2) == expected
        found = await editor.request(
            "textDocument/codeAction", {"textDocument": {"uri": uri}, "range": where, "context": {"diagnostics": []}}
        )
        assert {action["command"]["arguments"][0]["version"] for action in found} == {3}


async def test_a_window_of_the_cells_above_begins_at_whole_lines_and_keeps_its_start(engine, connect):
    async with connect({"completion": {"maxPrefixChars": 400}}, notebooks=True) as editor:
        notebook = NotebookEditor(editor, [("python", f"value_{n} = {n}\n" * 3) for n in range(40)] + [("python", "x")])
        starts = set()
        for count in range(20):
            notebook.type(40, (0, 1 + count), (0, 1 + count), "y")
            await notebook.ask(40)
            prefix = engine.asked[-1].prefix
            assert len(prefix) <= 400 and notebook.expected_prefix(40).endswith(prefix)
            starts.add(prefix[:20])
        assert len(starts) == 1 and next(iter(starts)).startswith(("value", "\n"))


async def test_closing_and_unknown_notebooks(engine, connect):
    async with connect(notebooks=True) as editor:
        notebook = NotebookEditor(editor, CELLS)
        notebook.editor.notify(
            "notebookDocument/didClose",
            {"notebookDocument": {"uri": NOTEBOOK}, "cellTextDocuments": [{"uri": uri} for uri, _ in notebook.cells]},
        )
        assert await notebook.ask(5) == []
        assert (await editor.execute("unmask.status"))["lastReason"] == "not_open"
        notebook.type(5, (0, 0), (0, 0), "x")  # of a notebook that is closed: logged, nothing else
        assert await notebook.ask(5) == []
        again = NotebookEditor(editor, CELLS[:1] + CELLS[5:6])
        await again.ask(1)
        assert engine.asked[-1].prefix == "import os\n\ndata = "
