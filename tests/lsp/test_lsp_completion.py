"""Ghost text through a real language-server process and a real engine server."""

import asyncio
import time

import pytest
from helpers.lsp_client import URI, LspError, wait_until

HEAD = "def add(a, b):\n"


async def test_ghost_text_with_its_range_and_context(engine, connect):
    engine.completions = {HEAD + "    ": "return a + b"}
    async with connect() as editor:
        editor.open(HEAD + "    \n\nprint(add(1, 2))\n")
        (item,) = await editor.inline(1, 4)
        assert item["insertText"] == "return a + b"
        assert item["range"] == {"start": {"line": 1, "character": 4}, "end": {"line": 1, "character": 4}}
        (request,) = engine.asked
        assert request.prefix == HEAD + "    "
        assert request.suffix == "\n\nprint(add(1, 2))\n"
        assert (request.language, request.path, request.single_line) == ("python", "project/main.py", False)


async def test_typed_through_text_reaches_no_engine(engine, connect):
    engine.completions = {"x = ": "alpha(beta) + 1"}
    async with connect() as editor:
        editor.open("x = \n")
        (item,) = await editor.inline(0, 4)
        assert item["insertText"] == "alpha(beta) + 1"
        for count, character in enumerate("alpha", start=1):
            editor.change((0, 3 + count), (0, 3 + count), character)
            (item,) = await editor.inline(0, 4 + count)
            assert item["insertText"] == "alpha(beta) + 1"[count:]
        editor.change((0, 9), (0, 9), "()")  # the editor closes the bracket by itself
        (item,) = await editor.inline(0, 10)
        assert item["insertText"] == "beta) + 1"
        assert item["range"] == {"start": {"line": 0, "character": 10}, "end": {"line": 0, "character": 11}}
        assert len(engine.asked) == 1
        editor.change((0, 10), (0, 10), "z")
        assert await editor.inline(0, 11) == []
        assert len(engine.asked) == 2


async def test_a_cancel_is_answered_at_once_and_frees_the_engine(engine, connect):
    engine.completions = {"x = ": "y" * 4000}
    async with connect() as editor:
        editor.open("x = \n")
        request_id, answer = editor.begin_inline(0, 4, invoked=True)
        await wait_until(lambda: engine.num_forwards)
        begin = time.perf_counter()
        editor.cancel(request_id)
        with pytest.raises(LspError) as error:
            await asyncio.wait_for(answer, 2)
        assert error.value.code == -32800
        assert time.perf_counter() - begin < 1
        await wait_until(lambda: engine.num_cancelled, 2)
        num_forwards = engine.num_forwards
        await asyncio.sleep(0.1)
        assert engine.num_forwards == num_forwards
        assert editor.answers[request_id] == 1


async def test_work_survives_the_cancels_of_a_typist_who_goes_along(engine, connect):
    """VS Code: cancel, change, request at every key, all while the engine works on the first request."""
    answer = "alpha(beta) + gamma"
    engine.completions = {"x = ": answer}
    engine.forward_s = 0.1
    async with connect() as editor:
        editor.open("x = \n")
        request_id, waiting = editor.begin_inline(0, 4)
        await wait_until(lambda: engine.asked)
        cancelled = []
        for count, character in enumerate("alph", start=1):
            editor.cancel(request_id)
            cancelled.append(waiting)
            editor.change((0, 3 + count), (0, 3 + count), character)
            request_id, waiting = editor.begin_inline(0, 4 + count)
            await asyncio.sleep(0.03)
        items = (await asyncio.wait_for(waiting, 5))["items"]
        assert [item["insertText"] for item in items] == ["a(beta) + gamma"]
        for old in cancelled:
            with pytest.raises(LspError, match="-32800"):
                await old
        assert len(engine.asked) == 1 and engine.num_cancelled == 0


