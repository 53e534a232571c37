"""What the sources of a checkpoint have in common: how they report progress, and one error. No torch."""

from __future__ import annotations

from collections.abc import Callable

from diffusion_core.errors import CheckpointError

Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in total, what is being done); total 0 means not known yet."""


class SourceUnreachable(CheckpointError):
    """A source could not be asked (no network, no answer): another source, or the same one later, may do."""

    code = "source_unreachable"
    retryable = True


def ignore_progress(done: int, total: int, what: str) -> None:
    """The progress callback of a caller that does not want to know."""
