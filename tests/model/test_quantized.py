"""Weights in 8 bits: products near the plain ones, and a row's bits independent of the rows beside it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import pytest
import torch
from helpers.tiny_models import SHAPES, tiny_adapter, tiny_config, tiny_transformer

from diffusion_core.model.config import DiffusionConfig, ModelConfig
from diffusion_core.model.kv_cache import KEY_BUCKET, KVCache
from diffusion_core.model.masks import causal
from diffusion_core.model.native_matrix import NativeMatrix
from diffusion_core.model.packed import PackedLinear
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import QuantizedMatrix, quantize_weight, why_not_quantized
from diffusion_core.model.transformer import Transformer
from diffusion_core.sampling.evaluate import Denoiser

pytestmark = pytest.mark.skipif(bool(why_not_quantized("cpu")), reason=why_not_quantized("cpu"))
SIZES = [(1152, 896), (9728, 896), (896, 4864), (300, 64), (7, 33)]
DTYPES = [torch.float32, torch.bfloat16]


def with_outliers(rows: int, size: int, seed: int) -> torch.Tensor:
    """Rows in which two entries tower over the rest, one of them always in the same channel."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, size, generator=generator)
    x[:, 3] = 300
    x[torch.arange(rows), torch.randint(size, (rows,), generator=generator)] *= 60
    return x


def relative_error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def test_a_weight_is_within_half_a_step_of_its_8_bits() -> None:
    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(1))
    weight[5] = 0
    quantized = quantize_weight(weight)
    assert quantized.values.dtype == torch.int8
    assert torch.equal(quantized.values.abs().amax(1).bool(), torch.arange(40) != 5)
    assert int(quantized.values[torch.arange(40) != 5].abs().amax(1).min()) == 127
    error = (quantized.values * quantized.scales.unsqueeze(1) - weight).abs()
    assert bool((error <= quantized.scales.unsqueeze(1) * 0.501).all())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("split", [False, True])
