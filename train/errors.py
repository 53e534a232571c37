"""Errors of training that a user can act on; all belong to the tree of ``diffusion_core.errors``. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from diffusion_core.errors import UnmaskError

MAX_NAMED_IDS = 8


class TrainingError(UnmaskError):
    """Training cannot go on; the message says what to change."""

    code: ClassVar[str] = "training"


class TrainingDiverged(TrainingError):
    """A loss or a gradient is not finite. ``seed``, ``step`` and ``batch_ids`` reproduce the batch."""

    code: ClassVar[str] = "training_diverged"

    def __init__(self, what: str, *, seed: int, step: int, batch_ids: Sequence[str]) -> None:
        self.seed, self.step, self.batch_ids = seed, step, tuple(batch_ids)
        shown = ", ".join(self.batch_ids[:MAX_NAMED_IDS]) or "not given"
        more = f" and {len(self.batch_ids) - MAX_NAMED_IDS} more" if len(self.batch_ids) > MAX_NAMED_IDS else ""
        super().__init__(
            f"{what} is not finite at step {step} (seed {seed}, batch {shown}{more}); no later checkpoint was written: "
            "lower optim.learning_rate, or look at that batch"
        )
