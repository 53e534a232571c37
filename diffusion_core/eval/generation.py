"""Writing whole functions and programs: HumanEval, MBPP, BigCodeBench, LiveCodeBench, MBXP, NaturalCodeBench.

A file's format is recognised by its fields (:mod:`.formats`). An item is asked in one of two ways: ``complete`` shows
the beginning of the program and lets the model go on, ``instruct`` asks for it in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from diffusion_core.eval.tasks import EvalTask
from diffusion_core.requests import (
    MAX_INSTRUCTION_CHARACTERS,
    CompletionRequest,
    DecodingParams,
    EditRequest,
    SamplingParams,
)

DEFAULT_MAX_TOKENS = 512
_FENCE = re.compile(r"^`{3,}[ \t]*$", re.MULTILINE)


class Ask(StrEnum):
    """How an item is put to the model."""

    COMPLETE = "complete"
    INSTRUCT = "instruct"


class FormatName(StrEnum):
    """The formats that can be named on the command line; ``auto`` recognises the file's."""

    AUTO = "auto"
    HUMANEVAL = "humaneval"
    MBPP = "mbpp"
    BIGCODEBENCH = "bigcodebench"
    LIVECODEBENCH = "livecodebench"
    MBXP = "mbxp"
    NATURALCODEBENCH = "naturalcodebench"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationOptions:
    """How the engine is asked. ``ask`` None: what the format does by default."""

    model: str = ""
    decoding: DecodingParams = field(default_factory=DecodingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    ask: Ask | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What the model is shown: a ``prefix`` to go on with, or an ``instruction`` about a ``selection``.

    ``stop_at_scope`` lets the engine end a completion with the function that the prefix began.
    """

    ask: Ask
    prefix: str = ""
    instruction: str = ""
    selection: str = ""
    language: str = "python"
    stop_at_scope: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationTask(EvalTask):
    """One program to write. ``render`` turns an answer into the program that passes if it is right.

    ``cut`` takes from the engine's text what is scored; ``reference`` is the known right answer's program.
    """

    task_id: str
    question: Question
    render: Callable[[str], str]
    options: GenerationOptions
    cut: Callable[[str], str] = str
    reference: str | None = None
    missing: str = ""
    extra: tuple[tuple[str, Any], ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """What the format tells of the item."""
        return dict(self.extra)

    @property
    def obstacle(self) -> str:
        """The tool that is missing here."""
        return self.missing

    def make_request(self) -> CompletionRequest | EditRequest:
        """The question as the engine takes it."""
        asked, options = self.question, self.options
        if asked.ask is Ask.INSTRUCT:
            return EditRequest(
                selection=asked.selection, instruction=asked.instruction, language=asked.language,
                max_tokens=options.max_tokens, model=options.model, decoding=options.decoding,
                sampling=options.sampling,
            )  # fmt: skip
        return CompletionRequest(
            prefix=asked.prefix, language=asked.language, stop_at_scope=asked.stop_at_scope,
            max_tokens=options.max_tokens, model=options.model, decoding=options.decoding, sampling=options.sampling,
        )  # fmt: skip

    def read_answer(self, text: str) -> str:
        """What is scored of the text."""
        return self.cut(cut_fence(text) if self.question.ask is Ask.INSTRUCT else text)

    def render_program(self, answer: str) -> str:
        """The program with its tests."""
        return self.render(answer)

    def render_reference(self) -> str | None:
        """The reference solution with the tests, where the format has one."""
        return self.reference


def fit_instruction(head: str, tail: str, limit: int = MAX_INSTRUCTION_CHARACTERS) -> str:
    """``head`` and ``tail``, with the end of ``head`` left out where they are longer than an instruction may be."""
    room = limit - len(tail)
    assert room > 0
    if len(head) <= room:
        return head + tail
    mark = "\n[...]\n"
    return head[: room - len(mark)] + mark + tail


def cut_fence(text: str) -> str:
    """An instructed answer up to a line of nothing but three or more backticks, or all of it.

    Where an instruction has fences of its own the prompt's are longer, and models close theirs with three all the same;
    Aider and the benchmarks' own readers end an answer there too.
    """
    match = _FENCE.search(text)
    return text[: match.start()] if match else text
