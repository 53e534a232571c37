"""What a benchmark asks for each item and how the answer is scored.

:mod:`.infilling`, :mod:`.editing`, :mod:`.generation` and :mod:`.exercism` make them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from diffusion_core.requests import CompletionRequest, EditRequest


class EvalTask(ABC):
    """One item of a benchmark. ``task_id`` is unique within the run; results are kept under it."""

    __slots__ = ()

    task_id: str

    @property
    def facts(self) -> dict[str, Any]:
        """Further fields for the item's result."""
        return {}

    @property
    def obstacle(self) -> str:
        """Why the item cannot be scored on this machine (``no go``); empty where it can."""
        return ""

    @abstractmethod
    def make_request(self) -> CompletionRequest | EditRequest:
        """A fresh request."""

    @abstractmethod
    def read_answer(self, text: str) -> str:
        """The part of the engine's text that is scored."""

    @abstractmethod
    def render_program(self, answer: str) -> str:
        """The program that passes if ``answer`` is right."""

    def render_reference(self) -> str | None:
        """The program of the known right answer, where the environment must be tested with it first."""
        return None

    def retry(self, answer: str, output: str) -> EvalTask | None:
        """The next try after ``answer`` failed with ``output``; None where one try is all there is."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A name, its tasks, and the settings that make two runs comparable.

    ``num_tries`` is how often an item may be tried; a task's :meth:`EvalTask.retry` makes the further tries.
    """

    name: str
    tasks: tuple[EvalTask, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    num_tries: int = 1
