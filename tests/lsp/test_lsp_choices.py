"""Alternatives, partial acceptance, and reading ahead, through a real language-server process."""

import asyncio

from helpers.lsp_client import URI, wait_until

HEAD = "def add(a, b):\n"


def texts(items):
    return [item["insertText"] for item in items]


async def test_an_invoked_request_gets_distinct_texts_and_an_automatic_one_the_best(engine, connect):
    engine.completions = {"x = ": "alpha"}
    engine.alternatives = {"x = ": ["beta", "alpha  ", "gamma", "delta"]}
    async with connect({"completion": {"alternatives": 4}}) as editor:
        editor.open("x = \n")
        assert texts(await editor.inline(0, 4)) == ["alpha"]
        assert engine.asked[-1].num_alternatives == 0
        # One text is kept already: the engine is asked again, because more are wanted.
        found = await editor.inline(0, 4, invoked=True)
        assert texts(found) == ["alpha", "beta", "gamma"]  # the second one is the first with white space
        assert engine.asked[-1].num_alternatives == 3
        assert len({item["command"]["arguments"][0]["id"] for item in found}) == 3
        assert texts(await editor.inline(0, 4, invoked=True)) == ["alpha", "beta", "gamma"]
        assert len(engine.asked) == 2
        editor.change((0, 4), (0, 4), "b")  # typed along an alternative
        assert texts(await editor.inline(0, 5)) == ["eta"]
        assert len(engine.asked) == 2


async def test_no_alternatives_are_asked_for_when_one_is_enough(engine, connect):
    engine.completions = {"x = ": "alpha"}
    async with connect({"completion": {"alternatives": 1}}) as editor:
        editor.open("x = \n")
        assert texts(await editor.inline(0, 4, invoked=True)) == ["alpha"]
        assert engine.asked[0].num_alternatives == 0


async def test_an_invoked_request_does_not_join_a_run_for_one_text(engine, connect):
    engine.completions = {"x = ": "alpha" * 20}
    engine.alternatives = {"x = ": ["beta"]}
    engine.forward_s = 0.02
    async with connect() as editor:
        editor.open("x = \n")
        _, automatic = editor.begin_inline(0, 4)
        await wait_until(lambda: engine.num_forwards)
        assert texts(await editor.inline(0, 4, invoked=True)) == ["alpha" * 20, "beta"]
        assert (await asyncio.wait_for(automatic, 5))["items"] == []
        assert len(engine.asked) == 2


async def test_the_rest_of_a_partial_acceptance_is_served_without_asking(engine, connect):
    """The accepted part is longer than what is looked back for, has an emoji, and the document has CRLF."""
    first = "'😀' + " + " + ".join(f"value_{number}" for number in range(30))
    engine.completions = {"x = ": f"{first}\ny = 2\nz = 3"}
    async with connect() as editor:
        editor.open("x = \r\n\r\nend\r\n")
        (item,) = await editor.inline(0, 4)
        whole = item["insertText"]
        assert whole == f"{first}\r\ny = 2\r\nz = 3"
        suggestion_id = item["command"]["arguments"][0]["id"]
        accepted = first + "\r\n"
        length = len(accepted.encode("utf-16-le")) // 2
        editor.notify("$/unmask/didPartiallyAccept", {"id": suggestion_id, "acceptedLength": length})
        editor.change((0, 4), (0, 4), accepted)
        assert texts(await editor.inline(1, 0)) == ["y = 2\r\nz = 3"]
        accepted += "y = 2\r\n"
        editor.change((1, 0), (1, 0), "y = 2\r\n")
        length = len(accepted.encode("utf-16-le")) // 2
        editor.notify("$/unmask/didPartiallyAccept", {"id": suggestion_id, "acceptedLength": length})
        assert texts(await editor.inline(2, 0)) == ["z = 3"]
        assert len(engine.asked) == 1
        assert editor.buffers[URI].text.startswith(f"x = {first}\r\ny = 2\r\n")


