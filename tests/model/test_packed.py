"""A packed model gives what the plain one gives up to rounding, and a row's bits do not depend on its company."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny_models import tiny_config, tiny_transformer

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.kv_cache import MAX_DECODE_ROWS
from diffusion_core.model.masks import causal
from diffusion_core.model.packed import PackedMatrix, can_pack
from diffusion_core.model.transformer import Transformer

CPU = torch.device("cpu")
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if can_pack(CPU, dtype)]
# Plain and packed products sum in another order; in bfloat16 that is a rounding where the CPU has AMX, else nothing.
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 5e-4}, torch.bfloat16: {"rtol": 2**-7, "atol": 2**-7}}


def test_float32_is_packed_on_every_cpu() -> None:
    assert can_pack(CPU, torch.float32) == torch.backends.mkldnn.is_available()
    assert not can_pack(CPU, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1152, 896), (896, 4864), (300, 64), (7, 33)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_packed_product_equals_the_plain_one(size: tuple[int, int], with_bias: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(size, generator=generator).to(dtype)
    bias = torch.randn(size[0], generator=generator).to(dtype) if with_bias else None
    x = torch.randn(300, size[1], generator=generator).to(dtype)
    packed = PackedMatrix(weight)
    for rows in (2, 3, 7, 16, 33, 96, 300):
        plain = torch.nn.functional.linear(x[:rows], weight, bias)
        torch.testing.assert_close(packed.linear(x[:rows], bias), plain, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1152, 896), (9728, 896), (896, 4864), (1536, 8960), (300, 64)])
def test_a_packed_product_does_not_depend_on_the_number_of_rows(size: tuple[int, int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    # Sums that cancel: what is left of them is what the order of adding made of them.
    half = torch.randn(size[0], size[1] // 2, generator=generator)
    places = torch.randperm(size[1], generator=generator)
    packed = PackedMatrix(torch.cat((half, -half), 1)[:, places].to(dtype))
    x = torch.randn(MAX_DECODE_ROWS, size[1] // 2, generator=generator).repeat(1, 2)[:, places].to(dtype)
    whole = packed.linear(x)
    for rows in (*range(2, 40), 63, 64, 65, 95):
        assert torch.equal(packed.linear(x[:rows].contiguous()), whole[:rows]), rows
        assert torch.equal(packed.linear(x[None, :rows]), whole[None, :rows]), rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("with_adapter", [False, True])
def test_packed_model_equals_the_plain_one(tied: bool, with_adapter: bool, dtype: torch.dtype) -> None:
    plain = tiny_transformer("qwen2" if tied else "llama", seed=3).to(dtype)
    config = plain.config
    adapter = None
    if with_adapter:
        adapter = GatedAdapter(config, rank=4, alpha=8.0, mask_token_id=None)
        adapter.randomise(torch.Generator().manual_seed(4))
        adapter = adapter.to(dtype).requires_grad_(False)
    packed = copy.deepcopy(plain)
    packed.pack()
    ids = torch.arange(40, 52).unsqueeze(0)
    positions = torch.arange(12).unsqueeze(0)
    outputs = []
    for model in (plain, packed):
        hidden = model(ids, positions, causal(12), adapter=adapter, first_slot=8)
        outputs.append(model.logits(hidden))
    torch.testing.assert_close(*outputs, **TOLERANCE[dtype])
    assert packed.num_bytes >= plain.num_bytes


@pytest.mark.parametrize("dtype", DTYPES)
def test_packing_leaves_nothing_of_the_plain_weights(dtype: torch.dtype) -> None:
    model = Transformer(tiny_config(tie_word_embeddings=False)).to(dtype)
    before = model.num_bytes
    model.pack()
    assert model.num_bytes == before
    assert not [name for name in model.state_dict() if "proj" in name and name.endswith("weight")]
