"""HumanEval infilling: what belongs between a prompt and a suffix, scored by running the function's tests.

Files of openai/human-eval-infilling (single-line, multi-line, random span). Two properties of a file decide how an
answer is read, never a single item:

* all holes are one line: the engine is asked for a single line and only the first line counts;
* all holes are whole lines: the line break that ends the hole is part of it, so a single line gets one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from diffusion_core.eval.dataset import Dataset, DatasetError, Row, sample_items
from diffusion_core.eval.tasks import Benchmark, EvalTask
from diffusion_core.requests import CompletionRequest, DecodingParams, SamplingParams


@dataclass(frozen=True, kw_only=True, slots=True)
class InfillingOptions:
    """How the engine is asked. ``single_line`` None: decided by the file."""

    model: str = ""
    decoding: DecodingParams = field(default_factory=DecodingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    single_line: bool | None = None
    stop_at_scope: bool = True
    max_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class InfillingTask(EvalTask):
    """One hole."""

    task_id: str
    prompt: str
    suffix: str
    test: str
    entry_point: str
    single_line: bool
    whole_lines: bool
    options: InfillingOptions

    def make_request(self) -> CompletionRequest:
        """The hole as a completion."""
        options = self.options
        return CompletionRequest(
            prefix=self.prompt, suffix=self.suffix, language="python", single_line=self.single_line,
            stop_at_scope=options.stop_at_scope, max_tokens=options.max_tokens, model=options.model,
            decoding=options.decoding, sampling=options.sampling,
        )  # fmt: skip

    def read_answer(self, text: str) -> str:
        """The text itself; of a single line the first line, ended the way the file's holes end."""
        if not self.single_line:
            return text
        line = text.split("\n", 1)[0]
        return line + "\n" if self.whole_lines else line

    def render_program(self, answer: str) -> str:
        """The whole file followed by its test."""
        return f"{self.prompt}{answer}{self.suffix}\n{self.test}\ncheck({self.entry_point})\n"


def make_infilling(dataset: Dataset, options: InfillingOptions, limit: int | None, seed: int) -> Benchmark:
    """The benchmark over ``limit`` items of the file.

    Raises:
        DatasetError: a row lacks a field, or two have the same ``task_id``.
    """
    solutions = [row.text("canonical_solution") for row in dataset.rows]
    single_line = options.single_line
    if single_line is None:
        single_line = all("\n" not in solution.removesuffix("\n") for solution in solutions)
    whole_lines = all(solution.endswith("\n") for solution in solutions)
    tasks = [_make_task(row, single_line, whole_lines, options) for row in dataset.rows]
    check_unique([task.task_id for task in tasks], dataset.name)
    return Benchmark(
        name="infilling",
        tasks=tuple(sample_items(tasks, limit, seed)),
        settings={
            "single_line": single_line,
            "stop_at_scope": options.stop_at_scope,
            "max_tokens": options.max_tokens,
        },
    )


def check_unique(task_ids: list[str], where: str) -> None:
    """Raise :class:`DatasetError` if an id occurs twice: results are kept by id."""
    seen: set[str] = set()
    for task_id in task_ids:
        if task_id in seen:
            raise DatasetError(f"{where}: the id {task_id!r} occurs twice")
        seen.add(task_id)


def _make_task(row: Row, single_line: bool, whole_lines: bool, options: InfillingOptions) -> InfillingTask:
    entry_point = row.text("entry_point")
    if not entry_point.isidentifier():
        raise DatasetError(f"{row.where}: entry_point {entry_point!r} is no name")
    return InfillingTask(
        task_id=row.text("task_id"), prompt=row.text("prompt"), suffix=row.text("suffix"), test=row.text("test"),
        entry_point=entry_point, single_line=single_line, whole_lines=whole_lines, options=options,
    )  # fmt: skip
