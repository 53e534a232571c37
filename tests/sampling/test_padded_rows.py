"""Forwards of more rows than a decoding round: their number is rounded up, and nobody sees the rows that fill up."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import tiny_denoiser

from diffusion_core.model.config import DrafterKind
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS, KVCache
from diffusion_core.model.masks import causal, causal_context
from diffusion_core.sampling.evaluate import ROW_STEP, Denoiser


def fresh_cache(denoiser: Denoiser) -> KVCache:
    return KVCache(denoiser.model.config, capacity=64, dtype=torch.float32)


@pytest.mark.parametrize("rows", [MAX_DECODE_ROWS, MAX_DECODE_ROWS + 1, 127, 128, 255])
def test_the_model_gets_a_rounded_number_of_rows_and_the_answer_is_that_of_the_rows(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.NONE)
    tokens = [(7 * n) % 200 for n in range(rows)]
    plain = denoiser.model(torch.tensor([tokens]), torch.arange(rows)[None], causal(rows), cache=fresh_cache(denoiser))
    seen: list[int] = []
    forward = type(denoiser.model).forward

    def count(self: object, ids: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        seen.append(ids.shape[1])
        return forward(self, ids, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(type(denoiser.model), "forward", count)
    cache = fresh_cache(denoiser)
    found = denoiser.evaluate(cache, tokens)
    assert found.shape == plain[0].shape
    torch.testing.assert_close(found, plain[0], rtol=1e-4, atol=1e-5)
    [given] = seen
    assert given == rows if rows <= MAX_DECODE_ROWS else given % ROW_STEP == 0 and rows <= given < rows + ROW_STEP
    cache.commit(rows)
    again = denoiser.evaluate(cache, tokens[:5])
    other = fresh_cache(denoiser)
    denoiser.model(torch.tensor([tokens]), torch.arange(rows)[None], causal(rows), cache=other)
    other.commit(rows)
    torch.testing.assert_close(again, denoiser.evaluate(other, tokens[:5]), rtol=1e-4, atol=1e-5)


def test_slots_at_the_end_stay_slots() -> None:
    denoiser = tiny_denoiser(drafter=DrafterKind.GATED_ADAPTER)
    assert denoiser.mask_id is not None
    num_clean, size = 120, 4
    tokens = [n % 150 for n in range(num_clean)] + [denoiser.mask_id] * size
    visible = causal_context(num_clean, (size,), (num_clean,))
    found = denoiser.evaluate(fresh_cache(denoiser), tokens, visible=visible, first_slot=num_clean)
    plain = denoiser.model(
        torch.tensor([tokens]), torch.arange(len(tokens))[None], visible,
        cache=fresh_cache(denoiser), adapter=denoiser.adapter, first_slot=num_clean,
    )  # fmt: skip
    torch.testing.assert_close(found, plain[0], rtol=1e-4, atol=1e-5)
