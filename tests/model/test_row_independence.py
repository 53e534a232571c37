"""While decoding, a row's bits do not depend on the rows beside it: `verified` rests on that in bfloat16 too."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_models import tiny_config

from diffusion_core.model.config import DiffusionConfig
from diffusion_core.model.kv_cache import KEY_BUCKET, KVCache, equal_spans, with_cache
from diffusion_core.model.masks import causal
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.evaluate import Denoiser


@pytest.mark.parametrize("start", [KEY_BUCKET - 9, KEY_BUCKET - 1, KEY_BUCKET, 3 * KEY_BUCKET - 5])
def test_rows_together_equal_rows_one_by_one_across_a_bucket(start: int) -> None:
    torch.manual_seed(start)
    config = tiny_config(hidden_size=256, intermediate_size=512, num_layers=3, num_heads=8, head_dim=32)
    model = Transformer(config).bfloat16().eval().requires_grad_(False)
    denoiser = Denoiser(model, DiffusionConfig(prompt_format="plain/1"))
    tokens = torch.randint(0, 250, (start + 24,)).tolist()

    def prefilled() -> KVCache:
        cache = KVCache(config, capacity=start, dtype=torch.bfloat16)
        denoiser.evaluate(cache, tokens[:start])
        cache.commit(start)
        return cache

    together = denoiser.evaluate(prefilled(), tokens[start:])
    cache, rows = prefilled(), []
    for token in tokens[start:]:
        rows.append(denoiser.evaluate(cache, [token]))
        cache.commit(1)
    assert torch.equal(together, torch.cat(rows))


def test_spans_follow_the_last_key_that_a_row_sees() -> None:
    visible = with_cache(causal(10), KEY_BUCKET - 4)
    assert equal_spans(visible) == ((0, 4, KEY_BUCKET), (4, 10, 2 * KEY_BUCKET))
    assert equal_spans(with_cache(causal(3), 5)) == ((0, 3, KEY_BUCKET),)
    assert equal_spans(torch.ones(4, 7, dtype=torch.bool)) == ((0, 4, 7),)
