"""Weights in 4 bits: products near the exact ones by either way, and a row's bits independent of the rows beside it."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.tiny_models import SHAPES, tiny_adapter, tiny_config

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import DiffusionConfig, ModelConfig
from diffusion_core.model.int4 import Int4Weight, quantize_int4, unpack_numbers, widen
from diffusion_core.model.int4_cpu import Int4Matrix, fits_kernel, why_no_int4_kernel
from diffusion_core.model.int4_cuda import fits_cuda_kernel
from diffusion_core.model.kv_cache import KEY_BUCKET, MAX_DECODE_ROWS, KVCache
from diffusion_core.model.masks import causal
from diffusion_core.model.packed import PackedLinear, ServingMatrix, serving_matrix
from diffusion_core.model.quantization import GROUP_SIZE, Quantization
from diffusion_core.model.quantized import quantize_weight
from diffusion_core.model.tiled import TiledMatrix, tile_int4, tile_int8
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.evaluate import Denoiser

SIZES = [(1152, 896), (896, 4864), (208, 64), (16, 32)]
DTYPES = [torch.float32, torch.bfloat16]
has_kernel = not why_no_int4_kernel()
WAYS = ["tiled", pytest.param("kernel", marks=pytest.mark.skipif(not has_kernel, reason=why_no_int4_kernel()))]


def random_weight(size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 0.02


def matrix_of(weight: Int4Weight, way: str) -> ServingMatrix:
    return Int4Matrix(weight) if way == "kernel" else tile_int4(weight)


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def test_numbers_come_back_as_they_were_stored() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(8, 32)
    numbers = unpack_numbers(values)
    assert torch.equal(numbers[:, ::2] * 16 + numbers[:, 1::2], values)
    assert numbers[0, :6].tolist() == [0, 0, 0, 1, 0, 2]


def test_a_weight_is_near_its_4_bits() -> None:
    weight = random_weight((64, 256))
    found = widen(quantize_int4(weight), torch.float32)
    # 16 levels over the span of 32 normal numbers, about four deviations: a step is 0.28 of one, its error 0.08.
    assert 0.05 < relative_error(found, weight) < 0.09


def test_cutting_a_span_off_is_better_than_not() -> None:
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(1)) ** 3
    grouped = weight.view(64, -1, GROUP_SIZE)
    step = (grouped.amax(-1) - grouped.amin(-1)) / 15
    plain = ((grouped - grouped.amin(-1, True)) / step.unsqueeze(-1)).round() * step.unsqueeze(-1)
    plain += grouped.amin(-1, True)
    found = widen(quantize_int4(weight), torch.float32)
    assert relative_error(found, weight) < relative_error(plain.view(64, -1), weight)


def test_groups_are_independent_and_strange_ones_stay_finite() -> None:
    weight = random_weight((4, 3 * GROUP_SIZE))
    weight[1] = 0
    weight[2, :GROUP_SIZE] = 0.75
    weight[3, 0] = 1000
    quantized = quantize_int4(weight)
    found = widen(quantized, torch.float32)
    assert bool(found[1].abs().max() < 1e-6)
    assert torch.allclose(found[2, :GROUP_SIZE], torch.tensor(0.75), rtol=0.004)
    assert relative_error(found[3, GROUP_SIZE:], weight[3, GROUP_SIZE:]) < 0.1
    alone = quantize_int4(weight[:, GROUP_SIZE : 2 * GROUP_SIZE])
    assert torch.equal(alone.groups[:, 0], quantized.groups[:, 1])


def test_a_weight_that_cannot_be_grouped_is_refused() -> None:
    with pytest.raises(CheckpointError, match="48 inputs, no multiple of 32: int4 cannot hold it, use int8"):
        quantize_int4(random_weight((4, 48)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rows", [1, 9, MAX_DECODE_ROWS + 5])
def test_the_product_is_near_that_of_the_4_bit_weight(
    size: tuple[int, int], dtype: torch.dtype, way: str, rows: int
) -> None:
    weight = quantize_int4(random_weight(size, 2))
    generator = torch.Generator().manual_seed(3)
    bias = torch.randn(size[0], generator=generator).to(dtype)
    x = torch.randn(rows, size[1], generator=generator).to(dtype)
    found = matrix_of(weight, way).linear(x, bias)
    exact = torch.nn.functional.linear(x.double(), widen(weight, torch.float64), bias.double())
    assert found.dtype == dtype
    rounds = dtype == torch.bfloat16 or (way == "kernel" and rows <= MAX_DECODE_ROWS)
    assert relative_error(found.double(), exact) < (0.006 if rounds else 1e-5)
    assert matrix_of(weight, way).scores(x.view(1, rows, -1)).shape == (1, rows, size[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_a_row_does_not_depend_on_its_company(size: tuple[int, int], dtype: torch.dtype, way: str) -> None:
    generator = torch.Generator().manual_seed(5)
    matrix = matrix_of(quantize_int4(random_weight(size, 4)), way)
    bias = torch.randn(size[0], generator=generator).to(dtype)
    x = torch.randn(MAX_DECODE_ROWS, size[1], generator=generator).to(dtype)
    whole = matrix.linear(x, bias)
    for rows in (*range(1, 35), 63, 64, 65, MAX_DECODE_ROWS):
        assert torch.equal(matrix.linear(x[:rows].contiguous(), bias), whole[:rows]), rows
    # Another place among other rows.
    assert torch.equal(matrix.linear(x[7:20].contiguous(), bias), whole[7:20])


def test_8_bits_in_tiles_are_the_weights_they_stand_for() -> None:
    weight = quantize_weight(random_weight((300, 64), 6))
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(7))
    exact = x.double() @ (weight.values.double() * weight.scales.double()[:, None]).T
    assert relative_error(tile_int8(weight).linear(x).double(), exact) < 1e-5


@pytest.mark.skipif(not has_kernel, reason=why_no_int4_kernel())
@pytest.mark.parametrize("num_out", [16, 48, 64, 80, 2000])
def test_numbers_are_read_back_out_of_the_kernels_order(num_out: int) -> None:
    weight = quantize_int4(random_weight((num_out, 64), 8))
    matrix = Int4Matrix(weight)
    for start, stop in ((0, num_out), (3, num_out), (num_out // 2, num_out - 1), (0, 1)):
        assert torch.equal(matrix._numbers(start, stop), unpack_numbers(weight.values)[start:stop])


def test_a_size_that_the_kernel_does_not_take_is_tiled() -> None:
    weight = quantize_int4(random_weight((40, 64)))
    assert not fits_kernel(weight)
    assert isinstance(serving_matrix(weight), TiledMatrix)


def test_a_gpus_kernel_is_not_asked_of_other_devices() -> None:
    assert not fits_cuda_kernel(quantize_int4(random_weight((64, 128))))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize("rows", [1, 64, 300])
def test_a_gpus_kernel_is_near_the_4_bit_weight(rows: int) -> None:
    weight = quantize_int4(random_weight((1152, 896), 2).cuda())
    assert fits_cuda_kernel(weight)
    x = torch.randn(rows, 896, generator=torch.Generator().manual_seed(3)).to("cuda", torch.bfloat16)
    exact = x.double() @ widen(weight, torch.float64).T
    assert relative_error(serving_matrix(weight).linear(x).double(), exact) < 0.006


def wide_config(shape: str) -> ModelConfig:
    return tiny_config(shape, hidden_size=256, intermediate_size=512, num_layers=3, num_heads=8, head_dim=32)


def random_model(config: ModelConfig, seed: int) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(config).eval().requires_grad_(False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_forward_is_near_the_plain_one(shape: str, dtype: torch.dtype) -> None:
    plain = random_model(wide_config(shape), 7)
    ids, positions = torch.arange(40, 72).unsqueeze(0), torch.arange(32).unsqueeze(0)
    wanted = plain.logits(plain(ids, positions, causal(32)))
    model = copy.deepcopy(plain).to(dtype)
    model.pack(quantize=Quantization.INT4)
    found = model.logits(model(ids, positions, causal(32)))
    assert 0.01 < relative_error(found, wanted) < 0.2
    # The loss is that of the 4 bits: with the weights they stand for a plain model says nearly the same.
    widened = copy.deepcopy(plain)
    for module in widened.modules():
        if isinstance(module, torch.nn.Linear) and module is not widened.lm_head:
            module.weight.data = widen(quantize_int4(module.weight.to(dtype)), torch.float32)
    near = widened.logits(widened(ids, positions, causal(32)))
    assert relative_error(found, near) < (0.02 if dtype == torch.float32 else 0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_layers_weigh_five_bits_a_weight(shape: str) -> None:
    model = random_model(wide_config(shape), 8).bfloat16()
    linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not model.lm_head]
    count = sum(linear.weight.numel() for linear in linears)
    model.pack(quantize=Quantization.INT4)
    packed = [m for m in model.modules() if isinstance(m, PackedLinear)]
    assert len(packed) == len(linears)
    assert sum(linear.matrix.num_bytes for linear in packed) == count * 5 // 8


@pytest.mark.parametrize("start", [KEY_BUCKET - 9, 3 * KEY_BUCKET - 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_slots", [False, True])
def test_rows_together_equal_rows_one_by_one(start: int, dtype: torch.dtype, with_slots: bool) -> None:
    model = random_model(wide_config("qwen2"), start).to(dtype)
    model.pack(quantize=Quantization.INT4)
    adapter = tiny_adapter(model.config).to(dtype)
    denoiser = Denoiser(model, DiffusionConfig(prompt_format="plain/1"), adapter)
    tokens = torch.randint(0, 250, (start + 24,), generator=torch.Generator().manual_seed(start)).tolist()

    def prefilled() -> KVCache:
        cache = KVCache(model.config, capacity=start, dtype=dtype)
        denoiser.evaluate(cache, tokens[:start])
        cache.commit(start)
        return cache

    slots = [denoiser.mask_id] * 3 if with_slots else []
    first_slot = 24 if with_slots else None
    together = denoiser.evaluate(prefilled(), [*tokens[start:], *slots], first_slot=first_slot)[:24]
    cache, rows = prefilled(), []
    for token in tokens[start:]:
        rows.append(denoiser.evaluate(cache, [token]))
        cache.commit(1)
    assert torch.equal(together, torch.cat(rows))
    assert torch.equal(denoiser.logits(together), torch.cat([denoiser.logits(row) for row in rows]))
