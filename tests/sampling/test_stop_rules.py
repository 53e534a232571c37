"""Where an answer ends, fed token by token and in larger pieces: the place must be the same."""

from __future__ import annotations

import pytest
from helpers.tiny_models import tiny_denoiser, tiny_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.requests import FinishReason
from diffusion_core.sampling.block_decoder import BlockDecoder, DecodingTask
from diffusion_core.sampling.sequence import DecodingSequence, SequenceCache
from diffusion_core.sampling.stop import (
    LONGEST_LOOP,
    BraceScopeRule,
    FenceRule,
    LineRule,
    ScopeRule,
    Stop,
    StopRule,
    SuffixRule,
    find_repetition,
    has_loop,
)


def run(rule: StopRule, text: str, step: int = 1) -> Stop | None:
    """Feed ``text`` in pieces of ``step`` characters."""
    for end in range(step, len(text) + step, step):
        seen = text[:end]
        if stop := rule.check(seen, len(seen) - (end - step)):
            return stop
    return None


CASES = [
    (LineRule(), "a = 1\nb", 5, FinishReason.LINE),
    (LineRule(), "a = 1\r\nb", 5, FinishReason.LINE),
    (FenceRule("```"), "x = 1\n```\nmore", 6, FinishReason.STOP),
    (FenceRule("```"), "```\n", 0, FinishReason.STOP),
    (FenceRule("```"), "x = 1\n```` \r\nmore", 6, FinishReason.STOP),
    (FenceRule("````"), "s = '''\n```\n'''\n````\n", 16, FinishReason.STOP),
    (FenceRule("```"), "## Install\n\n```bash\npip install a\n```\n\nDone.\n```\nThis", 45, FinishReason.STOP),
    (FenceRule("```"), "````md\n```\n  ````\n```\n", 18, FinishReason.STOP),
    (FenceRule("```"), "```a``` is code\n```\n", 16, FinishReason.STOP),
    (SuffixRule("\n    c = 3\n    return c\n"), "b = 2\n    c = 3\n    return c\n", 6, FinishReason.SUFFIX),
    (SuffixRule("c = 3\nd = 4\n", starts_line=True), "c = 3\nd = 4\n", 0, FinishReason.SUFFIX),
    (ScopeRule("def f():\n    "), "x = 1\n    return x\n\nprint", 20, FinishReason.SCOPE),
    (ScopeRule("def f(a"), ", b):\n    return a\n\n\nf(1)", 21, FinishReason.SCOPE),
    (ScopeRule("def f():\n    sql = "), '"""\nSELECT a\nFROM b\n"""\n    return sql\n\nf()', 40, FinishReason.SCOPE),
    (ScopeRule('def f():\n    """Says\n    that '), 'it\nis.\n"""\n    return 1\nf()', 24, FinishReason.SCOPE),
    (
        ScopeRule("def f():\n    "),
        "a = '''\nit\\''' is\n'''\n    b\n\n# of g\n",
        29,
        FinishReason.SCOPE,
    ),
    (ScopeRule("def f():\n    "), 'a = "\'\'\'"  # """\nb', 17, FinishReason.SCOPE),
    (ScopeRule('cut off"""\ndef f():\n    '), "a\nb", 2, FinishReason.SCOPE),
    (BraceScopeRule("func f() {\n\t"), "a()\n\tif b {\n\t\tc()\n\t}\n}\n\nfunc g", 22, FinishReason.SCOPE),
    (BraceScopeRule("function f() {"), "\n  a();\n}\nb", 9, FinishReason.SCOPE),
    (BraceScopeRule("  on(x, () => {"), "\n    a();\n  });\n  b", 15, FinishReason.SCOPE),
    (BraceScopeRule("  if (a) {\n    "), "b();\n  } else {\n    c();\n  }\n}", 28, FinishReason.SCOPE),
    (ScopeRule("    def f(a"), ", b):\n        return a\n\n    def g", 24, FinishReason.SCOPE),
]


