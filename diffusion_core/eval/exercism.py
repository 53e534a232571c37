"""Exercism's exercises with two tries: Aider's edit benchmark in its ``whole`` format.

The model is given the exercise's instructions and the stub and rewrites the whole file. Where the tests fail it is
shown the beginning of their output and may rewrite its file once more. Wording and the 50 lines of output are those of
Aider's ``benchmark/prompts.py`` and ``benchmark/benchmark.py``. Aider keeps the first exchange in the chat; here the
second try is an edit of the first try's file that is given the instructions again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from diffusion_core.eval.dataset import Dataset, DatasetError, Row, sample_items
from diffusion_core.eval.generation import cut_fence, fit_instruction
from diffusion_core.eval.infilling import check_unique
from diffusion_core.eval.runners import render_runner
from diffusion_core.eval.tasks import Benchmark, EvalTask
from diffusion_core.requests import DecodingParams, EditRequest, SamplingParams

MAX_OUTPUT_LINES = 50
MAX_OUTPUT_CHARACTERS = 3000
DEFAULT_MAX_TOKENS = 1024

_ADDENDUM = """
####

Use the above instructions to modify the supplied files: {file}
Don't change the names of existing functions or classes, as they may be referenced from other code like unit tests, etc.
Only use standard libraries, don't suggest installing any packages.
"""
_FAILURES = """
####

See the testing errors above.
The tests are correct, don't try and change them.
Fix the code in {file} to resolve the errors.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExercismOptions:
    """How the engine is asked, and how many tries an exercise has."""

    model: str = ""
    decoding: DecodingParams = field(default_factory=DecodingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    num_tries: int = 2
    max_tokens: int = DEFAULT_MAX_TOKENS


@dataclass(frozen=True, kw_only=True, slots=True)
class ExercismTask(EvalTask):
    """One try at one exercise. ``output`` is the beginning of the failed tests' output, for tries after the first."""

    exercise: str
    module: str
    instructions: str
    selection: str
    test: str
    example: str
    number: int
    options: ExercismOptions
    output: str = ""

    @property
    def task_id(self) -> str:  # type: ignore[override]
        """The exercise; further tries have their number behind it."""
        return self.exercise if self.number == 1 else f"{self.exercise}/try-{self.number}"

    @property
    def facts(self) -> dict[str, Any]:
        """Which try it is."""
        return {"try": self.number}

    def make_request(self) -> EditRequest:
        """The whole file as the selection."""
        options, file = self.options, f"{self.module}.py"
        told = _ADDENDUM.format(file=file)
        if self.output:
            told = f"\n{self.output}\n{_FAILURES.format(file=file)}"
        return EditRequest(
            selection=self.selection, instruction=fit_instruction(self.instructions, told), language="python",
            path=file, max_tokens=options.max_tokens, model=options.model, decoding=options.decoding,
            sampling=options.sampling,
        )  # fmt: skip

    def read_answer(self, text: str) -> str:
        """The file up to a closing fence."""
        return cut_fence(text)

    def render_program(self, answer: str) -> str:
        """The file beside the exercise's tests."""
        files = {f"{self.module}.py": answer, f"{self.module}_test.py": self.test}
        return render_runner(
            "unittest_files", files=files, test=f"{self.module}_test", max_lines=MAX_OUTPUT_LINES,
            max_characters=MAX_OUTPUT_CHARACTERS,
        )  # fmt: skip

    def render_reference(self) -> str | None:
        """The exercise's example solution; checked once an exercise."""
        return self.render_program(self.example) if self.number == 1 else None

    def retry(self, answer: str, output: str) -> EvalTask | None:
        """The next try: the file as it is now and what the tests said; None where no try is left."""
        if self.number >= self.options.num_tries:
            return None
        # An empty answer left the file empty: there is nothing to edit but the stub.
        selection = answer if answer.strip() else self.selection
        return dataclasses.replace(self, number=self.number + 1, selection=selection, output=output)


def make_exercism(dataset: Dataset, options: ExercismOptions, limit: int | None, seed: int) -> Benchmark:
    """The benchmark over ``limit`` exercises of the file.

    Raises:
        DatasetError: a row lacks a field, a module's name is none, or two exercises have the same ``task_id``.
    """
    tasks = [_make_task(row, options) for row in dataset.rows]
    check_unique([task.exercise for task in tasks], dataset.name)
    return Benchmark(
        name="exercism",
        tasks=tuple(sample_items(tasks, limit, seed)),
        settings={"tries": options.num_tries, "max_tokens": options.max_tokens},
        num_tries=options.num_tries,
    )


def _make_task(row: Row, options: ExercismOptions) -> ExercismTask:
    module = row.text("module")
    if not module.isidentifier():
        raise DatasetError(f"{row.where}: module {module!r} is no name")
    return ExercismTask(
        exercise=row.text("task_id"), module=module, instructions=row.text("instructions"), selection=row.text("stub"),
        test=row.text("test"), example=row.text("example"), number=1, options=options,
    )  # fmt: skip
