"""From logits to tokens: banned tokens, greedy choice, sampling that is a pure function of (seed, position).

Sampling adds Gumbel noise that depends on the seed and the absolute position only. The token at a position is then
a deterministic function of its logits, so the verified policy may accept a drafted token exactly when it is the
token that the autoregressive policy would have drawn: sampled text is reproduced token for token, not merely in
distribution. For a draft of known tokens the chance of acceptance is p(draft), the optimum of speculative rejection.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffusion_core.model.config import Certainty
from diffusion_core.requests import SamplingParams
from diffusion_core.sampling.choice_watch import ChoiceWatch
from diffusion_core.sampling.departures import DepartureRecorder

_POSITION_STRIDE = 1_000_003
# Under the logarithm of the entropy, as the samplers of Dream and its relatives have it.
_TINY = 1e-10


class TokenChooser:
    """Chooses one token per row. ``banned`` ids are never produced (mask token, padded vocabulary rows).

    ``recorder`` is told of every choice and of what came close to it, ``watch`` how probable each was.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        banned: Sequence[int] = (),
        recorder: DepartureRecorder | None = None,
        watch: ChoiceWatch | None = None,
    ) -> None:
        self._sampling, self._recorder, self.watch = sampling, recorder, watch
        self._banned_ids = frozenset(banned)
        self._banned = torch.tensor(sorted(self._banned_ids), dtype=torch.long)

    @property
    def is_plain(self) -> bool:
        """Whether choosing is a mere argmax: noise and notes take time of their own."""
        return self.is_greedy and self._recorder is None and self.watch is None

    @property
    def is_greedy(self) -> bool:
        """Whether the best token is chosen, without noise."""
        return self._sampling.temperature <= 0

    def takes(self, best: Sequence[int]) -> bool:
        """Whether the best tokens of some rows are what :meth:`choose` would choose of their scores."""
        return self.is_plain and self._banned_ids.isdisjoint(best)

    def allow(self, logits: torch.Tensor) -> torch.Tensor:
        """``logits`` [R, V] with banned tokens at minus infinity (paper, section 3.1: the mask logit)."""
        if len(self._banned):
            self._banned = self._banned.to(logits.device)  # once: there they stay
            logits = logits.index_fill(-1, self._banned, float("-inf"))
        return logits

    def choose(self, logits: torch.Tensor, positions: Sequence[int]) -> list[int]:
        """Tokens of rows ``logits`` [R, V], of any dtype; ``positions`` [R] are those that the rows speak of.

        The device is waited for when the tokens are read: once, but where a banned token would have been chosen.
        """
        if self.is_plain:
            # Going over all scores once more costs as much as some rows of the model do: only where it matters.
            # Of equals `max` gives the first too, in a fraction of the time of `argmax`.
            best = [int(token) for token in logits.max(-1).indices.tolist()]
            if self._banned_ids.isdisjoint(best):
                return best
        allowed = self.allow(logits.float())
        chosen: list[int] = self._choose(allowed, positions).tolist()
        self._note(allowed, positions, chosen)
        return chosen

    def _note(self, allowed: torch.Tensor, positions: Sequence[int], chosen: list[int]) -> None:
        for recorder in (self._recorder, self.watch):
            if recorder is not None:
                recorder.note(allowed, positions, chosen)

    def choose_surely(
        self,
        logits: torch.Tensor,
        positions: Sequence[int],
        given: Sequence[int | None],
        certainty: Certainty = Certainty.PROBABILITY,
    ) -> tuple[list[int], torch.Tensor]:
        """As :meth:`choose`, with how sure the model is of each row, float32 [R] on the CPU.

        That is the probability, at temperature 1 and unfiltered (checkpoints.md, pitfall 5), of the row's token in
        ``given`` [R], or of the chosen one where that is None. ``certainty`` may ask for something else, which speaks
        of the whole row and not of ``given``. The device is waited for once.
        """
        allowed = self.allow(logits)
        chosen = self._choose(allowed, positions)
        kept = torch.tensor([-1 if token is None else token for token in given]).to(logits.device, non_blocking=True)
        tokens = torch.where(kept < 0, chosen, kept)
        sure = _measure(allowed.softmax(-1), tokens, certainty)
        # One copy to the host carries both: float64 holds every id and every float32.
        both = torch.stack((chosen.double(), sure.double())).cpu()
        choices = [int(token) for token in both[0].tolist()]
        self._note(allowed, positions, choices)
        return choices, both[1].float()

    def _choose(self, allowed: torch.Tensor, positions: Sequence[int]) -> torch.Tensor:
        """Int64 [R], on the device of the logits."""
        logits = allowed
        if self._sampling.temperature > 0:
            logits = self._filter(logits / self._sampling.temperature)
            logits = logits + torch.stack([self._noise(p, logits) for p in positions])
        return logits.argmax(-1)

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


def _measure(probabilities: torch.Tensor, tokens: torch.Tensor, certainty: Certainty) -> torch.Tensor:
    """How sure rows of ``probabilities`` [R, V] are, float [R]: of ``tokens`` [R], or altogether."""
    match certainty:
        case Certainty.MARGIN:
            first, second = probabilities.topk(2, dim=-1).values.unbind(-1)
            return first - second
        case Certainty.ENTROPY:
            return (probabilities * (probabilities + _TINY).log()).sum(-1)
        case _:
            return probabilities.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
