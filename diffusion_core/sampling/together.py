"""Wants of several sequences, answered by one call of the model where that changes no row's bits.

Rows ride together on a CPU, up to ``MAX_DECODE_ROWS`` in all, and on a GPU where a round is one kernel (DECISIONS 1, 41
and 89). Who rides with whom is the caller's choice; here it is only done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.model.masks import round_mask
from diffusion_core.model.together import SequenceRows, evaluate_together
from diffusion_core.model.whole_forward import WholeForward
from diffusion_core.sampling.asking import (
    BestWanted,
    Evaluated,
    GuessesWanted,
    Reading,
    RowsWanted,
    ScoresWanted,
    Want,
)
from diffusion_core.sampling.evaluate import Denoiser


def answer_rows(wants: Sequence[RowsWanted]) -> list[Evaluated]:
    """The outcomes of wants of one denoiser, in one forward; a single one has the forward of its own."""
    if len(wants) == 1:
        return [wants[0].alone()]
    denoiser = wants[0].denoiser
    assert all(want.can_share and want.denoiser is denoiser for want in wants)
    if isinstance(denoiser.captured, WholeForward):
        return _answer_captured(denoiser.captured, wants)
    head = denoiser.draft_head
    outcomes = evaluate_together(
        denoiser.model,
        denoiser.adapter,
        [_rows_of(want) for want in wants],
        taps=head.tap_layers if head is not None else (),
    )
    return [
        Evaluated(hidden, tapped if want.wants_taps else None, num_sequences=len(wants))
        for want, (hidden, tapped) in zip(wants, outcomes, strict=True)
    ]


def _answer_captured(captured: WholeForward, wants: Sequence[RowsWanted]) -> list[Evaluated]:
    """By one captured round; hidden states are valid until the next one."""
    if not all(captured.fits(want.cache, len(want.tokens)) for want in wants):
        return [want.alone() for want in wants]
    chooses = any(want.wants_best for want in wants)
    outputs = captured.evaluate_together([_rows_of(want) for want in wants], chooses=chooses)
    best: list[int] = []
    if chooses and outputs.best is not None:
        captured.wait()
        best = outputs.best.tolist()
    outcomes, start = [], 0
    for want in wants:
        end = start + len(want.tokens)
        own = best[start:end] if want.wants_best else []
        outcomes.append(Evaluated(outputs.hidden[start:end], None, own, num_sequences=len(wants)))
        start = end
    return outcomes


def _rows_of(want: RowsWanted) -> SequenceRows:
    num_rows, first = len(want.tokens), want.cache.length
    return SequenceRows(
        cache=want.cache,
        tokens=want.tokens,
        positions=range(first, first + num_rows) if want.positions is None else want.positions,
        visible=round_mask(num_rows) if want.visible is None else want.visible,
        num_clean=num_rows if want.first_slot is None else want.first_slot,
    )


def answer_readings(wants: Sequence[Want]) -> list[Any]:
    """The outcomes of wants to read hidden states, in as few calls as they allow."""
    outcomes: dict[int, Any] = {}
    for kind, answer in ((ScoresWanted, _answer_scores), (BestWanted, _answer_best), (GuessesWanted, _answer_guesses)):
        groups: dict[int, list[int]] = {}
        for index, want in enumerate(wants):
            if isinstance(want, kind):
                groups.setdefault(id(want.denoiser), []).append(index)
        for indices in groups.values():
            for batch in _in_batches(indices, [len(_hidden_of(wants[index])) for index in indices]):
                denoiser = wants[batch[0]].denoiser
                parts = answer(denoiser, [_hidden_of(wants[index]) for index in batch])
                outcomes.update(zip(batch, parts, strict=True))
    return [outcomes[index] for index in range(len(wants))]


def _hidden_of(want: Want) -> torch.Tensor:
    assert isinstance(want, Reading)
    return want.hidden


def _in_batches(indices: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """``indices`` in runs whose sizes sum up to ``MAX_DECODE_ROWS`` at most, where a single one does not exceed it."""
    batches: list[list[int]] = []
    room = 0
    for index, size in zip(indices, sizes, strict=True):
        if not batches or size > room:
            batches.append([])
            room = MAX_DECODE_ROWS
        batches[-1].append(index)
        room -= size
    return batches


def _reads_alike(denoiser: Denoiser) -> bool:
    """Whether the output head gives a row the same bits among any number of rows."""
    return denoiser.can_share and denoiser.captured is None


def _answer_scores(denoiser: Denoiser, hidden: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if len(hidden) == 1 or not _reads_alike(denoiser):
        return [denoiser.scores(each) for each in hidden]
    scores = denoiser.scores(torch.cat(tuple(hidden)))
    return list(torch.split(scores, [len(each) for each in hidden]))


def _answer_best(denoiser: Denoiser, hidden: Sequence[torch.Tensor]) -> list[list[int]]:
    if len(hidden) == 1 or not _reads_alike(denoiser):
        return [denoiser.best(each) for each in hidden]
    return _deal_out(denoiser.best(torch.cat(tuple(hidden))), hidden)


def _answer_guesses(denoiser: Denoiser, hidden: Sequence[torch.Tensor]) -> list[list[int]]:
    return _deal_out(denoiser.guess(torch.cat(tuple(hidden))), hidden)


def _deal_out(tokens: list[int], hidden: Sequence[torch.Tensor]) -> list[list[int]]:
    """To each of ``hidden`` the tokens of its rows."""
    found, start = [], 0
    for each in hidden:
        found.append(tokens[start : start + len(each)])
        start += len(each)
    return found
