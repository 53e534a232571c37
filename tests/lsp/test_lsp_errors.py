"""What goes wrong: settings, tokens, engines that die, and what must never be in a log."""

import asyncio
import json
import subprocess
import sys
import time

import pytest
from helpers.lsp_client import ROOT, URI, LspError, open_editor
from helpers.lsp_engine import TOKEN, free_port, wait_until_listening

from diffusion_core.errors import DeadlineExceeded, EngineError, Forbidden, Overloaded, RateLimited


def start_engine_process(port, rules):
    command = [sys.executable, "-m", "helpers.lsp_engine", str(port), TOKEN, json.dumps(rules)]
    process = subprocess.Popen(command, cwd=ROOT / "tests")
    wait_until_listening(port)
    return process


async def test_an_engine_killed_in_the_middle_is_survived_and_recovered_from():
    port = free_port()
    rules = {"completions": {"x = ": "y" * 400}, "forward_s": 0.05}
    process = start_engine_process(port, rules)
    try:
        async with open_editor() as editor:
            await editor.initialize({"engine": {"url": f"http://127.0.0.1:{port}", "token": TOKEN}})
            await editor.wait_for_status("ready")
            editor.open("x = \n")
            _, answer = editor.begin_inline(0, 4)
            await asyncio.sleep(0.3)
            process.kill()
            process.wait()
            assert (await asyncio.wait_for(answer, 5))["items"] == []
            status = await editor.wait_for_status("unreachable")
            assert status["kind"] == "Error"
            assert await editor.inline(0, 4) == []
            selection = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 4}}
            with pytest.raises(LspError, match=r"-32803.*127.0.0.1"):
                await editor.execute("unmask.edit", {"uri": URI, "range": selection, "instruction": "x"})
            seen = len(editor.received)
            process = start_engine_process(port, {"completions": {"x = ": "back"}})
            begin = time.perf_counter()
            await editor.wait_for_status("ready", since=seen)
            assert time.perf_counter() - begin < 5
            (item,) = await editor.inline(0, 4)
            assert item["insertText"] == "back"
            assert await editor.shut_down() == 0
    finally:
        process.kill()
        process.wait()


async def test_a_wrong_token_is_said_and_a_right_one_takes_effect(engine):
    engine.completions = {"x = ": "1"}
    async with open_editor() as editor:
        await editor.initialize({"engine": {"url": engine.url, "token": "wrong"}})
        status = await editor.wait_for_status("unauthorized")
        assert status["kind"] == "Error" and "unmask.engine.token" in status["message"]
        assert "wrong" not in json.dumps(editor.received)
        editor.open("x = ")
        assert await editor.inline(0, 4, invoked=True) == []
        right = {"unmask": {"engine": {"url": engine.url, "token": TOKEN}}}
        editor.notify("workspace/didChangeConfiguration", {"settings": right})
        await editor.wait_for_status("ready")
        assert len(await editor.inline(0, 4)) == 1


async def test_problems_with_settings_are_reported_by_name_and_do_not_stop_the_server(engine, connect):
    engine.completions = {"x = ": "1"}
    settings = {
        "completion": {
            "maxTokens": "many",
            "multiLine": "sometimes",
            "debonceMs": 5,
            "debounceMs": {"min": 9, "max": 5},
        },
        "languages": {"disabled": "lua"},
        "trace": {"server": "off"},
    }
    async with open_editor() as editor:
        await editor.initialize({"engine": {"url": engine.url, "token": TOKEN}, **settings})
        messages = {}
        for name in ("maxTokens", "multiLine", "debonceMs", "debounceMs", "disabled"):
            found = await editor.wait_for("window/showMessage", lambda message: name in message["message"])  # noqa: B023
            messages[name] = found["message"]
        assert "a whole number from 0 to 1024. The default 0 is used" in messages["maxTokens"]
        assert "one of auto, always, never" in messages["multiLine"]
        assert "did you mean debounceMs" in messages["debonceMs"]
        assert "a list of language ids" in messages["disabled"]
        status = await editor.wait_for_status("settings")
        assert status["kind"] == "Warning" and "unmask.completion.maxTokens" in status["message"]
        assert not [m for m in editor.of_method("window/showMessage") if "trace" in m["message"]]
        editor.open("x = ")
        assert len(await editor.inline(0, 4)) == 1
        good = {"engine": {"url": engine.url, "token": TOKEN}}
        editor.notify("workspace/didChangeConfiguration", {"settings": {"unmask": good}})
        await editor.wait_for_status("ready")


