"""Verifiers: how good a finished answer is, between 0 and 1 (paper, section 3.3: V of eq. 10).

Three kinds (a) the likelihood of the answer under the clean causal path of a model, (b) whether the program parses
and an edit keeps the lines it should not touch, (c) whether tests pass in the sandbox. The grammar task adds its own
exact check. Answers are judged as text; no verifier logs any of it.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from tokenizers import Tokenizer

from diffusion_core.errors import ConfigError
from diffusion_core.eval.sandbox import Limits, run_program
from diffusion_core.model.config import DiffusionConfig, LogitAlignment
from diffusion_core.model.masks import causal
from diffusion_core.model.transformer import Transformer
from train.data.samples import Sample
from train.data.syntax_nodes import has_syntax_error
from train.grammar import is_exact, parses, render_test

# Processes of the sandbox at once.
_PROGRAMS_AT_ONCE = 4


@dataclass(frozen=True)
class Attempt:
    """An answer to a sample's prompt: its tokens int64 [n] (with the stop token, if it stopped) and its text."""

    sample: Sample
    tokens: torch.Tensor
    text: str


class Verifier(Protocol):
    """Judges attempts."""

    def score(self, attempts: Sequence[Attempt]) -> torch.Tensor:
        """V of each attempt, float32 [n], from 0 (wrong) to 1 (right)."""
        ...


@dataclass(frozen=True)
class AnswerText:
    """What surrounds an answer, and the reference answer, as text; recovered from a sample's tokens."""

    prefix: str
    suffix: str
    reference: str
    original: str


def read_sample(sample: Sample, tokenizer: Tokenizer) -> AnswerText:
    """The texts of a sample.

    Of a prompt without fill-in-the-middle markers (an edit, a document), prefix and suffix are empty: only the answer
    itself is judged then.
    """
    prompt = sample.tokens[: sample.num_prompt].tolist()
    markers = {
        name: tokenizer.token_to_id(token)
        for name, token in {"prefix": "<|fim_prefix|>", "suffix": "<|fim_suffix|>", "middle": "<|fim_middle|>"}.items()
    }
    parts: dict[str, list[int]] = {"prefix": [], "suffix": [], "middle": []}
    names, current = {number: name for name, number in markers.items() if number is not None}, ""
    for token in prompt:
        if token in names:
            current = names[token]
        elif current:
            parts[current].append(token)
    # What follows the middle's marker is the beginning of the middle itself (layout suffix_first): still prefix.
    prefix = tokenizer.decode(parts["prefix"]) + tokenizer.decode(parts["middle"])
    reference = tokenizer.decode(sample.tokens[sample.num_prompt :].tolist())
    return AnswerText(prefix, tokenizer.decode(parts["suffix"]), reference, tokenizer.decode(sample.original.tolist()))


def drop_fence(text: str) -> str:
    """``text`` without a last line of nothing but backticks: the fence that closes an edit's answer is no code."""
    lines = text.rstrip("\n").split("\n")
    last = lines[-1].strip()
    if len(last) < 3 or set(last) != {"`"}:
        return text
    return "".join(f"{line}\n" for line in lines[:-1])


def _read_code(attempt: Attempt, tokenizer: Tokenizer) -> tuple[AnswerText, str]:
    """The texts of an attempt's sample and the attempt's own, as code: without the fences of an edit."""
    texts = read_sample(attempt.sample, tokenizer)
    if not len(attempt.sample.original):  # not an edit: backticks may be part of a docstring
        return texts, attempt.text
    code = replace(texts, reference=drop_fence(texts.reference), original=drop_fence(texts.original))
    return code, drop_fence(attempt.text)


class LikelihoodVerifier:
    """(a) The mean probability per token, exp(mean log p), of an answer under a model's clean causal path.

    The model may be the one in training, a frozen copy, or another one over the same tokens.

    Raises:
        ConfigError: the model's clean path is not causal, so that it has no next-token likelihood.
    """

    def __init__(self, model: Transformer, contract: DiffusionConfig) -> None:
        if contract.alignment is not LogitAlignment.SHIFTED or not contract.has_causal_clean_path:
            raise ConfigError(
                f"the likelihood verifier needs a causal clean path with shifted logits; this checkpoint has attention "
                f"{contract.attention.value} and {contract.alignment.value} logits: set on_policy.verifier=syntax "
                "(or exact, for the grammar)"
            )
        self._model, self._contract = model, contract

    @torch.no_grad()
    def score(self, attempts: Sequence[Attempt]) -> torch.Tensor:
        """Probability: exp of the mean log-likelihood of each attempt's tokens."""
        device = self._model.device
        prompts = [attempt.sample.tokens[: max(1, attempt.sample.num_prompt)] for attempt in attempts]
        rows = [torch.cat((p, a.tokens.cpu())).to(device) for p, a in zip(prompts, attempts, strict=True)]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        positions = torch.arange(tokens.shape[1], device=device).expand(len(rows), -1)
        hidden = self._model(tokens, positions, causal(tokens.shape[1]))
        logits = self._model.logits(hidden[:, :-1])
        banned = [t for t in (self._contract.mask_token_id,) if t is not None and t < logits.shape[-1]]
        if banned:
            logits[..., banned] = float("-inf")
        found = logits.log_softmax(-1).gather(-1, tokens[:, 1:].unsqueeze(-1)).squeeze(-1)
        columns = torch.arange(found.shape[1], device=device)
        first = torch.tensor([len(p) - 1 for p in prompts], device=device).unsqueeze(-1)
        end = torch.tensor([len(row) - 1 for row in rows], device=device).unsqueeze(-1)
        counted = (columns >= first) & (columns < end)
        total = torch.where(counted, found, 0.0).sum(-1)
        return (total / counted.sum(-1).clamp_min(1)).exp().float().cpu()


