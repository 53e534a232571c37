"""Statistics out of a real session, and the command that shows them."""

import asyncio
import sys
import time

import pytest
from helpers.lsp_client import URI, open_editor, wait_until
from helpers.lsp_engine import TOKEN
from helpers.unmask_process import Unmask

from lsp_server.stats.records import DROP, EDIT, LATENCY, Count, Fate
from lsp_server.stats.store import FILE_NAME, Store

SECRET = "s3cret_value"


@pytest.fixture
def unmask(tmp_path):
    """The command line, whose state folder the language servers of these tests share."""
    (tmp_path / "state").mkdir()
    return Unmask(tmp_path)


@pytest.fixture
def session(connect, tmp_path):
    def session(settings=None, **fields):
        return connect(settings, env={"UNMASK_STATE_DIR": str(tmp_path / "state")}, **fields)

    return session


async def accept(editor, item, line, column):
    editor.change((line, column), (line, column), item["insertText"])
    await editor.execute(item["command"]["command"], *item["command"]["arguments"])


async def test_a_session_is_recorded_without_code_or_paths(engine, session, unmask):
    engine.completions = {"x = ": f"{SECRET} + 1", "y = ": f"{SECRET} + 2"}
    engine.edits = {f"use {SECRET}": f"x = {SECRET}\n"}
    async with session() as editor:
        editor.open("x = \ny = \nprivate_name\n")
        (item,) = await editor.inline(0, 4)
        await accept(editor, item, 0, 4)
        (item,) = await editor.inline(1, 4)
        assert await editor.inline(2, 3) == []  # inside of a word
        line = {"start": {"line": 1, "character": 0}, "end": {"line": 1, "character": 4}}
        await editor.execute("unmask.edit", {"uri": URI, "range": line, "instruction": f"use {SECRET}"})
    stored = (unmask.folder / "state" / FILE_NAME).read_bytes()
    for private in (SECRET, "private_name", "main.py", "project", "file:"):
        assert private.encode() not in stored

    report = unmask.run("stats", "--json").json
    figures = report["suggestions"]
    assert (figures["offered"], figures["shown"], figures["accepted"]) == (2, 2, 1)
    assert figures["charactersAccepted"] == len(f"{SECRET} + 1") and figures["acceptedOfShown"] == 0.5
    assert figures["survived30s"] == {"known": 0, "survived": 0, "rate": None}
    assert report["droppedBecause"] == {"inside_word": 1}
    assert report["edits"] == {"applied": 1}
    assert list(report["byLanguage"]) == ["python"]
    phases = {(one["task"], one["phase"]): one["n"] for one in report["latenciesMs"]}
    for phase in ("debounce", "queue", "prefill", "denoise", "roundtrip", "postprocess"):
        assert phases["complete", phase] >= 2
    assert phases["edit", "roundtrip"] == 1
    shown = unmask.run("stats").out.decode()
    for expected in ("1 50%", "inside_word", "applied", "roundtrip", "p95"):
        assert expected in shown


async def test_what_an_editor_tells_of_its_suggestions(engine, session, unmask):
    engine.completions = {f"x{n} = ": f"alpha{n} + beta" for n in range(5)}
    async with session() as editor:
        editor.open("".join(f"x{n} = \n" for n in range(5)))
        ids = []
        for line in range(5):
            (item,) = await editor.inline(line, 5)
            ids.append(item["command"]["arguments"][0]["id"])
            if line < 4:
                editor.notify("$/unmask/didShow", {"id": ids[-1]})
        editor.notify("$/unmask/didPartiallyAccept", {"id": ids[1], "acceptedLength": 6})
        editor.notify("$/unmask/didPartiallyAccept", {"id": ids[1], "acceptedLength": 9})
        editor.notify("$/unmask/didDismiss", {"id": ids[2]})
        for params in ({"id": "unknown"}, {"id": 5}, {}, None, [], {"id": ids[0], "acceptedLength": "x"}):
            for name in ("didShow", "didPartiallyAccept", "didDismiss"):
                if params != {"id": ids[0], "acceptedLength": "x"} or name == "didPartiallyAccept":
                    editor.notify(f"$/unmask/{name}", params)
    figures = unmask.run("stats", "--json").json["suggestions"]
    assert (figures["offered"], figures["shown"], figures["accepted"]) == (5, 4, 0)
    assert (figures["partlyAccepted"], figures["dismissed"], figures["charactersAccepted"]) == (1, 1, 9)


async def test_two_servers_add_to_the_same_figures(engine, session, unmask):
    engine.completions = {f"x{n} = ": f"{n} + {n}" for n in range(10)}

    async def work(uri):
        async with session() as editor:
            editor.open("".join(f"x{n} = \n" for n in range(10)), uri=uri)
            for line in range(10):
                assert len(await editor.inline(line, 5, uri=uri)) == 1

    await asyncio.gather(work("file:///a.py"), work("file:///b.py"))
    assert unmask.run("stats", "--json").json["suggestions"]["offered"] == 20