async def test_notifications_that_make_no_sense_do_no_harm(engine, connect):
    engine.completions = {"x = ": "1"}
    async with connect() as editor:
        editor.open("x = \n")
        (item,) = await editor.inline(0, 4)
        known = item["command"]["arguments"][0]["id"]
        for method in ("$/unmask/didShow", "$/unmask/didPartiallyAccept", "$/unmask/didDismiss"):
            for params in ({}, {"id": "unknown"}, {"id": 5}, {"id": known, "acceptedLength": "x"}, [1], None):
                editor.notify(method, params)
            editor.notify(method, {"id": known, "acceptedLength": 10**9})
            editor.notify(method, {"id": known, "acceptedLength": -1})
        assert texts(await editor.inline(0, 4)) == ["1"]


async def test_an_idle_engine_reads_what_an_acceptance_would_make_of_the_text(engine, connect):
    engine.completions = {HEAD + "    ": "c = a + b\n    return c"}
    async with connect() as editor:
        editor.open(HEAD + "    \n\nprint(1)\n")
        (item,) = await editor.inline(1, 4)
        await wait_until(lambda: engine.warmed)
        (warm,) = engine.warmed
        assert warm.completion.prefix == HEAD + "    c = a + b\n    return c"
        assert warm.completion.suffix == "\n\nprint(1)\n"
        editor.notify("$/unmask/didShow", {"id": item["command"]["arguments"][0]["id"]})
        await editor.inline(1, 4)  # served again: nothing new to read
        await asyncio.sleep(0.5)
        assert len(engine.warmed) == 1
        # What is asked after the acceptance is what was read.
        editor.change((1, 4), (1, 4), item["insertText"])
        engine.completions = {"return c": "\n"}
        await editor.inline(2, 12, invoked=True)
        asked = engine.asked[-1]
        assert (asked.prefix, asked.suffix) == (warm.completion.prefix, warm.completion.suffix)


async def test_nothing_is_read_ahead_when_it_is_dismissed_or_switched_off(engine, connect):
    engine.completions = {"x = ": "1", "y = ": "2"}
    async with connect() as editor:
        editor.open("x = \ny = \n")
        (item,) = await editor.inline(0, 4)
        editor.notify("$/unmask/didDismiss", {"id": item["command"]["arguments"][0]["id"]})
        await asyncio.sleep(0.5)
        assert engine.warmed == []
        settings = {"engine": {"url": engine.url, "token": "a-token-of-the-tests"}, "completion": {"warmAhead": False}}
        editor.notify("workspace/didChangeConfiguration", {"settings": {"unmask": settings}})
        assert len(await editor.inline(1, 4)) == 1
        await asyncio.sleep(0.5)
        assert engine.warmed == []


async def test_strings_and_comments_can_be_left_alone(engine, connect):
    engine.completions = {"": "more"}
    async with connect({"completion": {"inStrings": False, "inComments": False}}) as editor:
        editor.open("x = 'abc\n# note\ny = \n")
        assert await editor.inline(0, 8) == []
        assert await editor.inline(1, 6) == []
        assert len(await editor.inline(1, 6, invoked=True)) == 1
        assert len(await editor.inline(2, 4)) == 1
        assert (await editor.execute("unmask.status"))["reasons"] == {"in_string": 1, "in_comment": 1}


async def test_every_dropped_text_counts_its_reason(engine, connect):
    engine.completions = {"total = compute(items)\n": "total = compute(items)", "f(x": ")", "a = ": " "}
    async with connect() as editor:
        editor.open("total = compute(items)\n\nf(x\na = \n")
        for line, character in ((1, 0), (2, 3), (3, 4)):
            assert await editor.inline(line, character) == []
        status = await editor.execute("unmask.status")
        assert status["reasons"] == {"repeats_lines_above": 1, "only_closers": 1, "blank": 1}
        assert status["lastReason"] == "blank"