class SyntaxVerifier:
    """(b) Whether the program parses and, for edits, the share of lines kept that the reference keeps as well.

    An attempt is judged only where the reference itself parses (a context cut in the middle of a construct does not);
    elsewhere it gets 1, which under a baseline teaches nothing.
    """

    def __init__(self, tokenizer: Tokenizer, language: str = "python") -> None:
        self._tokenizer, self._language = tokenizer, language

    def score(self, attempts: Sequence[Attempt]) -> torch.Tensor:
        """1 or 0 for parsing, times the share of kept lines."""
        return torch.tensor([self._score_one(attempt) for attempt in attempts], dtype=torch.float)

    def _score_one(self, attempt: Attempt) -> float:
        if attempt.sample.id.startswith("grammar/"):
            return float(parses(attempt.text))
        texts, answer = _read_code(attempt, self._tokenizer)
        kept = kept_lines(texts.original, texts.reference, answer) if len(attempt.sample.original) else 1.0
        if has_syntax_error(texts.prefix + texts.reference + texts.suffix, self._language):
            return kept
        return kept * (not has_syntax_error(texts.prefix + answer + texts.suffix, self._language))


def kept_lines(original: str, reference: str, answer: str) -> float:
    """Of the lines that the reference edit leaves as they were, the share that stands in ``answer``, in order."""
    before, wanted, given = original.splitlines(), reference.splitlines(), answer.splitlines()
    same = difflib.SequenceMatcher(a=before, b=wanted, autojunk=False).get_matching_blocks()
    untouched = [line for block in same for line in before[block.a : block.a + block.size]]
    if not untouched:
        return 1.0
    found = difflib.SequenceMatcher(a=untouched, b=given, autojunk=False).get_matching_blocks()
    return sum(block.size for block in found) / len(untouched)


class TestsVerifier:
    """(c) Whether the program that ``render`` makes of a sample and an answer runs through in the sandbox."""

    __test__ = False  # not a test case, whatever its name

    def __init__(
        self, tokenizer: Tokenizer, render: Callable[[AnswerText, str], str], limits: Limits | None = None
    ) -> None:
        self._tokenizer, self._render = tokenizer, render
        self._limits = limits or Limits(wall_s=5.0, cpu_s=5)

    def score(self, attempts: Sequence[Attempt]) -> torch.Tensor:
        """1 where the tests pass, else 0; equal programs run once."""
        programs = [self._render(*_read_code(attempt, self._tokenizer)) for attempt in attempts]
        distinct = list(dict.fromkeys(programs))
        passed = dict(zip(distinct, asyncio.run(self._run_all(distinct)), strict=True))
        return torch.tensor([float(passed[program]) for program in programs])

    async def _run_all(self, programs: Sequence[str]) -> list[bool]:
        places = asyncio.Semaphore(_PROGRAMS_AT_ONCE)

        async def run(program: str) -> bool:
            async with places:
                return (await run_program(program, self._limits)).passed

        return list(await asyncio.gather(*(run(program) for program in programs)))


class ExactVerifier:
    """Whether the answer is the reference; for the grammar up to the names of the locals."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def score(self, attempts: Sequence[Attempt]) -> torch.Tensor:
        """1 or 0."""
        return torch.tensor([float(self._is_right(attempt)) for attempt in attempts])

    def _is_right(self, attempt: Attempt) -> bool:
        reference = read_sample(attempt.sample, self._tokenizer).reference
        if attempt.sample.id.startswith("grammar/"):
            return is_exact(attempt.text, reference)
        return attempt.text == reference


def render_script(texts: AnswerText, answer: str) -> str:
    """The file with the answer in its place, to be run as it is: it passes if it runs through (a self-test does)."""
    return texts.prefix + answer + texts.suffix


def render_program(texts: AnswerText, answer: str) -> str:
    """The grammar's own test where the prompt is a grammar program, else the whole file as a script."""
    test = render_test(texts.prefix, texts.reference, answer)
    return render_script(texts, answer) if test is None else test


def make_verifier(name: str, model: Transformer, contract: DiffusionConfig, tokenizer: Tokenizer) -> Verifier:
    """The verifier called ``likelihood``, ``syntax``, ``tests`` or ``exact``.

    ``model`` judges for ``likelihood``: a frozen copy, so that the judge does not move with what it judges.

    Raises:
        ConfigError: no such verifier, or the model cannot be that judge.
    """
    match name:
        case "likelihood":
            return LikelihoodVerifier(model, contract)
        case "syntax":
            return SyntaxVerifier(tokenizer)
        case "tests":
            return TestsVerifier(tokenizer, render_program)
        case "exact":
            return ExactVerifier(tokenizer)
        case _:
            raise ConfigError(f"on_policy.verifier is {name!r}: one of likelihood, syntax, tests, exact")
