"""What captured rounds cost by their size, and the block of slots that goes with it.

A round takes the time of its size, whatever it has. Slots behind every length of a block's draft are (b + 1)^2 rows, so
one slot less may make all rounds a size smaller.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

from diffusion_core.model.masks import causal
from diffusion_core.sampling.evaluate import Denoiser
from diffusion_core.sampling.sequence import SequenceCache

_NUM_KEYS, _NUM_SAMPLES = 256, 5
# Chances are known by the place in a draft, of whatever blocks there were. The last slot of a small one is right less
# often than the same one in the middle of a larger one (0.50 for 0.64 of the shipped drafter's third): small blocks
# count for so much of what they seem to promise.
_SMALLER_COUNTS = 0.95


@torch.inference_mode()
def time_sizes(denoiser: Denoiser) -> dict[int, float]:
    """Milliseconds of a captured round with the best tokens brought to the host, by its size: the least of several.

    All rows but one are slots where the model has a drafter for them. Empty where rounds are not captured.
    """
    found: dict[int, float] = {}
    captured = denoiser.captured
    for size in denoiser.round_sizes:
        cache = SequenceCache.create(denoiser, _NUM_KEYS + size).base
        cache.commit(_NUM_KEYS)
        if captured is None or not captured.fits(cache, size):
            continue  # contexts are shorter than that
        mask_id, first_slot = 0, None
        if denoiser.adapter is not None:
            mask_id, first_slot = denoiser.adapter.mask_token_id, 1
        tokens, visible = [0] + [mask_id] * (size - 1), causal(size)
        for _ in range(_NUM_SAMPLES):
            begin, best = time.perf_counter(), list[int]()
            denoiser.evaluate(cache, tokens, visible=visible, first_slot=first_slot, best=best)
            assert len(best) == size, "they were waited for"
            ms = (time.perf_counter() - begin) * 1000
            found[size] = min(ms, found.get(size, ms))
    return found


def choose_block(most: int, size_ms: Mapping[int, float], reach: Sequence[float]) -> int:
    """The block, ``most`` slots at most, whose drafts promise the most tokens a millisecond.

    ``reach`` says how likely the first n of a draft are all right, for n from 0 on (:meth:`DraftStatistics.reach`).
    """
    sizes = sorted(size_ms)

    def rate(block: int) -> float:
        rows = (block + 1) ** 2
        size = next((size for size in sizes if size >= rows), None)
        if size is None:
            return 0.0
        # A token of each length that is right, and the one that the round adds.
        return sum(reach[: block + 1]) / size_ms[size] * (1.0 if block == most else _SMALLER_COUNTS)

    return max(range(most, 0, -1), key=rate)
