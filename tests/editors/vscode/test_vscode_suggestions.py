"""Ghost text in a real editor: shown, typed through, taken in parts, left."""

from __future__ import annotations

import pytest
from helpers.vscode import wait_for

ASK = "textDocument/inlineCompletion"
ADD = "def add(a, b):\n    "
ADD_REST = "total = a + b\n    if total < 0:\n        raise ValueError(total)\n    return total"


@pytest.fixture(autouse=True)
def ready(vscode, engine):
    vscode.wait_for_status("Ready")
    engine.completions.clear()
    engine.alternatives.clear()
    engine.asked.clear()
    engine.warmed.clear()


def show(vscode, engine, name, before, rest, after=""):
    """Open a file and have ``rest`` suggested behind ``before``, by typing its last character."""
    engine.completions[before] = rest
    lines = before.split("\n")
    path = vscode.open(name, before[:-1] + after, line=len(lines), column=len(lines[-1]))
    vscode.type(before[-1])
    vscode.wait_for_ghost_text(rest.split("\n")[0])
    return path


def test_ghost_text_appears_and_tab_takes_all_of_it_in_one_step_of_undo(vscode, engine, tap):
    show(vscode, engine, "tab.py", ADD, ADD_REST)
    vscode.screenshot("ghost-text")
    assert "return total" in vscode.ghost_text()
    vscode.press("Tab")
    vscode.expect(ADD + ADD_REST)
    wait_for(lambda: tap.commands("unmask.accepted"), "the command of the accepted item", page=vscode.page)
    vscode.press("Control+z")
    vscode.expect(ADD)


def test_typing_through_it_asks_nobody_and_never_hides_it(vscode, engine, tap):
    show(vscode, engine, "through.py", ADD, ADD_REST)
    wait_for(lambda: tap.params_of("$/unmask/didShow"), "that it was seen", page=vscode.page)
    num_messages, num_asked = len(tap), len(engine.asked)
    vscode.page.evaluate(
        """() => {
            window.frames_without = 0; window.frames_seen = 0; window.watching = true;
            const look = () => {
                window.frames_seen += 1;
                if (!document.querySelector('.editor-instance [class*="ghost-text"]')) window.frames_without += 1;
                if (window.watching) requestAnimationFrame(look);
            };
            requestAnimationFrame(look);
        }"""
    )
    vscode.type("total = a +", delay_ms=60)
    vscode.page.wait_for_timeout(300)
    seen, without = vscode.page.evaluate(
        "() => { window.watching = false; return [window.frames_seen, window.frames_without] }"
    )
    assert seen > 20
    assert without == 0, f"no ghost text in {without} of {seen} frames"
    assert " b" in vscode.ghost_text()
    assert tap.params_of(ASK, num_messages) == []
    assert len(engine.asked) == num_asked
    vscode.press("Tab")
    vscode.expect(ADD + ADD_REST)


def test_accept_word_then_line_then_the_rest(vscode, engine, tap):
    show(vscode, engine, "word.py", ADD, ADD_REST)
    start = len(tap)
    vscode.press("Control+ArrowRight")
    wait_for(lambda: vscode.ghost_text().startswith(" = a + b"), "the word taken", page=vscode.page)
    vscode.expect(ADD + "total")
    told = wait_for(
        lambda: tap.params_of("$/unmask/didPartiallyAccept", start), "that a part was taken", page=vscode.page
    )
    assert [params["acceptedLength"] for params in told] == [len("total")]
    vscode.wait_for_ghost_text("a + b")
    vscode.press("Control+Alt+ArrowRight")
    wait_for(lambda: "a + b" not in vscode.ghost_text(), "the line taken", page=vscode.page)
    vscode.expect(ADD + "total = a + b\n")
    vscode.wait_for_ghost_text("    if total < 0:")
    vscode.press("Tab")  # in front of an indentation the editor's Tab goes one level in, along the suggestion
    vscode.expect(ADD + "total = a + b\n    ")
    vscode.wait_for_ghost_text("return total")
    vscode.press("Tab")
    vscode.expect(ADD + ADD_REST)
    lengths = [params["acceptedLength"] for params in tap.params_of("$/unmask/didPartiallyAccept", start)]
    assert lengths == sorted(lengths)
    inside = [asked for asked in engine.asked if len(ADD) < len(asked.prefix) < len(ADD + ADD_REST)]
    assert inside == [], "no engine is asked between the parts"