async def test_a_joined_answer_that_no_longer_fits_is_replaced_by_a_new_one(engine, connect):
    engine.completions = {"x = ": "alpha", "x = b": "eta"}
    engine.forward_s = 0.1
    async with connect() as editor:
        editor.open("x = \n")
        request_id, _ = editor.begin_inline(0, 4)
        await wait_until(lambda: engine.asked)
        editor.cancel(request_id)
        editor.change((0, 4), (0, 4), "b")
        (item,) = await editor.inline(0, 5)
        assert item["insertText"] == "eta"
        assert [request.prefix for request in engine.asked] == ["x = ", "x = b"]


async def test_an_older_request_that_the_editor_forgot_to_cancel_gets_nothing(engine, connect):
    """Neovim sends a new request without cancelling the one before."""
    engine.completions = {"x = ": "y" * 400, "elsewhere = ": "z"}
    async with connect() as editor:
        editor.open("x = \nelsewhere = \n")
        _, old = editor.begin_inline(0, 4)
        await wait_until(lambda: engine.num_forwards)
        (item,) = await editor.inline(1, 12)
        assert item["insertText"] == "z"
        assert (await asyncio.wait_for(old, 2))["items"] == []
        assert engine.num_cancelled == 1


async def test_automatic_requests_are_gated_and_invoked_ones_are_not(engine, connect):
    engine.completions = {"val": "ue"}
    async with connect() as editor:
        editor.open("valid = 1\n")
        assert await editor.inline(0, 3) == []
        assert engine.asked == []
        assert (await editor.execute("unmask.status"))["reasons"] == {"inside_word": 1}
        (item,) = await editor.inline(0, 3, invoked=True)
        assert item["insertText"] == "ue"
        assert engine.asked[0].single_line


async def test_a_selected_completion_is_extended_in_its_own_range(engine, connect):
    engine.completions = {"x = append": "(item)"}
    async with connect() as editor:
        editor.open("x = app\n")
        span = {"start": {"line": 0, "character": 4}, "end": {"line": 0, "character": 7}}
        (item,) = await editor.inline(0, 7, selected={"range": span, "text": "append"})
        assert (item["insertText"], item["range"]) == ("append(item)", span)


async def test_the_fallback_gives_the_same_text_to_older_editors(engine, connect):
    engine.completions = {"x = re": "sult + 1"}
    async with connect(inline_completion=False) as editor:
        assert "completionProvider" in editor.capabilities
        editor.open("x = re\n")
        params = {"textDocument": {"uri": URI}, "position": {"line": 0, "character": 6}}
        answer = await editor.request("textDocument/completion", {**params, "context": {"triggerKind": 1}})
        assert answer["isIncomplete"]
        (item,) = answer["items"]
        assert item["label"] == item["filterText"] == item["textEdit"]["newText"] == "result + 1"
        assert item["textEdit"]["range"] == {
            "start": {"line": 0, "character": 4},
            "end": {"line": 0, "character": 6},
        }


async def test_accepting_lets_the_engine_read_on(engine, connect):
    engine.completions = {HEAD + "    ": "c = a + b\n    return c"}
    async with connect() as editor:
        editor.open(HEAD + "    \n")
        (item,) = await editor.inline(1, 4)
        editor.change((1, 4), (1, 4), item["insertText"])
        await editor.execute(item["command"]["command"], *item["command"]["arguments"])
        await wait_until(lambda: engine.warmed)
        assert engine.warmed[0].completion.prefix == HEAD + "    c = a + b\n    return c"
        await editor.execute("unmask.accepted", {"id": "unknown"})
        await editor.execute("unmask.accepted")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
