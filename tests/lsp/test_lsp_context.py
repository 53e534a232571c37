"""Context of other files in the requests of a real language-server process."""

import asyncio

from helpers.lsp_engine import TOKEN

SHAPES = "class Circle:\n    def area(self) -> float:\n        return 1.0\n"
MAIN = "from shapes import Circle\n\nc = Circle()\nx = \n"
SIGNATURES = "class Circle: ...\n    def area(self) -> float: ...\n"
ON = {"completion": {"context": {"declarations": True}}}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def shown(request):
    return {snippet.path: snippet.text for snippet in request.snippets}


async def ask_until(editor, engine, uri, matches):
    """Ask in ever new documents until a request shows what is expected: the index is read in the background."""
    for number in range(200):
        # Opened anew, snippets are chosen anew; with another text the engine has to be asked.
        editor.notify("textDocument/didClose", {"textDocument": {"uri": uri}})
        editor.open(MAIN.replace("x = ", f"x_{number:03} = "), uri=uri)
        await editor.inline(3, 8, uri=uri, invoked=True)
        if matches(shown(engine.asked[-1])):
            return engine.asked[-1]
        await asyncio.sleep(0.05)
    raise AssertionError(f"the last request showed {shown(engine.asked[-1])}")


async def test_nothing_of_other_files_is_shown_by_default(engine, connect, tmp_path):
    write(tmp_path, {"shapes.py": SHAPES, "main.py": MAIN})
    async with connect(folders=[tmp_path]) as editor:
        uri = (tmp_path / "main.py").as_uri()
        editor.open(MAIN, uri=uri)
        editor.open(SHAPES, uri=(tmp_path / "shapes.py").as_uri())
        await editor.inline(3, 4, uri=uri)
        assert engine.asked[0].snippets == ()


async def test_declarations_are_shown_and_follow_open_documents_and_files(engine, connect, tmp_path):
    write(tmp_path, {"shapes.py": SHAPES, "main.py": MAIN})
    async with connect(ON, folders=[tmp_path]) as editor:
        uri, shapes = (tmp_path / "main.py").as_uri(), (tmp_path / "shapes.py").as_uri()
        editor.open(MAIN, uri=uri)
        request = await ask_until(editor, engine, uri, lambda found: found == {"shapes.py": SIGNATURES})
        assert request.repository == tmp_path.name
        # An open document counts as it is in the editor.
        editor.open(SHAPES, uri=shapes)
        editor.change((1, 8), (1, 12), "size", uri=shapes)
        size = SIGNATURES.replace("area", "size")
        await ask_until(editor, engine, uri, lambda found: found == {"shapes.py": size})
        editor.notify("textDocument/didClose", {"textDocument": {"uri": shapes}})
        await ask_until(editor, engine, uri, lambda found: found == {"shapes.py": SIGNATURES})
        # A file that another program writes is noticed by the operating system: this editor does not watch files.
        write(tmp_path, {"shapes.py": SHAPES.replace("area", "width")})
        width = SIGNATURES.replace("area", "width")
        await ask_until(editor, engine, uri, lambda found: found == {"shapes.py": width})
        (tmp_path / "shapes.py").unlink()
        await ask_until(editor, engine, uri, lambda found: found == {})


async def test_an_editor_that_watches_files_tells_of_changes(engine, connect, tmp_path):
    write(tmp_path, {"shapes.py": SHAPES, "main.py": MAIN})
    async with connect(ON, folders=[tmp_path], file_watching=True) as editor:
        registered = await editor.wait_for(
            "client/registerCapability",
            lambda params: params["registrations"][0]["method"] == "workspace/didChangeWatchedFiles",
        )
        (watcher,) = registered["registrations"][0]["registerOptions"]["watchers"]
        assert "py" in watcher["globPattern"] and "rs" in watcher["globPattern"]
        uri = (tmp_path / "main.py").as_uri()
        editor.open(MAIN, uri=uri)
        await ask_until(editor, engine, uri, lambda found: found == {"shapes.py": SIGNATURES})
        write(tmp_path, {"shapes.py": SHAPES.replace("area", "width")})
        changes = [{"uri": (tmp_path / "shapes.py").as_uri(), "type": 2}]
        editor.notify("workspace/didChangeWatchedFiles", {"changes": changes})
        await ask_until(editor, engine, uri, lambda found: "width" in found.get("shapes.py", ""))
        write(tmp_path, {"shapes.py": SHAPES})
        editor.notify("textDocument/didSave", {"textDocument": {"uri": (tmp_path / "shapes.py").as_uri()}})
        await ask_until(editor, engine, uri, lambda found: "area" in found.get("shapes.py", ""))