async def test_settings_are_fetched_from_editors_that_keep_them(engine):
    engine.completions = {"x = ": "1"}
    async with open_editor() as editor:
        editor.configuration = {"engine": {"url": engine.url, "token": TOKEN}, "completion": {"maxTokens": 7}}
        await editor.initialize({"engine": {"url": "http://127.0.0.1:9"}}, configuration=True)
        await editor.wait_for_status("ready")
        assert editor.of_method("client/registerCapability")
        editor.open("x = ")
        assert len(await editor.inline(0, 4)) == 1
        assert engine.asked[0].max_tokens == 7
        editor.configuration["completion"] = {"enabled": False}
        editor.notify("workspace/didChangeConfiguration", {"settings": None})
        await editor.wait_for_status("disabled")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Overloaded("64 requests wait"), "overloaded"),
        (DeadlineExceeded("nothing was ready in time"), "slow"),
        (EngineError("it broke"), "engine"),
    ],
)
async def test_errors_of_the_engine_have_their_status_and_pass(engine, connect, error, reason):
    async with connect() as editor:
        editor.open("x = ")
        engine.error = error
        assert await editor.inline(0, 4) == []
        status = await editor.wait_for_status(reason)
        assert status["kind"] == "Warning" and str(error) in status["message"]
        seen = len(editor.received)
        engine.error, engine.completions = None, {"x = ": "1"}
        assert len(await editor.inline(0, 4)) == 1
        await editor.wait_for_status("ready", since=seen)


CANARY = "canary_b7f3"


@pytest.mark.parametrize("level", ["debug", "warning"])
async def test_source_code_is_never_in_the_log(engine, connect, tmp_path, level):
    log = tmp_path / "lsp.log"
    code = f"{CANARY} = "
    engine.completions = {code: f"{CANARY}('x')"}
    engine.edits = {f"rename {CANARY}": f"{CANARY} = 2\n"}
    async with connect(arguments=("--log-file", str(log), "--log-level", level)) as editor:
        editor.open(code + "\n")
        assert len(await editor.inline(0, len(code))) == 1
        selection = {"start": {"line": 0, "character": 0}, "end": {"line": 1, "character": 0}}
        edit = {"uri": URI, "range": selection, "instruction": f"rename {CANARY}"}
        assert (await editor.execute("unmask.edit", edit))["status"] == "applied"
        # Everything that pygls would log with its parameters.
        with pytest.raises(LspError):
            await editor.request("textDocument/inlineCompletion", {"textDocument": {"uri": CANARY}, "position": CANARY})
        with pytest.raises(LspError):
            await editor.request("textDocument/hover", {"text": CANARY})
        with pytest.raises(LspError):
            await editor.execute("unmask.edit", {**edit, "range": CANARY})
        editor.notify("textDocument/didChange", {"textDocument": {"uri": CANARY}, "contentChanges": CANARY})
        editor.notify("unheard/of", {"text": CANARY})
        # The whole of the settings is replaced: without the address the next edit would go to a local engine.
        unmask = {"logLevel": level, "engine": {"url": engine.url, "token": TOKEN}}
        editor.notify("workspace/didChangeConfiguration", {"settings": {"unmask": unmask, "x": CANARY}})
        editor.notify("textDocument/didChange", {"textDocument": {"uri": CANARY, "version": 1}, "contentChanges": []})
        engine.edits = {}  # a KeyError inside the engine
        with pytest.raises(LspError) as failure:
            pytest.fail(f"an answer: {await editor.execute('unmask.edit', edit)}")
        assert CANARY not in str(failure.value)
    assert log.stat().st_size > 0
    assert CANARY not in log.read_text()
    assert TOKEN not in log.read_text()


def test_a_log_file_that_cannot_be_written_is_refused_with_its_name(tmp_path):
    command = [sys.executable, "-m", "lsp_server", "--log-file", str(tmp_path / "no" / "lsp.log")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input="", timeout=20)
    assert done.returncode == 2
    assert "no/lsp.log: No such file or directory" in done.stderr and done.stdout == ""


async def test_limits_and_scopes_are_told_with_what_to_do(engine, connect):
    async with connect() as editor:
        editor.open("x = ")
        refusal = RateLimited("60 requests a minute are allowed")
        refusal.retry_after_s = 30
        engine.error = refusal
        assert await asyncio.wait_for(editor.inline(0, 4), 2) == []
        status = await editor.wait_for_status("rate_limited")
        assert status["kind"] == "Warning" and "60 requests" in status["message"] and "limit" in status["message"]
        engine.error = Forbidden("this token does not allow edit: ask for one with that scope")
        selection = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 4}}
        with pytest.raises(LspError, match=r"-32803.*60 requests"):  # nothing is sent before the time is over
            await editor.execute("unmask.edit", {"uri": URI, "range": selection, "instruction": "x"})


async def test_a_token_without_a_scope_is_told_and_the_rest_goes_on(engine, connect):
    async with connect() as editor:
        editor.open("x = ")
        engine.error = Forbidden("this token does not allow edit: ask for one with that scope")
        selection = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 4}}
        with pytest.raises(LspError, match=r"-32803.*this token does not allow edit"):
            await editor.execute("unmask.edit", {"uri": URI, "range": selection, "instruction": "x"})
        assert (await editor.wait_for_status("forbidden"))["kind"] == "Warning"
        engine.error, engine.completions = None, {"x = ": "1"}
        assert len(await editor.inline(0, 4)) == 1
