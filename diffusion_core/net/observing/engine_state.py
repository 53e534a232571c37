"""What an engine is and does at one moment, as far as it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from diffusion_core.engine.counters import EngineCounters
from diffusion_core.requests import Health

NO_HEALTH = Health(status="loading", version="", device="", dtype="")


@runtime_checkable
class CountsWork(Protocol):
    """An engine that counts what it does."""

    def counters(self) -> EngineCounters | None:
        """A snapshot; cheap. None while there is no engine yet."""
        ...


@dataclass(frozen=True, kw_only=True)
class EngineState:
    """The engine at one moment. ``num_under_way`` requests are not answered yet, waiting ones among them."""

    health: Health = field(default=NO_HEALTH)
    counters: EngineCounters | None = None
    num_under_way: int = 0

    @property
    def num_queued(self) -> int:
        """Requests that wait for a place."""
        return self.counters.num_queued if self.counters else 0

    @property
    def num_active(self) -> int:
        """Requests that are being computed."""
        return self.counters.num_active if self.counters else self.num_under_way
