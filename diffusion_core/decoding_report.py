"""How an engine decodes: what its forwards cost, which rounds it takes, how far its drafts are accepted; no text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardCost:
    """Milliseconds of a forward of ``rows`` rows: the layers, the head if all rows are scored, what slots add."""

    rows: int
    body_ms: float
    head_ms: float
    slots_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftReport:
    """Drafts of one source: those verified, their tokens, and how many were accepted.

    ``acceptance`` is by offset: the share of right tokens, of the times that all before were right. It counts also
    drafts that were not verified, as far as the text tells.
    """

    source: str
    num_drafts: int
    num_drafted: int
    num_accepted: int
    acceptance: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingReport:
    """How one model decodes under `verified`.

    ``costs`` is empty until the model is measured; ``pace`` is how much longer forwards take at present than then.
    ``round_shape`` is where slots ride: ``two_pass``, ``optimistic``, ``all_lengths``, ``draft_head``; ``none``: they
    do not pay; empty: there is no drafter, or nothing was decoded yet. ``block_size`` is how many. ``native``: its
    forwards run in kernels compiled for this CPU.
    """

    model: str
    num_threads: int = 0
    costs: tuple[ForwardCost, ...] = ()
    pace: float = 1.0
    block_size: int = 0
    round_shape: str = ""
    num_rounds: int = 0
    num_tokens: int = 0
    drafts: tuple[DraftReport, ...] = ()
    native: bool = False

    @property
    def tokens_per_forward(self) -> float:
        """Committed tokens per forward so far; 0 when there was none."""
        return self.num_tokens / self.num_rounds if self.num_rounds else 0.0
