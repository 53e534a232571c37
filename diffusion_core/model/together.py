"""One forward for rows of several sequences, each over its own keys and values.

The weights are read once for all rows: embeddings, linear layers, norms and the adapter take all of them together, and
only attention goes sequence by sequence, in the tiles of ``tiles.py``. While the rows are few enough for a decoding
round, each one's bits are those that it has in a forward of its own (DECISIONS 1): the kernels treat rows alike
whatever rides along, and a row's attention knows nothing of other sequences.

All clean rows come first, then all slots, so that the adapter acts on one run of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS, KVCache, equal_spans
from diffusion_core.model.layers import ForwardContext
from diffusion_core.model.masks import Visibility
from diffusion_core.model.native_forward import RowsOf
from diffusion_core.model.parts import Part
from diffusion_core.model.tiles import tile_height, tile_spans
from diffusion_core.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class SequenceRows:
    """Rows of one sequence: ``tokens`` at ``positions`` behind ``cache``, ``visible`` bool [T, T] to each other.

    The first ``num_clean`` are clean, the others slots.
    """

    cache: KVCache
    tokens: Sequence[int]
    positions: Sequence[int]
    visible: torch.Tensor
    num_clean: int


@torch.inference_mode()
def evaluate_together(
    model: Transformer,
    adapter: GatedAdapter | None,
    sequences: Sequence[SequenceRows],
    *,
    taps: Sequence[int] = (),
) -> list[tuple[torch.Tensor, list[torch.Tensor]]]:
    """Hidden states [T, D] of each sequence's rows, and one [1, T, D] for each of ``taps``; nothing is committed.

    There must be at least 2 rows and at most ``MAX_DECODE_ROWS`` in all, and no cache twice.
    """
    total = sum(len(rows.tokens) for rows in sequences)
    assert 2 <= total <= MAX_DECODE_ROWS
    num_clean = sum(rows.num_clean for rows in sequences)
    clean = accumulate((rows.num_clean for rows in sequences), initial=0)
    slots = accumulate((len(rows.tokens) - rows.num_clean for rows in sequences), initial=num_clean)
    device = model.device
    ids = torch.tensor([_in_order(sequences, [list(rows.tokens) for rows in sequences])], device=device)
    positions = torch.tensor([_in_order(sequences, [list(rows.positions) for rows in sequences])], device=device)
    adapter = adapter if num_clean < total else None
    ranges = list(zip(pairwise(clean), pairwise(slots), strict=True))
    if model.native is not None:
        places = [(*range(*clean_range), *range(*slot_range)) for clean_range, slot_range in ranges]
        own = [RowsOf(rows.cache, at, rows.visible) for rows, at in zip(sequences, places, strict=True)]
        found: list[torch.Tensor] = []
        hidden = model.run_native(
            *(ids, positions, own), adapter=adapter, first_slot=num_clean, taps=taps, tapped=found
        )[0]
        return [(hidden[list(at)], [each[:, list(at)] for each in found]) for at in places]
    parts = [
        _lay_out(model, rows, clean_range, slot_range)
        for rows, (clean_range, slot_range) in zip(sequences, ranges, strict=True)
    ]
    x = model.embed(ids, adapter)
    nothing = Visibility(torch.empty(0, dtype=torch.bool))  # each part has its own mask
    context = ForwardContext(model.rope(positions, x.dtype), nothing, None, adapter, num_clean, parts=tuple(parts))
    tapped: list[torch.Tensor] = []
    for number, layer in enumerate(model.layers):
        if number in taps:
            tapped.append(x)
        x = layer(x, context)
    if len(model.layers) in taps:
        tapped.append(x)
    hidden = model.norm(x)
    return [(part.take(hidden, 1)[0], [part.take(each, 1) for each in tapped]) for part in parts]


def _in_order(sequences: Sequence[SequenceRows], values: list[list[int]]) -> list[int]:
    """One value for each row: those of all clean rows, then those of all slots."""
    pairs = list(zip(sequences, values, strict=True))
    clean = [value for rows, own in pairs for value in own[: rows.num_clean]]
    return clean + [value for rows, own in pairs for value in own[rows.num_clean :]]


def _lay_out(model: Transformer, rows: SequenceRows, clean: tuple[int, int], slots: tuple[int, int]) -> Part:
    cache = rows.cache
    cache.reserve(cache.length + len(rows.tokens))
    visible = cache.widen(rows.visible)
    spans = equal_spans(visible)
    group = model.config.num_heads // model.config.num_kv_heads
    height = tile_height(model.device, model.dtype)
    return Part(cache, clean, slots, tile_spans(visible.to(model.device), spans, height, group, model.dtype))
