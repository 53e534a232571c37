"""CanItEdit: change a file by an instruction, scored by running the item's tests on the edited file.

Each item has two instructions, a descriptive and a lazy one. Items import libraries that may be missing here: an
item whose own reference does not pass is unsupported, not failed, and the engine is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import SequenceMatcher
from enum import StrEnum
from typing import Any

from diffusion_core.eval.dataset import Dataset, Row, sample_items
from diffusion_core.eval.infilling import check_unique
from diffusion_core.eval.tasks import Benchmark, EvalTask
from diffusion_core.requests import DecodingParams, EditRequest, SamplingParams


class InstructionKind(StrEnum):
    """Which instruction of an item is given."""

    DESCRIPTIVE = "descriptive"
    LAZY = "lazy"


@dataclass(frozen=True, kw_only=True, slots=True)
class EditingOptions:
    """How the engine is asked."""

    model: str = ""
    decoding: DecodingParams = field(default_factory=DecodingParams)
    sampling: SamplingParams = field(default_factory=SamplingParams)
    kinds: tuple[InstructionKind, ...] = tuple(InstructionKind)
    max_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EditingTask(EvalTask):
    """One item with one of its instructions."""

    task_id: str
    before: str
    after: str
    tests: str
    kind: InstructionKind
    instruction: str
    options: EditingOptions

    @property
    def facts(self) -> dict[str, Any]:
        """The kind, and which part of the lines the reference changes."""
        return {"kind": self.kind.value, "changed_lines": round(measure_change(self.before, self.after), 4)}

    def make_request(self) -> EditRequest:
        """The whole file as the selection."""
        options = self.options
        return EditRequest(
            selection=self.before, instruction=self.instruction, language="python", max_tokens=options.max_tokens,
            model=options.model, decoding=options.decoding, sampling=options.sampling,
        )  # fmt: skip

    def read_answer(self, text: str) -> str:
        """The edited file as it came."""
        return text

    def render_program(self, answer: str) -> str:
        """The edited file followed by its tests."""
        return f"{answer}\n\n{self.tests}"

    def render_reference(self) -> str:
        """The reference solution followed by the tests."""
        return self.render_program(self.after)


def measure_change(before: str, after: str) -> float:
    """Changed lines (replaced, deleted or inserted) as a part of the lines of ``before``."""
    old, new = before.splitlines(), after.splitlines()
    opcodes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    changed = sum(max(a2 - a1, b2 - b1) for tag, a1, a2, b1, b2 in opcodes if tag != "equal")
    return changed / max(1, len(old))


def make_editing(dataset: Dataset, options: EditingOptions, limit: int | None, seed: int) -> Benchmark:
    """The benchmark over ``limit`` items of the file, each with every kind of instruction asked for.

    Raises:
        DatasetError: a row lacks a field, or two have the same ``full_name``.
    """
    check_unique([row.text("full_name") for row in dataset.rows], dataset.name)
    by_row = [[_make_task(row, kind, options) for kind in options.kinds] for row in dataset.rows]
    return Benchmark(
        name="editing",
        tasks=tuple(task for tasks in sample_items(by_row, limit, seed) for task in tasks),
        settings={"max_tokens": options.max_tokens},
    )


def _make_task(row: Row, kind: InstructionKind, options: EditingOptions) -> EditingTask:
    return EditingTask(
        task_id=f"{row.text('full_name')}/{kind}", before=row.text("before"), after=row.text("after"),
        tests=row.text("tests"), kind=kind, instruction=row.text(f"instruction_{kind}"), options=options,
    )  # fmt: skip
