"""What a mask adds to attention's scores: the same as the mask, made once."""

from __future__ import annotations

import pytest
import torch

from diffusion_core.model.masks import Visibility, causal, causal_context, everything


@pytest.mark.parametrize("visible", [causal(5), causal_context(3, (2, 2), (1, 3)), everything(300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_under_the_bias_is_attention_under_the_mask(visible: torch.Tensor, dtype: torch.dtype) -> None:
    group, rows = 3, visible.shape[1]
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(1, 2, group * rows, 16, generator=generator).to(dtype)
    keys, values = (torch.randn(1, 2, rows, 16, generator=generator).to(dtype) for _ in range(2))
    mask = visible[None, None] if len(visible) == 1 else visible.repeat(group, 1)[None, None]
    wanted = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    bias = Visibility(visible.unsqueeze(0)).bias(group, dtype)
    assert bias.dtype == dtype
    assert torch.equal(torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias), wanted)


def test_all_layers_share_one_bias() -> None:
    seen = Visibility(causal(4).unsqueeze(0))
    assert seen.bias(2, torch.float32) is seen.bias(2, torch.float32)
    assert seen.bias(1, torch.float32).shape[2] == 4
    assert seen.bias(2, torch.float32).shape[2] == 8
