"""Stops that a request names, and what of a text may be shown before it is complete."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import CompletionRequest, FinishReason
from diffusion_core.sampling.asked_stops import IndentRule, TextRule, TimeRule
from diffusion_core.sampling.stop import BraceScopeRule, FenceRule, LineRule, ScopeRule, Stop, StopRule, SuffixRule


def feed(rule: StopRule, text: str, sizes: list[int]) -> tuple[str, list[str]]:
    """The text that remains when ``text`` comes in pieces, and what could be shown after each piece."""
    seen, shown = "", []
    for size in [*sizes, len(text)]:
        piece = text[len(seen) : len(seen) + size]
        seen += piece
        if piece and (stop := rule.check(seen, len(piece))):
            return seen[: stop.keep], shown
        shown.append(seen[: rule.settled(seen)])
    return seen, shown


RULES = {
    "texts": lambda: TextRule(("ab", "b\n", "aab")),
    "indent": lambda: IndentRule(2),
    "line": LineRule,
    "fence": lambda: FenceRule("``"),
    "suffix of two lines": lambda: SuffixRule("b\n a\n  ab\n"),
    "suffix of one line": lambda: SuffixRule("aab\n", starts_line=True),
    "scope": lambda: ScopeRule("def f():\n  "),
    "scope with clauses": lambda: ScopeRule("def f():\n  if a:\n    ", "\n  b\n"),
    "braces": lambda: BraceScopeRule("f() {\n  "),
}
PIECES = st.lists(
    st.sampled_from(["a", "b", "aab", " ", "  ", "\n", "`", "``", "else", "e", ":", "}", "{", "#", '"""']), max_size=24
)


@pytest.mark.parametrize("name", RULES)
@given(PIECES, st.lists(st.integers(1, 5), max_size=60))
def test_what_is_settled_is_never_taken_back(name: str, pieces: list[str], sizes: list[int]) -> None:
    kept, shown = feed(RULES[name](), "".join(pieces), sizes)
    for earlier in shown:
        assert kept.startswith(earlier)


@given(PIECES, st.lists(st.integers(1, 5), max_size=60))
def test_texts_stop_at_the_same_place_however_they_arrive(pieces: list[str], sizes: list[int]) -> None:
    text, stops = "".join(pieces), ("ab", "b\n", "aab")
    first = min((at for each in stops if (at := text.find(each)) >= 0), default=len(text))
    rule = TextRule(stops)
    seen = ""
    while len(seen) < len(text):
        piece = text[len(seen) :][: sizes.pop() if sizes else 1]
        seen += piece
        if stop := rule.check(seen, len(piece)):
            # In larger pieces, a text that ends earlier may hide one that begins earlier and ends later.
            assert seen[: stop.keep] == text[: stop.keep]
            assert stop.keep <= first + 1
            return
    assert first == len(text)


def test_the_rest_of_the_text_is_shown_as_soon_as_it_is_no_stop() -> None:
    rule = TextRule(("END;",))
    assert [rule.settled(text) for text in ("x", "xE", "xEN", "xEND", "xENDX", "EE")] == [1, 1, 1, 1, 5, 1]


def test_shallow_lines_end_an_indented_answer_and_blank_ones_do_not() -> None:
    rule = IndentRule(4)
    assert rule.check("x = 1\n\n    y = 2\n\n", 1) is None
    assert rule.check("x = 1\n\n    y = 2\n  z", 1) == Stop(17, FinishReason.SCOPE)
    assert rule.check("\tx\n\t\t\t\ty\n", 1) is None


def test_time_ends_an_answer_once_it_has_a_line() -> None:
    now = [0.0]
    rule = TimeRule(100, lambda: 1.0 + now[0])
    assert rule.check("a", 1) is None
    now[0] = 0.2
    assert rule.check("ab", 1) is None, "a line that is half there is of no use"
    assert rule.check("ab\nc", 2) == Stop(4, FinishReason.DEADLINE)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"stop": ("",)}, "stop"),
        ({"stop": ("x",) * 65}, "stop"),
        ({"stop": ("x" * 1025,)}, "stop"),
        ({"min_indent": -1}, "min_indent"),
        ({"line_ms": -1}, "line_ms"),
    ],
)
def test_stops_out_of_their_limits_are_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        CompletionRequest(prefix="", **fields)  # type: ignore[arg-type]