def test_auto_closed_brackets_leave_no_stray_closer(vscode, engine):
    engine.completions["print("] = "add(1, 2))\nprint(3)"
    vscode.open("closers.py", "x = 1\n", line=2)
    vscode.type("print(")
    vscode.wait_for_ghost_text("add(1, 2)")
    vscode.type("add(")  # the editor closes this one too
    vscode.wait_for_ghost_text("1, 2")
    vscode.screenshot("closers")
    vscode.press("Tab")
    vscode.expect("x = 1\nprint(add(1, 2))\nprint(3)")


def test_a_document_with_crlf_gets_crlf(vscode, engine):
    before = "def add(a, b):\r\n    "
    engine.completions["def add(a, b):\n    "] = engine.completions[before] = ADD_REST
    vscode.open("crlf.py", before[:-1], line=2, column=4)
    vscode.type(" ")
    vscode.wait_for_ghost_text("total = a + b")
    vscode.press("Control+ArrowRight")
    wait_for(lambda: vscode.ghost_text().startswith(" = a + b"), "the word taken", page=vscode.page)
    vscode.press("Tab")
    vscode.expect(before + ADD_REST.replace("\n", "\r\n"))


def test_other_text_dismisses_it_and_the_server_is_told(vscode, engine, tap):
    show(vscode, engine, "dismiss.py", ADD, ADD_REST)
    start = len(tap)
    wait_for(lambda: tap.params_of("$/unmask/didShow"), "that it was seen", page=vscode.page)
    shown = tap.params_of("$/unmask/didShow")[-1]
    vscode.page.wait_for_timeout(400)
    vscode.type("x")
    dismissed = wait_for(lambda: tap.params_of("$/unmask/didDismiss", start), "the dismissal", page=vscode.page)
    assert set(dismissed[0]) == {"id"}
    assert dismissed[0]["id"] in {params["id"] for params in tap.params_of("$/unmask/didShow")}
    assert shown
    assert "total" not in vscode.ghost_text()


def test_the_palette_asks_at_a_place_where_nothing_comes_by_itself(vscode, engine):
    engine.completions["value = comp"] = "ute()"
    vscode.open("invoked.py", "value = computer\n", line=1, column=13)
    vscode.command("Unmask: Suggest Here")
    wait_for(lambda: any(asked.prefix == "value = comp" for asked in engine.asked), "the request", page=vscode.page)


def test_the_key_asks_at_a_place_where_nothing_comes_by_itself(vscode, engine):
    engine.completions["value = comp"] = "ute()"
    vscode.open("invoked_by_key.py", "value = comp\n", line=1, column=13)
    vscode.page.wait_for_timeout(300)
    assert engine.asked == []
    vscode.press("Alt+\\")
    vscode.wait_for_ghost_text("ute()")
    vscode.press("Tab")
    vscode.expect("value = compute()\n")


def test_asked_for_several_come_and_the_keys_go_through_them(vscode, engine):
    engine.completions["best = "] = "first()"
    engine.alternatives["best = "] = ["second()", "third()"]
    vscode.open("several.py", "best = ", line=1, column=8)
    vscode.command("Unmask: Suggest Here")
    vscode.wait_for_ghost_text("first()")
    vscode.press("Alt+]")
    vscode.wait_for_ghost_text("second()")
    vscode.press("Alt+]")
    vscode.wait_for_ghost_text("third()")
    vscode.press("Alt+[")
    vscode.wait_for_ghost_text("second()")
    vscode.press("Tab")
    vscode.expect("best = second()")


def test_without_a_suggestion_the_reason_can_be_read(vscode, engine):
    vscode.open("nothing.py", "y = 2\n", line=2)
    vscode.type("zz = ")
    wait_for(lambda: engine.asked, "the request", page=vscode.page)
    vscode.page.wait_for_timeout(300)
    vscode.command("Unmask: Why Did No Suggestion Come?")
    vscode.wait_for_notification("The model wrote nothing but white space")
    vscode.screenshot("why")
