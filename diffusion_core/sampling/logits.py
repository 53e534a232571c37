"""From logits to tokens: banned tokens, greedy choice, sampling that is a pure function of (seed, position).

Sampling adds Gumbel noise that depends on the seed and the absolute position only. The token at a position is then
a deterministic function of its logits, so the verified policy may accept a drafted token exactly when it is the
token that the autoregressive policy would have drawn: sampled text is reproduced token for token, not merely in
distribution. For a draft of known tokens the chance of acceptance is p(draft), the optimum of speculative rejection.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffusion_core.requests import SamplingParams
from diffusion_core.sampling.departures import DepartureRecorder

_POSITION_STRIDE = 1_000_003


class TokenChooser:
    """Chooses one token per row. ``banned`` ids are never produced (mask token, padded vocabulary rows).

    ``recorder`` is told of every choice and of what came close to it.
    """

    def __init__(
        self, sampling: SamplingParams, banned: Sequence[int] = (), recorder: DepartureRecorder | None = None
    ) -> None:
        self._sampling, self._recorder = sampling, recorder
        self._banned_ids = frozenset(banned)
        self._banned = torch.tensor(sorted(self._banned_ids), dtype=torch.long)

    @property
    def is_plain(self) -> bool:
        """Whether choosing is a mere argmax: noise and notes take time of their own."""
        return self._sampling.temperature <= 0 and self._recorder is None

    def allow(self, logits: torch.Tensor) -> torch.Tensor:
        """``logits`` [R, V] with banned tokens at minus infinity (paper, section 3.1: the mask logit)."""
        if len(self._banned):
            logits = logits.index_fill(-1, self._banned.to(logits.device), float("-inf"))
        return logits

    def choose(self, logits: torch.Tensor, positions: Sequence[int]) -> list[int]:
        """Tokens of rows ``logits`` [R, V]; ``positions`` [R] are those that the rows speak of."""
        if self.is_plain:
            # Going over all scores once more costs as much as some rows of the model do: only where it matters.
            best = [int(token) for token in logits.argmax(-1).tolist()]
            if self._banned_ids.isdisjoint(best):
                return best
        allowed = logits = self.allow(logits)
        if self._sampling.temperature > 0:
            logits = self._filter(logits / self._sampling.temperature)
            logits = logits + torch.stack([self._noise(p, logits) for p in positions])
        chosen = [int(token) for token in logits.argmax(-1).tolist()]
        if self._recorder is not None:
            self._recorder.note(allowed, positions, chosen)
        return chosen

    def confidence(self, logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        """Probability of each row's token, float32 [R], at temperature 1 and unfiltered (checkpoints.md, pitfall 5)."""
        probabilities = self.allow(logits).softmax(-1)
        index = torch.tensor(tokens, device=logits.device).unsqueeze(-1)
        return probabilities.gather(-1, index).squeeze(-1)

    def _filter(self, logits: torch.Tensor) -> torch.Tensor:
        if self._sampling.top_p >= 1:
            return logits
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        # A token stays while the mass before it is under top_p; the first always stays.
        is_cut = probabilities.cumsum(-1) - probabilities >= self._sampling.top_p
        return logits.masked_fill(is_cut.scatter(-1, order, is_cut), float("-inf"))

    def _noise(self, position: int, like: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed((self._sampling.seed * _POSITION_STRIDE + position) % 2**63)
        uniform = torch.rand(like.shape[-1], generator=generator, dtype=torch.float64)
        # float64 and the clamp: float32 uniforms near 1 would collapse the tail of the Gumbel distribution.
        return -torch.log(-torch.log(uniform.clamp_min(1e-300))).float().to(like.device)
