"""The default way of a user: no URL, a local engine that the server starts by itself, with a tiny random model."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest
from helpers.lsp_client import URI, EditorClient, open_editor, wait_until
from helpers.lsp_engine import TOKEN
from helpers.remote_process import run_remote
from helpers.tiny_models import save_tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


def engine_pid(state: Path) -> int:
    """The process that the state file names."""
    (file,) = [found for found in state.rglob("*.json") if "pid" in json.loads(found.read_text())]
    return int(json.loads(file.read_text())["pid"])


async def complete(editor: EditorClient, line: int, character: int) -> list[str]:
    return [item["insertText"] for item in await editor.inline(line, character, invoked=True)]


async def test_a_local_engine_is_started_used_killed_and_comes_back(checkpoint, tmp_path):
    state = tmp_path / "state"
    env = {"UNMASK_STATE_DIR": str(state), "UNMASK_CACHE_DIR": str(tmp_path / "cache")}
    settings = {
        "engine": {"model": str(checkpoint), "editModel": str(checkpoint), "device": "cpu", "dtype": "float32"},
        "completion": {"maxTokens": 24, "deadlineMs": 20_000, "alternatives": 1},
    }
    async with open_editor(env=env) as editor:
        await editor.initialize(settings)
        await editor.wait_for_status("ready", timeout_s=60)
        try:
            editor.open("def add(a, b):\n    \n\nprint(add(1, 2))\n")
            (first,) = await complete(editor, 1, 4)
            assert first

            # The same place again, by another way: the kept answer was forgotten, the engine must agree with itself.
            editor.change((1, 4), (1, 4), "z")
            editor.change((1, 4), (1, 5), "")
            assert await complete(editor, 1, 4) == [first]

            span = {"start": {"line": 0, "character": 0}, "end": {"line": 2, "character": 0}}
            edit = {"uri": URI, "range": span, "instruction": "subtract"}
            answer = await editor.execute("unmask.edit", edit)
            assert answer["status"] == "incomplete"  # a random model never ends: nothing may be applied
            assert [frame["done"] for frame in editor.of_method("$/unmask/editPreview")][-1]
            assert editor.of_method("workspace/applyEdit") == []

            seen = len(editor.received)
            os.kill(engine_pid(state), signal.SIGKILL)
            begin = time.perf_counter()
            editor.change((1, 4), (1, 4), "return ")
            await editor.inline(1, 11, invoked=True)  # may be empty, with a status; must not hang or fail
            recovered: list[str] = []

            async def retry() -> None:
                while not recovered:
                    recovered.extend(await complete(editor, 1, 11))
                    await asyncio.sleep(0.1)

            await asyncio.wait_for(retry(), 30)
            assert time.perf_counter() - begin < 30
            assert len(editor.received) > seen
            assert await editor.shut_down() == 0
            assert set(editor.answers.values()) == {1}
        finally:
            pid = engine_pid(state)
            os.kill(pid, signal.SIGTERM)
            await wait_until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid), 20)


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


async def test_a_model_that_is_not_there_is_named_in_the_status(tmp_path):
    env = {"UNMASK_STATE_DIR": str(tmp_path / "state"), "UNMASK_CACHE_DIR": str(tmp_path / "cache")}
    async with open_editor(env=env) as editor:
        await editor.initialize({"engine": {"model": "qwen2.5-coder-0.5b"}})
        # Whether the engine is still there to say so itself or its end is read from its log is a matter of timing.
        status = await editor.wait_for(
            "$/unmask/status", lambda status: "unmask pull qwen2.5-coder-0.5b" in status["message"], timeout_s=60
        )
        assert status["kind"] == "Error" and status["reason"] in {"checkpoint", "failed"}
        editor.open("x = ")
        assert await editor.inline(0, 4, invoked=True) == []
        assert await editor.shut_down() == 0


@pytest.mark.slow
async def test_a_local_engine_stands_in_for_the_team_and_the_status_says_so(checkpoint, tmp_path):
    env = {"UNMASK_STATE_DIR": str(tmp_path / "state"), "UNMASK_CACHE_DIR": str(tmp_path / "cache")}
    with run_remote(completions={"x = ": "remote", "y = ": "remote"}) as remote:
        settings = {
            "engine": {
                "url": remote.url, "token": TOKEN, "fallback": "local",
                "model": str(checkpoint), "editModel": str(checkpoint), "device": "cpu", "dtype": "float32",
            },
            "completion": {"maxTokens": 8, "deadlineMs": 30_000, "alternatives": 1},
        }  # fmt: skip
        async with open_editor(env=env) as editor:
            await editor.initialize(settings)
            await editor.wait_for_status("ready")
            editor.open("x = \ndef add(a, b):\n    \ny = \n")
            assert await complete(editor, 0, 4) == ["remote"]
            remote.kill()
            assert await complete(editor, 2, 4) not in ([], ["remote"])
            status = await editor.wait_for_status("local")
            assert status["kind"] == "Warning"
            assert status["message"].startswith(f"Answering locally because nothing answers at {remote.url}")
            seen = len(editor.received)
            remote.start()
            await editor.wait_for_status("ready", since=seen, timeout_s=30)
            assert await complete(editor, 3, 4) == ["remote"]
            os.kill(engine_pid(tmp_path / "state"), signal.SIGTERM)
            assert await editor.shut_down() == 0
