"""Products of the compiled kernels: bit for bit those of ``quantized.py``, whatever rides along and in any threads."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.engine.device import resident_bytes
from diffusion_core.kernels.library import why_no_kernels
from diffusion_core.model.native_matrix import NativeMatrix
from diffusion_core.model.quantized import QuantizedMatrix, QuantizedWeight, quantize_weight

pytestmark = pytest.mark.skipif(bool(why_no_kernels()), reason=why_no_kernels())
SIZES = [(1152, 896), (9728, 896), (896, 4864), (256, 8960), (300, 64), (7, 33), (1, 1), (64, 129)]
DTYPES = [torch.float32, torch.bfloat16]


def random_weight(size: tuple[int, int], seed: int = 0) -> QuantizedWeight:
    return quantize_weight(torch.randn(size, generator=torch.Generator().manual_seed(seed)))


def rows_with_outliers(count: int, size: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, size, generator=generator)
    x[:, size // 2] *= 300
    x[0] *= 1e4
    return x.to(dtype)


@pytest.mark.parametrize(
    ("size", "paired"), [*((size, False) for size in SIZES), *((size, True) for size in SIZES if size[0] % 32 == 0)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_those_of_the_other_kernels(size: tuple[int, int], dtype: torch.dtype, paired: bool) -> None:
    weight = random_weight(size)
    expected, found = QuantizedMatrix(weight), NativeMatrix(weight, paired=paired)
    bias = torch.randn(size[0], generator=torch.Generator().manual_seed(2)).to(dtype)
    for count in (1, 2, 15, 16, 17, 33, 96, 200):
        x = rows_with_outliers(count, size[1], dtype, count)
        assert torch.equal(found.scores(x), expected.scores(x)), count
        assert torch.equal(found.linear(x, bias), expected.linear(x, bias)), count
        assert found.linear(x).dtype == dtype
    assert found.linear(x[:0], bias).shape == (0, size[0])
    assert found.best(x[:0]).shape == (0,)
    x = rows_with_outliers(6, size[1], dtype).view(2, 3, -1)
    assert torch.equal(found.scores(x), expected.scores(x))
    assert torch.equal(found.scores(x[:, 1]), expected.scores(x)[:, 1]), "rows that do not lie next to each other"


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 80), st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**31))
def test_products_of_any_size_are_exact(num_out: int, num_in: int, count: int, seed: int) -> None:
    weight, x = random_weight((num_out, num_in), seed), rows_with_outliers(count, num_in, torch.float32, seed)
    scales = x.abs().amax(1, keepdim=True) * (1 / 127) + 1e-30
    scaled = x / scales
    coarse = scaled.round()
    fine = ((scaled - coarse) * 128).round()
    sums = [(half.double() @ weight.values.double().T).float() * weight.scales for half in (coarse, fine)]
    assert torch.equal(NativeMatrix(weight).scores(x), (sums[0] + sums[1] / 128) * scales)


def test_a_row_does_not_depend_on_its_company_nor_on_threads() -> None:
    matrix, x = NativeMatrix(random_weight((2048, 896))), rows_with_outliers(96, 896, torch.bfloat16)
    whole = matrix.scores(x)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            for start, stop in ((0, 96), (5, 6), (3, 40), (95, 96)):
                assert torch.equal(matrix.scores(x[start:stop]), whole[start:stop])
                assert torch.equal(matrix.best(x[start:stop]), whole[start:stop].max(-1).indices)
    finally:
        torch.set_num_threads(before)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 2**31))
def test_the_best_is_the_first_of_the_highest(num_out: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few different weights: many outputs have equal scores.
    values = torch.randint(-2, 3, (num_out, 3), generator=generator, dtype=torch.int8)
    matrix = NativeMatrix(QuantizedWeight(values, torch.full((num_out,), 0.5)))
    for dtype in DTYPES:
        x = torch.randint(-3, 4, (count, 3), generator=generator).to(dtype)
        scores = matrix.scores(x)
        first = (scores == scores.max(-1, keepdim=True).values).int().argmax(-1)
        assert torch.equal(matrix.best(x), first)


def test_what_is_no_number_stays_in_its_row() -> None:
    matrix, x = NativeMatrix(random_weight((40, 70))), torch.zeros(4, 70)
    x[1, 0], x[2, 7], x[3, 69] = 1e-38, float("nan"), float("inf")
    found = matrix.scores(x)
    assert torch.equal(found[0], torch.zeros(40))
    assert bool(found[1].isfinite().all())
    assert not bool(found[2].isfinite().any())
    assert not bool(found[3].isfinite().any())


def test_calls_from_several_threads_wait_for_each_other() -> None:
    weights = [NativeMatrix(random_weight((512, 320), seed)) for seed in range(4)]
    rows = [rows_with_outliers(9 + 8 * seed, 320, torch.bfloat16, seed) for seed in range(4)]
    expected = [weight.scores(x) for weight, x in zip(weights, rows, strict=True)]
    started = threading.Barrier(4)

    def repeat(number: int) -> bool:
        started.wait()
        return all(torch.equal(weights[number].scores(rows[number]), expected[number]) for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(repeat, range(4)))


def _product_in_child(x: torch.Tensor, matrix: NativeMatrix, found: multiprocessing.Queue[list[float]]) -> None:
    found.put(matrix.scores(x)[0].tolist())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    matrix, x = NativeMatrix(random_weight((512, 320))), rows_with_outliers(4, 320, torch.bfloat16)
    expected = matrix.scores(x)
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    child = context.Process(target=_product_in_child, args=(x, matrix, found))
    child.start()
    assert found.get(timeout=30) == expected[0].tolist()
    child.join(30)
    assert child.exitcode == 0


def test_memory_goes_back_to_the_system() -> None:
    weight = random_weight((4096, 4096))
    before = resident_bytes()
    kept = [NativeMatrix(weight) for _ in range(12)]
    with_weights = resident_bytes()
    assert with_weights - before > 12 * 4096 * 4096 * 0.9
    del kept
    gc.collect()
    # The last chunk may stay in part where something else is in it.
    assert resident_bytes() - before < 64 * 2**20 + (with_weights - before) // 10