async def test_ignored_files_are_never_shown(engine, connect, tmp_path):
    body = "def load_{0}(path):\n    rows = parse(path)\n    total = check(rows)\n    return validate(rows, total)\n"
    write(tmp_path, {".git/HEAD": "", ".gitignore": "private/\n", "private/shapes.py": SHAPES})
    settings = {"completion": {"context": {"declarations": True, "similar": True, "recentEdits": True}}}
    async with connect(settings, folders=[tmp_path]) as editor:
        for name in ("private/b.py", ".env.py"):
            other = (tmp_path / name).as_uri()
            editor.open(body.format("secret_thing"), uri=other)
            editor.change((0, 0), (0, 0), "# canary\n", uri=other)
        uri = (tmp_path / "main.py").as_uri()
        editor.open("from private.shapes import Circle\n" + body.format("orders") + "Circle\nx = \n", uri=uri)
        editor.change((0, 0), (0, 0), "\n", uri=uri)
        await asyncio.sleep(0.5)  # an index that read the file would have done so by now
        await editor.inline(7, 4, uri=uri, invoked=True)
        assert engine.asked[-1].prefix.endswith("x = ")
        assert engine.asked[-1].snippets == ()


async def test_similar_pieces_and_recent_edits_are_shown_in_their_order(engine, connect, tmp_path):
    body = "def load_{0}(path):\n    rows = parse(path)\n    total = check(rows)\n    return validate(rows, total)\n"
    settings = {"completion": {"context": {"similar": True, "recentEdits": True, "maxChars": 2000}}}
    async with connect(settings, folders=[tmp_path]) as editor:
        uri, other = (tmp_path / "main.py").as_uri(), (tmp_path / "b.py").as_uri()
        editor.open(body.format("users") + "\n" * 30, uri=other)
        editor.change((20, 0), (20, 0), "renamed = 1", uri=other)
        editor.open(body.format("orders") + "x = \n", uri=uri)
        editor.change((4, 0), (4, 1), "y", uri=uri)
        await editor.inline(4, 4, uri=uri, invoked=True)
        similar, edits = engine.asked[-1].snippets
        assert similar.path == "b.py" and "load_users" in similar.text
        assert edits.path == "recent changes.diff" and "+renamed = 1" in edits.text and "y =" not in edits.text
        # Typing on changes nothing before the file itself.
        editor.change((4, 4), (4, 4), "z + ", uri=uri)
        await editor.inline(4, 8, uri=uri, invoked=True)
        assert engine.asked[-1].snippets == (similar, edits)
        assert engine.asked[-1].prefix.endswith("y = z + ")


async def test_diagnostics_that_the_editor_showed_us_are_shown(engine, connect, tmp_path):
    async with connect({"completion": {"context": {"diagnostics": True}}}, folders=[tmp_path]) as editor:
        uri = (tmp_path / "main.py").as_uri()
        editor.open("total = summ([1, 2])\nx = \n", uri=uri)
        span = {"start": {"line": 0, "character": 8}, "end": {"line": 0, "character": 12}}
        context = {"diagnostics": [{"range": span, "message": "summ is not defined"}]}
        await editor.request(
            "textDocument/codeAction", {"textDocument": {"uri": uri}, "range": span, "context": context}
        )
        await editor.inline(1, 4, uri=uri)
        assert shown(engine.asked[0]) == {"problems.txt": "total = summ([1, 2])\n  summ is not defined"}


async def test_the_index_can_be_switched_on_and_off(engine, connect, tmp_path):
    write(tmp_path, {"shapes.py": SHAPES, "main.py": MAIN})
    async with connect(folders=[tmp_path]) as editor:
        uri = (tmp_path / "main.py").as_uri()
        editor.open(MAIN, uri=uri)
        own = {"engine": {"url": engine.url, "token": TOKEN}}
        editor.notify("workspace/didChangeConfiguration", {"settings": {"unmask": {**own, **ON}}})
        await ask_until(editor, engine, uri, lambda found: found == {"shapes.py": SIGNATURES})
        editor.notify("workspace/didChangeConfiguration", {"settings": {"unmask": own}})
        await ask_until(editor, engine, uri, lambda found: found == {})
