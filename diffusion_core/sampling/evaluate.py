"""One forward over a sequence: clean tokens and slots behind the committed cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.captured import CapturedForward
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.model.draft_head import DraftHead
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS, KVCache, round_up
from diffusion_core.model.masks import round_mask
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_forward import WholeForward

# Kernels for a single row take another path (matrix times vector) whose sums are split differently, so a lone row
# would not give what the same row gives in company. A forward therefore never has fewer rows than this.
MIN_ROWS = 2

# Kernels are made for a number of rows and never given back (about a megabyte for each number). Where rows are many, a
# few more hardly cost anything: beyond a decoding round their number is a multiple of this.
ROW_STEP = 16

# Rows of one forward while a prompt is computed: between two such forwards a cancel is noticed.
PREFILL_ROWS = 256


@dataclass(frozen=True)
class Denoiser:
    """What evaluates rows: the model, its denoising contract, and at most one drafter.

    With ``captured``, forwards of few rows are rounds of static shape (``captured.py``).
    """

    model: Transformer
    contract: DiffusionConfig
    adapter: GatedAdapter | None = None
    draft_head: DraftHead | None = None
    captured: CapturedForward | WholeForward | None = None

    @property
    def mask_id(self) -> int | None:
        """The id that stands for an unknown token in a draft; None when the checkpoint has no use for one."""
        if self.adapter is not None:
            return self.adapter.mask_token_id
        return self.contract.mask_token_id

    @property
    def has_slots(self) -> bool:
        """Whether mask slots can ride in the model's own forwards."""
        return self.mask_id is not None and self.draft_head is None

    @property
    def can_share(self) -> bool:
        """Whether rows of several sequences may share a forward, up to :attr:`most_shared_rows`."""
        return self.captured.can_share if self.captured is not None else self.model.device.type == "cpu"

    @property
    def most_shared_rows(self) -> int:
        """Rows of a forward that several sequences share, at most."""
        return self.max_round_rows or MAX_DECODE_ROWS

    @property
    def prefills_in_rounds(self) -> bool:
        """Whether prompts are computed by captured rounds too, what looks ahead included.

        Rounds that sequences share give a row the same bits in any company, and so wherever a prompt is cut.
        """
        return self.captured is not None and self.captured.can_share

    @property
    def prefill_rows(self) -> int:
        """Rows of one forward while a prompt is computed."""
        return self.most_shared_rows if self.prefills_in_rounds else PREFILL_ROWS

    @property
    def max_round_rows(self) -> int | None:
        """Rows that a decoding round should not exceed; None: any number."""
        return None if self.captured is None else self.captured.max_rows

    @property
    def round_sizes(self) -> Sequence[int]:
        """Numbers of rows to which decoding rounds are filled up; empty: to none."""
        return () if self.captured is None else self.captured.row_buckets

    def later(self, work: Callable[[], None]) -> None:
        """Do ``work``, which decides nothing before the next forward: while the device is at that, if it is another."""
        if self.captured is None:
            work()
        else:
            self.captured.meanwhile.add(work)

    @torch.inference_mode()
    def evaluate(
        self,
        cache: KVCache,
        tokens: Sequence[int],
        *,
        positions: Sequence[int] | None = None,
        visible: torch.Tensor | None = None,
        first_slot: int | None = None,
        tapped: list[torch.Tensor] | None = None,
        best: list[int] | None = None,
    ) -> torch.Tensor:
        """Hidden states [T, D] of rows ``tokens`` behind the cache; nothing is committed.

        Positions default to those right behind the cache, visibility to causal. Rows from ``first_slot`` on are
        slots. ``tapped`` receives the draft head's taps, [1, T, D] each; ``best`` the best token of each row where
        the round takes it itself (captured rounds do), else it stays empty.
        """
        rows = len(tokens)
        if positions is None:
            positions = range(cache.length, cache.length + rows)
        if visible is None:
            visible = round_mask(rows)
        captured = self.captured
        if captured is not None and captured.fits(cache, rows):
            chooses = best is not None
            outputs = captured.evaluate(cache, tokens, positions, visible, first_slot, chooses=chooses)
            if tapped is not None:
                tapped[:] = [x.unsqueeze(0) for x in outputs.tapped]
            if best is not None and outputs.best is not None:
                captured.wait()
                best[:] = outputs.best.tolist()[:rows]
            return outputs.hidden
        if captured is not None:
            captured.meanwhile.do()
        ids, places = list(tokens), list(positions)
        if (lacking := self._rows_lacking(rows, visible)) > 0:
            # Padding rows see only themselves, and no real row sees them.
            ids += [0] * lacking
            places += [places[-1]] * lacking
            padded = torch.eye(rows + lacking, dtype=torch.bool)
            padded[:rows, :rows] = visible
            visible = padded
        device = self.model.device
        hidden = self.model(
            torch.tensor([ids], device=device),
            torch.tensor([places], device=device),
            visible,
            cache=cache,
            adapter=self.adapter if first_slot is not None else None,
            first_slot=first_slot,
            taps=self.draft_head.tap_layers if self.draft_head is not None and tapped is not None else (),
            tapped=tapped,
        )
        if tapped is not None:
            tapped[:] = [x[:, :rows] for x in tapped]
        return hidden[0, :rows]  # type: ignore[no-any-return]

    def _rows_lacking(self, rows: int, visible: torch.Tensor) -> int:
        """How many rows are added that nobody reads."""
        if rows > MAX_DECODE_ROWS and len(visible) == rows and self.model.device.type == "cpu":
            return round_up(rows, ROW_STEP) - rows
        return max(0, MIN_ROWS - rows)

    @property
    def guesses_apart(self) -> bool:
        """Whether slots are read by :meth:`GatedAdapter.guess`; captured rounds read them with everything else."""
        return self.adapter is not None and self.adapter.has_own_head and self.captured is None

    def guess(self, hidden: torch.Tensor) -> list[int]:
        """Tokens of slots by their hidden states [R, D], by the drafter's own small head."""
        assert self.adapter is not None
        return self.adapter.guess(hidden)

    def guess_surely(self, hidden: torch.Tensor) -> tuple[list[int], list[float]]:
        """As :meth:`guess`, with the probabilities that the small head gives them."""
        assert self.adapter is not None
        return self.adapter.guess_surely(hidden)

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores [R, V], float32, of hidden states [R, D]."""
        return self.scores(hidden).float()

    @torch.inference_mode()
    def best(self, hidden: torch.Tensor) -> list[int]:
        """The token with the highest score of each row [R, D], the first of equals."""
        rows = hidden.shape[0]
        lone = hidden if rows >= MIN_ROWS else torch.cat((hidden, hidden[:1].expand(MIN_ROWS - rows, -1)))
        tokens: list[int] = self.model.best(lone)[:rows].tolist()
        return tokens

    @torch.inference_mode()
    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """As :meth:`logits`, in the dtype in which the head gives them: to wide rows float32 is a pass of its own."""
        rows, wanted = hidden.shape[0], MIN_ROWS
        if self.captured is not None and rows <= self.captured.max_rows:
            wanted = max(MIN_ROWS, self.captured.rows_to_score(rows))
        if rows >= wanted:
            return self.model.scores(hidden)
        padded = torch.cat((hidden, hidden[:1].expand(wanted - rows, -1)))
        return self.model.scores(padded)[:rows]