async def test_switched_off_means_no_file(engine, session, unmask):
    engine.completions = {"x = ": "1"}
    async with session({"stats": {"enabled": False}}) as editor:
        editor.open("x = \n")
        (item,) = await editor.inline(0, 4)
        await accept(editor, item, 0, 4)
    assert not (unmask.folder / "state" / FILE_NAME).exists()
    done = unmask.run("stats")
    assert done.code == 0 and b"Nothing was recorded in the last 30d" in done.out


async def test_a_crash_loses_at_most_the_last_seconds(engine, unmask):
    engine.completions = {"x = ": "1"}
    store = Store(unmask.folder / "state" / FILE_NAME)
    async with open_editor(env={"UNMASK_STATE_DIR": str(store.path.parent)}) as editor:
        await editor.initialize({"engine": {"url": engine.url, "token": TOKEN}})
        await editor.wait_for_status("ready")
        editor.open("x = \n")
        await editor.inline(0, 4)
        await wait_until(store.fates, 15)
        editor.process.kill()
        await editor.process.wait()
    assert len(store.fates()) == 1


@pytest.mark.slow
async def test_survival_after_half_a_minute(engine, session, unmask):
    engine.completions = {"x = ": "alpha + beta", "y = ": "gamma"}
    store = Store(unmask.folder / "state" / FILE_NAME)
    async with session() as editor:
        editor.open("x = \ny = \n")
        (item,) = await editor.inline(0, 4)
        await accept(editor, item, 0, 4)
        (item,) = await editor.inline(1, 4)
        await accept(editor, item, 1, 4)
        editor.change((0, 0), (0, 0), "# above\n")
        editor.change((1, 11), (1, 16), "Beta!")
        editor.change((2, 4), (2, 9), "")
        await asyncio.sleep(31)
        await wait_until(lambda: [one for one in store.fates() if one.kept_soon is not None], 12)
    kept = {one.num_chars: one.kept_soon for one in store.fates()}
    assert 0.8 <= kept[12] < 1 and kept[5] == 0
    report = unmask.run("stats", "--json").json["suggestions"]["survived30s"]
    assert report == {"known": 2, "survived": 1, "rate": 0.5}


# The command


def fill(unmask):
    store, now = Store(unmask.folder / "state" / FILE_NAME), time.time()
    fates = [
        Fate(
            id=f"{n}", time=now - 86_400 * (n % 5), language=("python", "go")[n % 2], model="m", num_chars=20,
            num_lines=1, is_shown=n % 3 != 0, is_accepted=n % 4 == 1, num_accepted=20 if n % 4 == 1 else 0,
            kept_soon=0.9 if n % 4 == 1 else None,
        )
        for n in range(40)
    ]  # fmt: skip
    hour = int(now // 3600)
    counts = {Count(hour, LATENCY, f"complete.{phase}", 80): 10 for phase in ("queue", "prefill", "denoise")}
    store.write(fates, {**counts, Count(hour, DROP, "inside_word"): 9, Count(hour - 200, EDIT, "ready"): 2})


def test_since_tables_and_charts(unmask):
    fill(unmask)
    report = unmask.run("stats", "--json", "--since", "7d").json
    assert report["suggestions"]["offered"] == 40 and report["edits"] == {}
    assert unmask.run("stats", "--json", "--since", "2w").json["edits"] == {"ready": 2}
    recent = unmask.run("stats", "--json", "--since", "30h").json
    assert recent["suggestions"]["offered"] == 16 and len(recent["byDay"]) in (2, 3)
    assert report["latenciesMs"][0] == {"task": "complete", "phase": "queue", "n": 10, "p50": 49.56, "p95": 49.56}
    for wrong in ("7", "d", "-7d", "1y"):
        done = unmask.run("stats", f"--since={wrong}")
        message = " ".join(done.err.replace("│", " ").split())
        assert done.code == 2 and f"--since is '{wrong}'" in message and "for instance 7d" in message
    shown = unmask.run("stats").out.decode()
    assert "python" in shown and "go" in shown and "█" in shown and "Taken per day" in shown

    picture = unmask.folder / "charts.png"
    done = unmask.run("stats", "--plot", picture)
    assert done.code == 0 and picture.read_bytes().startswith(b"\x89PNG") and str(picture) in done.err
    assert list(unmask.folder.glob("*.png")) == [picture]
    for wrong, message in (("a.svg", "must end with .png"), ("no/a.png", "No such file or directory")):
        done = unmask.run("stats", "--plot", unmask.folder / wrong)
        assert done.code == 1 and message in done.err


def test_charts_without_matplotlib_say_what_is_missing(unmask):
    (unmask.folder / "matplotlib.py").write_text("raise ImportError('not installed')\n")
    paths = f"{unmask.folder}:{':'.join(path for path in sys.path if path)}"
    process = unmask.start("stats", "--plot", "x.png", PYTHONPATH=paths)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and b"pip install matplotlib" in err


def test_a_damaged_file_is_explained(unmask):
    path = unmask.folder / "state" / FILE_NAME
    path.write_bytes(b"no database" * 500)
    done = unmask.run("stats")
    assert done.code == 1 and "Delete the file to begin anew" in done.err and "Traceback" not in done.err