def test_the_product_is_near_that_of_the_8_bit_weight(size: tuple[int, int], dtype: torch.dtype, split: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    weight = quantize_weight(torch.randn(size, generator=generator))
    bias = torch.randn(size[0], generator=generator).to(dtype)
    x = torch.randn(9, size[1], generator=generator).to(dtype)
    found = QuantizedMatrix(weight, split=split).linear(x, bias)
    exact = torch.nn.functional.linear(
        x.double(), weight.values.double() * weight.scales.double()[:, None], bias.double()
    )
    assert found.dtype == dtype
    bound = 0.02 if not split else 1e-4
    assert relative_error(found.double(), exact) < max(bound, 0.004 if dtype == torch.bfloat16 else 0)


def test_split_rows_survive_outliers_that_whole_rows_do_not() -> None:
    weight = quantize_weight(torch.randn(128, 896, generator=torch.Generator().manual_seed(3)))
    weight.values[:, 3] = 0  # the towering channel says nothing here, it only takes the others' bits
    x = with_outliers(16, 896, 4)
    exact = x.double() @ (weight.values.double() * weight.scales.double()[:, None]).T
    assert relative_error(QuantizedMatrix(weight).scores(x), exact) < 0.01
    assert relative_error(QuantizedMatrix(weight, split=False).scores(x), exact) > 0.1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("split", [False, True])
def test_a_row_does_not_depend_on_its_company(size: tuple[int, int], dtype: torch.dtype, split: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    matrix = QuantizedMatrix(quantize_weight(torch.randn(size, generator=generator)), split=split)
    bias = torch.randn(size[0], generator=generator).to(dtype)
    x = with_outliers(256, size[1], 6).to(dtype)
    whole = matrix.linear(x, bias)
    for rows in (*range(1, 66), 96, 255):
        assert torch.equal(matrix.linear(x[:rows].contiguous(), bias), whole[:rows]), rows
    assert torch.equal(matrix.linear(x[3:70], bias), whole[3:70])


def test_zeros_and_other_strange_rows() -> None:
    matrix = QuantizedMatrix(quantize_weight(torch.ones(4, 32)), split=True)
    x = torch.zeros(3, 32)
    x[1, 0] = 1e-38
    assert torch.equal(matrix.scores(x)[0], torch.zeros(4))
    assert bool(matrix.scores(x).isfinite().all())
    x[2, 7] = float("nan")
    found = matrix.scores(x)
    assert bool(found[:2].isfinite().all())
    assert bool(found[2].isnan().all())
    assert matrix.scores(x.view(1, 3, 32)).shape == (1, 3, 4)


def test_other_devices_are_refused() -> None:
    assert "cuda" in why_not_quantized("cuda")


def wide_config(shape: str) -> ModelConfig:
    return tiny_config(shape, hidden_size=256, intermediate_size=512, num_layers=3, num_heads=8, head_dim=32)


def random_model(config: ModelConfig, seed: int) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.1)
    return model


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_adapter", [False, True])
def test_a_forward_is_near_the_plain_one(shape: str, dtype: torch.dtype, with_adapter: bool) -> None:
    plain = random_model(wide_config(shape), 7)
    adapter = tiny_adapter(plain.config) if with_adapter else None
    ids, positions = torch.arange(40, 72).unsqueeze(0), torch.arange(32).unsqueeze(0)
    wanted = plain.logits(plain(ids, positions, causal(32), adapter=adapter, first_slot=20))
    model = copy.deepcopy(plain).to(dtype)
    model.pack(quantize=Quantization.INT8)
    adapter = adapter.to(dtype) if adapter is not None else None
    found = model.logits(model(ids, positions, causal(32), adapter=adapter, first_slot=20))
    assert found.dtype == torch.float32
    assert relative_error(found, wanted) < 0.04
    assert float((found.argmax(-1) == wanted.argmax(-1)).float().mean()) > 0.9


@pytest.mark.parametrize("shape", SHAPES)
def test_a_packed_model_is_small(shape: str) -> None:
    plain = random_model(wide_config(shape), 8)
    model = copy.deepcopy(plain).bfloat16()
    before, rows = model.num_bytes, model.embed_tokens.weight.numel()
    model.pack(quantize=Quantization.INT8)
    assert all(
        isinstance(child.matrix, QuantizedMatrix | NativeMatrix)
        for child in model.modules()
        if isinstance(child, PackedLinear)
    )
    plain_left = 2 * rows
    assert model.num_bytes - plain_left < 0.6 * (before - plain_left) + rows + 4 * 272


@pytest.mark.parametrize("start", [KEY_BUCKET - 9, KEY_BUCKET, 3 * KEY_BUCKET - 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_slots", [False, True])
def test_rows_together_equal_rows_one_by_one(start: int, dtype: torch.dtype, with_slots: bool) -> None:
    model = random_model(wide_config("qwen2"), start).to(dtype)
    model.pack(quantize=Quantization.INT8)
    adapter = tiny_adapter(model.config).to(dtype)
    denoiser = Denoiser(model, DiffusionConfig(prompt_format="plain/1"), adapter)
    tokens = torch.randint(0, 250, (start + 24,), generator=torch.Generator().manual_seed(start)).tolist()

    def prefilled() -> KVCache:
        cache = KVCache(model.config, capacity=start, dtype=dtype)
        denoiser.evaluate(cache, tokens[:start])
        cache.commit(start)
        return cache

    slots = [denoiser.mask_id] * 3 if with_slots else []
    together = denoiser.evaluate(
        prefilled(),
        [*tokens[start:], *slots],
        first_slot=24 if with_slots else None,  # type: ignore[list-item]
    )[:24]
    cache, rows = prefilled(), []
    for token in tokens[start:]:
        rows.append(denoiser.evaluate(cache, [token]))
        cache.commit(1)
    one_by_one = torch.cat(rows)
    assert torch.equal(together, one_by_one)
    assert torch.equal(denoiser.logits(together), torch.cat([denoiser.logits(row) for row in rows]))


@pytest.mark.parametrize("shape", SHAPES)
def test_cached_is_near_uncached(shape: str) -> None:
    model = tiny_transformer(shape, seed=9)
    model.pack(quantize=Quantization.INT8)
    denoiser = Denoiser(model, DiffusionConfig(prompt_format="plain/1"))
    tokens = list(range(60, 160))
    whole = denoiser.evaluate(KVCache(model.config, capacity=100, dtype=torch.float32), tokens)
    cache = KVCache(model.config, capacity=100, dtype=torch.float32)
    denoiser.evaluate(cache, tokens[:90])
    cache.commit(90)
    # Attention sums in another order when the rows are not the same, and 8 bits can turn that into a step.
    assert relative_error(denoiser.evaluate(cache, tokens[90:]), whole[90:]) < 0.02


def test_the_kernel_is_not_the_reference_one() -> None:
    """Where oneDNN has no kernel it computes element by element: right, and a hundred times slower than float32."""
    matrix = QuantizedMatrix(quantize_weight(torch.randn(1152, 896)), split=False)
    x, wide = torch.randn(32, 896), torch.randn(1152, 896)

    def seconds(product: Callable[[], torch.Tensor]) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            product()
            times.append(time.perf_counter() - began)
        return min(times)

    assert seconds(lambda: matrix.linear(x)) < 10 * seconds(lambda: torch.nn.functional.linear(x, wide))