@pytest.mark.parametrize(("rule", "text", "keep", "reason"), CASES)
@pytest.mark.parametrize("step", [1, 2, 7])
def test_rules_stop_where_they_should(rule: StopRule, text: str, keep: int, reason: FinishReason, step: int) -> None:
    assert run(rule, text, step) == Stop(keep, reason)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (FenceRule("```"), "x = '```'\n  ```\n"),
        (FenceRule("```"), "x = 1\n```"),  # a word may follow
        (FenceRule("```"), "```bash\nls\n```\n"),
        (SuffixRule("\nc = 3\nd = 4\n"), "c = 3\n"),  # one line alone may well be meant
        (SuffixRule("\n)\n)\n"), "x\n)\n)\n"),  # brackets say nothing
        (SuffixRule(""), "a\nb\n"),
        (ScopeRule("x = "), "1\ny = 2\n"),
        (ScopeRule("    if a:"), "\n        b\n    else:\n        c\n"),
        (ScopeRule("def f():\n    sql = "), '"""\nSELECT a\nFROM b\n'),
        (BraceScopeRule("    "), "a = {\n      b: 1,\n    };\n    c();\n"),
        (BraceScopeRule("    "), "a();\n#if X\n  case 1:\n    b();\n"),
        (BraceScopeRule(""), "a {\n}\n}\n"),
        (BraceScopeRule("    "), "a();\n  }"),  # the line may go on
        (ScopeRule("def f("), "\n    a: int,\n) -> int:\n    return a\n"),
    ],
)
def test_rules_let_code_go_on(rule: StopRule, text: str) -> None:
    assert run(rule, text) is None


@pytest.mark.parametrize(
    ("text", "keep"), [("x = 1\n```", 6), ("```", 0), ("x = 1\n```py", None), ("```bash\nls\n```", None), ("x", None)]
)
def test_a_last_line_is_complete_when_the_model_ends(text: str, keep: int | None) -> None:
    assert FenceRule("```").check_end(text) == (None if keep is None else Stop(keep, FinishReason.STOP))


@pytest.mark.parametrize("has_stop_token", [True, False])
def test_a_fence_that_the_model_ends_with_is_no_part_of_the_answer(has_stop_token: bool) -> None:
    tokenizer, denoiser = tiny_tokenizer(), tiny_denoiser()
    tokens = tokenizer.encode("x = 1\n```").ids
    task = DecodingTask(
        max_tokens=64 if has_stop_token else len(tokens), stop_rules=(FenceRule("```"),), stop_token_ids=frozenset({9})
    )
    sequence = DecodingSequence(denoiser, [1], SequenceCache.create(denoiser, 64), num_prompt=1)
    decoder = BlockDecoder(denoiser, tokenizer, sequence, task)
    decoder.replay([*tokens, *([9] if has_stop_token else [])])
    assert (decoder.answer.text, decoder.answer.finish_reason) == ("x = 1\n", FinishReason.STOP)


@given(st.text("ab \n`", max_size=60), st.integers(1, 9))
def test_the_size_of_the_pieces_does_not_matter_for_lines(text: str, step: int) -> None:
    assert run(LineRule(), text, step) == run(LineRule(), text)


def test_loops_are_found_and_tables_are_not() -> None:
    loop = [1, 2, 3] + [7, 8, 9] * 40
    assert find_repetition(loop) == 3
    assert find_repetition(list(range(500))) is None
    assert find_repetition([0, 5] * 20) is None  # a short table
    assert find_repetition([4] * 200) == 1


@given(
    st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), min_size=1, max_size=34), st.integers(0, 9)
)
def test_a_loop_is_its_shortest_period(before: list[int], piece: list[int], cut: int) -> None:
    text = before + piece * 9
    text = text[: len(text) - cut]
    spans = {period: max(96, 6 * period) for period in range(1, 33)}
    found = [
        period
        for period, span in spans.items()
        if len(text) >= span and all(text[-i] == text[-i - period] for i in range(1, span - period + 1))
    ]
    assert find_repetition(text) == (found[0] if found else None)
    assert find_repetition(text[-LONGEST_LOOP:]) == find_repetition(text)


def test_a_loop_of_the_edited_text_may_stand_in_the_answer() -> None:
    tokenizer, denoiser = tiny_tokenizer(), tiny_denoiser()
    board = "[" + "[0, 0, 0, 0, 0, 0, 0, 0],\n" * 8 + "]"
    tokens = tuple(tokenizer.encode(board).ids)
    assert has_loop(tokens, 3) is False and has_loop(tokens, 26)
    ones = [tokenizer.encode("1").ids[0] if t == tokenizer.encode("0").ids[0] else t for t in tokens]
    for original, answer, reason in (
        ((), tokens, FinishReason.REPETITION),
        (tokens, tokens, None),
        (tokens, ones, None),
        (tokens, tokenizer.encode("ab" * 60).ids, FinishReason.REPETITION),
    ):
        sequence = DecodingSequence(denoiser, [1, *answer], SequenceCache.create(denoiser, 64), num_prompt=1)
        decoder = BlockDecoder(denoiser, tokenizer, sequence, DecodingTask(max_tokens=999, original=original))
        decoder.replay(answer)
        assert decoder.answer.finish_reason is reason
