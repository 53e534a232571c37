"""A packed model gives the bits of the plain one."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny_models import tiny_config, tiny_transformer

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.masks import causal
from diffusion_core.model.packed import PackedMatrix, can_pack
from diffusion_core.model.transformer import Transformer

pytestmark = pytest.mark.skipif(
    not can_pack(torch.device("cpu"), torch.bfloat16), reason="this CPU does not compute in bfloat16"
)


@pytest.mark.parametrize("size", [(1152, 896), (896, 4864), (300, 64), (7, 33)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_packed_product_equals_the_plain_one(size: tuple[int, int], with_bias: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(size, generator=generator).bfloat16()
    bias = torch.randn(size[0], generator=generator).bfloat16() if with_bias else None
    x = torch.randn(300, size[1], generator=generator).bfloat16()
    packed = PackedMatrix(weight)
    for rows in (2, 3, 7, 16, 33, 96, 300):
        assert torch.equal(packed.linear(x[:rows], bias), torch.nn.functional.linear(x[:rows], weight, bias)), rows


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("with_adapter", [False, True])
def test_packed_model_equals_the_plain_one(tied: bool, with_adapter: bool) -> None:
    plain = tiny_transformer("qwen2" if tied else "llama", seed=3).bfloat16()
    config = plain.config
    adapter = None
    if with_adapter:
        adapter = GatedAdapter(config, rank=4, alpha=8.0, mask_token_id=None)
        adapter.randomise(torch.Generator().manual_seed(4))
        adapter = adapter.bfloat16().requires_grad_(False)
    packed = copy.deepcopy(plain)
    packed.pack()
    ids = torch.arange(40, 52).unsqueeze(0)
    positions = torch.arange(12).unsqueeze(0)
    outputs = []
    for model in (plain, packed):
        hidden = model(ids, positions, causal(12), adapter=adapter, first_slot=8)
        outputs.append(model.logits(hidden))
    assert torch.equal(*outputs)
    assert packed.num_bytes >= plain.num_bytes


def test_packing_leaves_nothing_of_the_plain_weights() -> None:
    model = Transformer(tiny_config(tie_word_embeddings=False)).bfloat16()
    before = model.num_bytes
    model.pack()
    assert model.num_bytes == before
    assert not [name for name in model.state_dict() if "proj" in name and name.endswith("weight")]
