"""Start-up, the handshake, and the protocol's manners."""

import asyncio
import json
import subprocess
import sys
import time

import pytest
from helpers.lsp_client import ROOT, LspError, open_editor

from lsp_server.capabilities import server_capabilities
from lsp_server.server import create_server

MAX_START_S = 0.5


async def test_initialize_is_answered_within_half_a_second_while_the_engine_still_loads(engine):
    engine.status = "loading"
    times = []
    for _ in range(8):
        begin = time.perf_counter()
        async with open_editor() as editor:
            answer = await editor.initialize({"engine": {"url": engine.url, "token": "a-token-of-the-tests"}})
            times.append(time.perf_counter() - begin)
            assert answer["capabilities"]["inlineCompletionProvider"] == {}
    assert min(times) <= MAX_START_S, times  # the best of them: a busy machine starts nothing that fast


async def test_until_the_engine_is_ready_answers_are_empty_and_the_status_says_loading(engine):
    engine.status = "loading"
    engine.completions = {"x = ": "1"}
    async with open_editor() as editor:
        await editor.initialize({"engine": {"url": engine.url, "token": "a-token-of-the-tests"}})
        status = await editor.wait_for_status("loading")
        assert status["kind"] == "Busy" and status["message"] == "Loading model scripted."
        editor.open("x = ")
        assert await editor.inline(0, 4, invoked=True) == []
        assert (await editor.execute("unmask.status"))["lastReason"] == "engine_loading"
        assert engine.asked == []
        engine.status = "ready"
        await editor.wait_for_status("ready")
        assert [item["insertText"] for item in await editor.inline(0, 4)] == ["1"]


def test_neither_torch_nor_a_web_framework_is_imported():
    code = (
        "import sys, lsp_server, lsp_server.server\n"
        "lsp_server.server.create_server()\n"
        "print([name for name in ('torch', 'numpy', 'starlette', 'httpx', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_capabilities(connect):
    async with connect() as editor:
        assert editor.capabilities == {
            "positionEncoding": "utf-16",
            "textDocumentSync": {"openClose": True, "change": 2, "save": True},
            "inlineCompletionProvider": {},
            "codeActionProvider": {"codeActionKinds": ["quickfix", "refactor.rewrite"], "resolveProvider": False},
            "executeCommandProvider": {
                "commands": [
                    "unmask.status", "unmask.restartEngine", "unmask.toggle", "unmask.accepted", "unmask.listModels",
                    "unmask.edit", "unmask.acceptEdit", "unmask.rejectEdit", "unmask.editScope", "unmask.warmEdit",
                    "unmask.nextEdit",
                ]
            },
            "workspace": {
                "workspaceFolders": {"supported": True, "changeNotifications": True},
                "fileOperations": {},
            },
        }  # fmt: skip


@pytest.mark.parametrize(
    "client",
    [
        {},
        {"textDocument": {"inlineCompletion": {}}},
        {"textDocument": {"inlineCompletion": {}}, "notebookDocument": {"synchronization": {}}},
        {"textDocument": {"completion": {}}, "general": {"positionEncodings": ["utf-7", "utf-8"]}},
        {"textDocument": {"inlineCompletion": None}, "general": {"positionEncodings": ["utf-32", "utf-16"]}},
    ],
)
def test_the_early_answer_is_what_pygls_says(client):
    """The handshake is answered before pygls exists; both must describe the same server."""
    server, sent = create_server(), []

    class Writer:
        def write(self, data):
            sent.append(data)

        def close(self):
            return None

    server.protocol.set_writer(Writer(), include_headers=False)
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    message["params"] = {"processId": None, "rootUri": None, "capabilities": client}
    server.protocol.handle_message(json.loads(json.dumps(message), object_hook=server.protocol.structure_message))
    assert json.loads(sent[0])["result"]["capabilities"] == server_capabilities(client)


async def test_requests_out_of_turn_and_malformed_ones_get_one_error_each():
    async with open_editor() as editor:
        # Not an initialize at all: nothing was answered early, and the server says what is missing.
        with pytest.raises(LspError, match="-32002"):
            await editor.execute("unmask.status")
        await editor.initialize()
        with pytest.raises(LspError, match="-32602"):
            await editor.request("textDocument/inlineCompletion", {"position": "nowhere"})
        with pytest.raises(LspError, match="-32601"):
            await editor.request("textDocument/unheardOf", {})
        with pytest.raises(LspError, match="there is no command"):
            await editor.execute("unmask.unheardOf")
        await editor.request("shutdown")
        with pytest.raises(LspError, match="-32600"):
            await editor.execute("unmask.status")
        editor.notify("exit")
        assert await asyncio.wait_for(editor.process.wait(), 5) == 0
        assert set(editor.answers.values()) == {1}


@pytest.mark.parametrize("first", ["exit", "initialize"])
async def test_the_process_ends_with_1_without_a_shutdown(first):
    async with open_editor() as editor:
        if first == "initialize":
            await editor.initialize()
            assert editor.process.stdin is not None
            editor.process.stdin.close()  # the editor crashed
        else:
            editor.notify("exit")
        assert await asyncio.wait_for(editor.process.wait(), 5) == 1


async def test_an_editor_that_is_asked_for_settings_has_its_engine_and_no_local_one_before(engine):
    async with open_editor() as editor:
        editor.configuration = {"engine": {"url": engine.url, "token": "a-token-of-the-tests"}}
        await editor.initialize(configuration=True)
        await editor.wait_for_status("ready")
        messages = [status["message"] for status in editor.of_method("$/unmask/status")]
        assert not any("local" in message for message in messages), messages
