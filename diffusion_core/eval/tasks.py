"""What a benchmark asks for each item and how the answer is scored; :mod:`.infilling` and :mod:`.editing` make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from diffusion_core.requests import CompletionRequest, EditRequest


class EvalTask(Protocol):
    """One item of a benchmark."""

    @property
    def task_id(self) -> str:
        """Unique within the run; results are kept under it."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Further fields for the item's result."""
        ...

    def make_request(self) -> CompletionRequest | EditRequest:
        """A fresh request."""
        ...

    def read_answer(self, text: str) -> str:
        """The part of the engine's text that is scored."""
        ...

    def render_program(self, answer: str) -> str:
        """The program that passes if ``answer`` is right."""
        ...

    def render_reference(self) -> str | None:
        """The program of the known right answer, where the environment must be tested with it first."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A name, its tasks, and the settings that make two runs comparable."""

    name: str
    tasks: tuple[EvalTask, ...]
    settings: dict[str, Any] = field(default_factory=dict)
