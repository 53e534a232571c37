"""The three verifiers of section 3.3 and the grammar's own, on real models, parsers and processes."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_stages import peaked_start

from diffusion_core.errors import ConfigError
from diffusion_core.model.config import LogitAlignment
from diffusion_core.model.masks import causal
from train.data.samples import Sample
from train.grammar import grammar_tokenizer
from train.objectives.sources import GrammarSource
from train.verifier import (
    Attempt,
    ExactVerifier,
    LikelihoodVerifier,
    SyntaxVerifier,
    TestsVerifier,
    drop_fence,
    kept_lines,
    make_verifier,
    read_sample,
    render_program,
)

TOKENIZER = grammar_tokenizer()


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def infill(prefix: str, middle: str, suffix: str) -> Sample:
    stop = TOKENIZER.token_to_id("<|endoftext|>")
    prompt = encode(f"<|fim_prefix|><|fim_suffix|>{suffix}<|fim_middle|>{prefix}")
    return make_sample(prompt, [*encode(middle), stop])


def make_sample(prompt: list[int], answer: list[int], original: str = "") -> Sample:
    return Sample(
        tokens=torch.tensor(prompt + answer),
        num_prompt=len(prompt),
        kind="infill_span",
        answer_changed=torch.ones(len(answer), dtype=torch.bool),
        original=torch.tensor(encode(original), dtype=torch.long),
        id="infill_span/0",
    )


def attempt(sample: Sample, text: str) -> Attempt:
    return Attempt(sample, torch.tensor(encode(text)), text)


@pytest.fixture(scope="module")
def grammar_sample() -> Sample:
    start = peaked_start()
    return GrammarSource(start.tokenizer, start.contract, sequences=1, seed=0).sample(3)


def renamed(text: str) -> str:
    return text.translate(str.maketrans("pqrs", "srqp"))


def test_texts_of_a_sample_are_recovered() -> None:
    texts = read_sample(infill("def f(x):\n    ", "return x", "\n"), TOKENIZER)
    assert (texts.prefix, texts.reference, texts.suffix) == ("def f(x):\n    ", "return x", "\n")
    assert read_sample(make_sample(encode("edit this"), encode("new"), "old"), TOKENIZER).original == "old"


def test_likelihood_is_the_clean_paths() -> None:
    start = peaked_start(alignment=LogitAlignment.SHIFTED)
    sample = infill("ab", "cde", "f")
    attempts = [attempt(sample, "cde"), attempt(sample, "x"), attempt(infill("a much longer prompt", "", ""), "yz")]
    found = LikelihoodVerifier(start.model, start.contract).score(attempts)
    for row, one in enumerate(attempts):
        tokens = torch.cat((one.sample.tokens[: one.sample.num_prompt], one.tokens)).unsqueeze(0)
        with torch.no_grad():
            hidden = start.model(tokens, torch.arange(tokens.shape[1]).unsqueeze(0), causal(tokens.shape[1]))
            logits = start.model.logits(hidden)[0, :-1]
        logits[:, start.mask_id] = float("-inf")
        each = logits.log_softmax(-1).gather(-1, tokens[0, 1:].unsqueeze(-1)).squeeze(-1)
        assert float(found[row]) == pytest.approx(float(each[-len(one.tokens) :].mean().exp()), rel=1e-3)
    with pytest.raises(ConfigError, match="needs a causal clean path"):
        LikelihoodVerifier(peaked_start().model, peaked_start().contract)


def test_syntax() -> None:
    sample = infill("def f(x):\n    ", "return x", "\n")
    verifier = SyntaxVerifier(TOKENIZER)
    texts = ["return x + 1", "return (x", "pass", "return return"]
    assert verifier.score([attempt(sample, text) for text in texts]).tolist() == [1, 0, 1, 0]
    # A context that is cut inside a construct says nothing about the answer.
    cut = infill("foo(", "x", "\ndef g(:\n")
    assert verifier.score([attempt(cut, "((((")]).tolist() == [1]


def test_edits_keep_the_lines_that_the_reference_keeps() -> None:
    original = "a = 1\nb = 2\nc = 3\n"
    reference = "a = 1\nb = 20\nc = 3\n"
    assert kept_lines(original, reference, reference) == 1
    assert kept_lines(original, reference, "a = 1\nb = 99\nc = 3\n") == 1
    assert kept_lines(original, reference, "a = 1\nb = 20\n") == 0.5
    assert kept_lines(original, reference, "c = 3\na = 1\n") == 0.5, "the order counts"
    assert kept_lines("a\n", "b\n", "anything") == 1
    sample = make_sample(encode("change b"), encode(reference), original)
    found = SyntaxVerifier(TOKENIZER).score(
        [attempt(sample, t) for t in (reference, "a = 1\nb = 20\n", "a = (\nc = 3\n")]
    )
    assert found.tolist() == [1, 0.5, 0]


@pytest.mark.parametrize("fence", ["```", "````"])
def test_the_syntax_of_an_edit_is_judged_behind_its_fence(fence: str) -> None:
    original, reference = "a = 1\nb = 2\n", "a = 1\nb = 20\n"
    stop = TOKENIZER.token_to_id("<|endoftext|>")
    sample = make_sample(encode("change b"), [*encode(reference + fence), stop], original + fence)
    texts = [f"a = 1\nb = 3\n{fence}", f"a = 1\nb = (\n{fence}", f"b = 20\n{fence}", "a = 1\nb = 3\n"]
    verifier = SyntaxVerifier(TOKENIZER)
    assert verifier.score([attempt(sample, text) for text in texts]).tolist() == [1, 0, 0, 1]
    script = make_sample(encode("make it pass"), [*encode("assert True\n" + fence), stop], "assert False\n" + fence)
    tests = TestsVerifier(TOKENIZER, render_program)
    attempts = [attempt(script, f"assert {word}\n{fence}\n") for word in ("True", "False")]
    assert tests.score(attempts).tolist() == [1, 0]


def test_a_fence_is_a_last_line_of_backticks() -> None:
    assert [drop_fence(text) for text in ("a\n```", "a\n````\n", "```", "a\n`b`", "a```", "")] == [
        "a\n", "a\n", "", "a\n`b`", "a```", "",
    ]  # fmt: skip


def test_programs_run_in_the_sandbox(grammar_sample: Sample) -> None:
    right = read_sample(grammar_sample, TOKENIZER).reference
    assert right
    swapped = right[:-5] + f"({right[-2]},{right[-4]})" if len(right) > 5 else right
    loops = "while True: pass"
    verifier = TestsVerifier(TOKENIZER, render_program)
    texts = [right, renamed(right), swapped.replace("((", "("), "raise SystemExit(0)"]
    found = verifier.score([attempt(grammar_sample, text) for text in texts])
    assert found[:2].tolist() == [1, 1] and found[3] == 0
    script = infill("total = sum(range(4))\n", "", "assert total == expected\n")
    found = verifier.score([attempt(script, "expected = 6\n"), attempt(script, "expected = 7\n")])
    assert found.tolist() == [1, 0]
    assert loops not in texts


def test_exact(grammar_sample: Sample) -> None:
    right = read_sample(grammar_sample, TOKENIZER).reference
    verifier = ExactVerifier(TOKENIZER)
    assert verifier.score([attempt(grammar_sample, t) for t in (right, renamed(right), right + ";")]).tolist() == [
        1,
        1,
        0,
    ]
    plain = infill("a", "bc", "d")
    assert verifier.score([attempt(plain, "bc"), attempt(plain, "b")]).tolist() == [1, 0]


def test_grammar_programs_parse_or_not(grammar_sample: Sample) -> None:
    right = read_sample(grammar_sample, TOKENIZER).reference
    assert SyntaxVerifier(TOKENIZER).score([attempt(grammar_sample, t) for t in (right, right[:-1])]).tolist() == [1, 0]


def test_verifiers_by_name() -> None:
    start = peaked_start(alignment=LogitAlignment.SHIFTED)
    kinds = {
        name: type(make_verifier(name, start.model, start.contract, TOKENIZER)).__name__
        for name in ("likelihood", "syntax", "tests", "exact")
    }
    assert kinds == {
        "likelihood": "LikelihoodVerifier",
        "syntax": "SyntaxVerifier",
        "tests": "TestsVerifier",
        "exact": "ExactVerifier",
    }
    with pytest.raises(ConfigError, match="one of likelihood, syntax, tests, exact"):
        make_verifier("vibes", start.model, start.contract, TOKENIZER)