async def test_a_document_with_odd_characters_stays_exact(engine, connect, encoding):
    """U+2028, form feed and next line are no line ends; the emoji has a different length in each encoding."""
    text = "a = '\u2028 \x0c \x85 \x1c'\nb = '😀'\nc = \n"
    engine.completions = {"b = '👍😀'\nc = ": "'😀' + b"}
    async with connect(encoding=encoding) as editor:
        assert editor.capabilities["positionEncoding"] == encoding
        editor.open(text)
        editor.change((1, 5), (1, 5), "👍")
        (item,) = await editor.inline(2, 4)
        assert item["insertText"] == "'😀' + b"
        assert engine.asked[0].prefix == editor.buffers[URI].text[:-1]
        emoji = {"utf-8": 4, "utf-16": 2, "utf-32": 1}[encoding]
        engine.completions = {"b = '👍😀'": " + a"}
        (item,) = await editor.inline(1, 6 + 2 * emoji)
        assert item["range"]["start"] == {"line": 1, "character": 6 + 2 * emoji}


async def test_a_crlf_document_gets_crlf_text(engine, connect):
    engine.completions = {HEAD + "    ": "c = a\n    return c"}
    async with connect() as editor:
        editor.open("def add(a, b):\r\n    \r\n")
        (item,) = await editor.inline(1, 4)
        assert item["insertText"] == "c = a\r\n    return c"


async def test_five_megabytes_are_answered_quickly(engine, connect):
    line = "value = compute(value, 12345)  # a line of usual length\n"
    engine.completions = {"value = ": "compute(value)"}
    async with connect() as editor:
        editor.open(line * (5_000_000 // len(line)) + "value = ")
        last = editor.buffers[URI].text.count("\n")
        await editor.execute("unmask.status")  # the document has arrived
        begin = time.perf_counter()
        (item,) = await editor.inline(last, 8)
        assert item["insertText"] == "compute(value)"
        assert time.perf_counter() - begin < 3
        assert len(engine.asked[0].prefix) <= 4000


async def test_an_empty_document_and_positions_past_the_end(engine, connect):
    engine.completions = {"x = ": "1"}
    async with connect() as editor:
        editor.open("")
        assert await editor.inline(0, 0) == []
        assert await editor.inline(0, 0, invoked=True) == []
        assert engine.asked[0].prefix == ""
        editor.change((0, 0), (0, 0), "x = ")
        for line, character in ((0, 999), (999, 0), (999, 999)):
            (item,) = await editor.inline(line, character)
            assert item["range"]["start"] == {"line": 0, "character": 4}
        editor.notify("textDocument/didClose", {"textDocument": {"uri": URI}})
        assert await editor.inline(0, 4) == []
        assert (await editor.execute("unmask.status"))["lastReason"] == "not_open"


async def test_an_answer_is_fitted_to_what_was_typed_while_it_was_made(engine, connect):
    """An editor that neither cancels nor asks again still gets text for the document as it is."""
    engine.completions = {"x = ": "alpha + 1"}
    engine.forward_s = 0.1
    async with connect() as editor:
        editor.open("x = \nend\n")
        _, waiting = editor.begin_inline(0, 4)
        await wait_until(lambda: engine.asked)
        editor.change((0, 4), (0, 4), "al")
        (item,) = (await asyncio.wait_for(waiting, 5))["items"]
        assert item["insertText"] == "pha + 1"
        assert item["range"]["start"] == {"line": 0, "character": 6}
        _, waiting = editor.begin_inline(1, 3, invoked=True)
        editor.change((0, 0), (0, 0), "# something else entirely\n")
        assert (await asyncio.wait_for(waiting, 5))["items"] == []


async def test_toggle_and_language_settings(engine, connect):
    engine.completions = {"x = ": "1"}
    async with connect({"languages": {"disabled": ["lua"]}}) as editor:
        editor.open("x = ", language="lua", uri="file:///a.lua")
        assert await editor.inline(0, 4, uri="file:///a.lua") == []
        editor.open("x = ")
        assert await editor.execute("unmask.toggle") is False
        assert (await editor.wait_for_status("disabled"))["kind"] == "Inactive"
        assert await editor.inline(0, 4, invoked=True) == []
        assert await editor.execute("unmask.toggle") is True
        assert len(await editor.inline(0, 4)) == 1
        assert (await editor.execute("unmask.status"))["reasons"] == {"language_off": 1, "disabled": 1}
