"""The round as one kernel against the reference: on a GPU, or its source on the CPU, thread by thread.

For its logic a GPU is not needed: `helpers/cuda_on_cpu.h` has the warps, barriers and matrix instructions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.cuda_on_cpu import compile_on_cpu
from helpers.tiny_models import tiny_config

from diffusion_core.kernels.cuda_program import SOURCES, Kernel, compile_program
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.kernel_shape import THREADS, Arguments, KernelShape, choose_shapes
from diffusion_core.model.masks import causal, causal_context
from diffusion_core.model.round_body import evaluate_round
from diffusion_core.model.round_inputs import RoundInputs
from diffusion_core.model.round_ops import PlainOps
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_round import WholeRound, pack_tiles, unpack_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MAIN = '#include "round.cu"\nEXPORT_KERNEL(decoding_round, Arguments)\n'


@cache
def library_of(shape: KernelShape, folder: Path) -> ctypes.CDLL:
    defines = {**shape.defines(), "__grid_constant__": ""}
    text = MAIN.replace('"round.cu"', f'"{SOURCES / "round.cu"}"')
    return compile_on_cpu([text], defines, folder)


@cache
def kernel_of(shape: KernelShape) -> Kernel:
    code = compile_program("round.cu", shape.defines(), torch.cuda.get_device_capability())
    return Kernel(code, "decoding_round", num_blocks=shape.blocks, num_threads=THREADS, shared_bytes=shape.shared_bytes)


def build(folder: Path, seed: int) -> Callable[[KernelShape], Callable[[Arguments], None]]:
    """A compiler for :class:`WholeRound`, and with it a device: a GPU, or threads in an order drawn from ``seed``."""

    def made(shape: KernelShape) -> Callable[[Arguments], None]:
        if DEVICE == "cuda":
            return lambda arguments: kernel_of(shape).launch(arguments, torch.cuda.current_stream().cuda_stream)
        run = library_of(shape, folder).decoding_round_on_cpu

        def launch(arguments: Arguments) -> None:
            assert run(ctypes.byref(arguments), shape.blocks, THREADS, shape.shared_bytes, seed) == 0

        return launch

    return made


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


def shape_of(**changes: object) -> ModelConfig:
    shape: dict[str, object] = {
        "hidden_size": 96, "intermediate_size": 176, "num_heads": 6, "num_kv_heads": 2, "head_dim": 64, "num_layers": 2,
    }  # fmt: skip
    return tiny_config(**(shape | changes))


def random_model(config: ModelConfig) -> Transformer:
    torch.manual_seed(1)
    model = Transformer(config)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data += 0.2 * torch.randn_like(parameter)
        if name.endswith("bias"):
            parameter.data = 0.5 * torch.randn_like(parameter)
    return model.to(DEVICE, torch.bfloat16).eval().requires_grad_(False)


def random_adapter(config: ModelConfig, rank: int) -> GatedAdapter:
    adapter = GatedAdapter(config, rank=rank, alpha=2.0 * rank)
    adapter.randomise(torch.Generator().manual_seed(3), scale=0.1)
    return adapter.to(DEVICE, torch.bfloat16).requires_grad_(False)


def memory_of(config: ModelConfig, capacity: int, seed: int = 2) -> torch.Tensor:
    shape = (2 * config.num_layers, 1, config.num_kv_heads, capacity, config.head_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, torch.bfloat16)


def whole_round(
    model: Transformer, adapter: GatedAdapter | None, folder: Path, *, blocks: int = 3, seed: int = 0, **cut: int
) -> WholeRound:
    rank = 0 if adapter is None else adapter.rank
    shapes = choose_shapes(model.config, rank=rank, blocks=blocks, shared_limit=220_000)
    shapes = {rows: replace(shape, **cut) for rows, shape in shapes.items()}
    return WholeRound(model, adapter, max_positions=512, shapes=shapes, build=build(folder, seed))


def inputs_of(num_rows: int, start: int, ids: list[int], first_slot: int | None, **given: object) -> RoundInputs:
    inputs = RoundInputs(num_rows, torch.device(DEVICE))
    positions = given.get("positions", list(range(start, start + len(ids))))
    inputs.fill(start, ids, positions, given.get("visible", causal(len(ids))), first_slot)
    return inputs


def test_tiles_and_rows_are_where_lanes_look() -> None:
    matrix = torch.arange(32 * 48).view(32, 48)
    tiles = pack_tiles(matrix)
    tile, step, g, t = 1, 2, 5, 3
    lane = tiles[tile, step, 4 * g + t].tolist()
    expected = [(tile * 16 + g + half * 8, step * 16 + 4 * t + 2 * pair + e)
                for pair in (0, 1) for half in (0, 1) for e in (0, 1)]  # fmt: skip
    assert lane == [int(matrix[at]) for at in expected]
    laid = torch.empty(32 * 48, dtype=torch.long)
    for row in range(32):
        for value in range(48):
            place = ((value // 16 * 2 + row // 16) * 32 + row % 8 * 4 + value % 16 // 4) * 8 + row // 8 % 2 * 4
            laid[place + value % 4] = matrix[row, value]
    assert torch.equal(unpack_rows(laid, 32, 48), matrix)


@pytest.mark.parametrize(
    ("rows", "rank", "changes", "cut"),
    [
        (16, 0, {}, {}),
        (32, 16, {}, {"slices": 2}),
        (32, 20, {"qkv_bias": False}, {"blocks": 5, "slices": 4, "tiles_together": 1}),
        (64, 32, {"head_dim": 128, "num_heads": 4}, {"blocks": 2, "slices": 2, "tiles_together": 3}),
    ],
)
def test_a_round_is_that_of_the_reference(
    folder: Path, rows: int, rank: int, changes: dict[str, object], cut: dict[str, int]
) -> None:
    model = random_model(shape_of(**changes))
    adapter = random_adapter(model.config, rank) if rank else None
    whole = whole_round(model, adapter, folder, **cut)
    mask = model.config.vocab_size
    for start, first_slot in ((0, None), (37, 4), (130, None)):
        slots = first_slot if adapter is not None else None
        ids = [3 + i for i in range(10)] if slots is None else [3, 4, 5, 6] + [mask] * 6
        given: dict[str, object] = {}
        if slots is not None:
            offsets = (0, 1, 2, 3, 2, 3, 4, 4, 5, 6)
            given = {"visible": causal_context(4, (3, 3), (2, 4)), "positions": [start + i for i in offsets]}
        inputs = inputs_of(rows, start, ids, slots, **given)
        ours, theirs = memory_of(model.config, 256), memory_of(model.config, 256)
        with torch.inference_mode():
            found, best = whole.run(inputs, ours, chooses=True)
            expected, _ = evaluate_round(model, inputs, theirs, PlainOps(), adapter=adapter)
        error = (found.float() - expected.float())[: len(ids)].norm() / expected[: len(ids)].float().norm()
        assert error < 0.02, (start, error)
        assert best is not None
        assert torch.equal(best, model.scores(found).max(-1).indices)
        difference = (ours.float() - theirs.float()).abs()
        assert difference[..., :start, :].max() == 0 if start else True
        assert difference[..., start + rows :, :].max() == 0
        own = slice(start, start + len(ids))
        assert difference[..., own, :].norm() / theirs[..., own, :].float().norm() < 0.02


# Sixteen seeds in a row try every kind of order that the emulator has.
@pytest.mark.parametrize("seed", range(1 if DEVICE == "cuda" else 16))
def test_a_row_has_the_same_bits_in_any_company(folder: Path, seed: int) -> None:
    """Sixteen rows at once, one by one, among more rows; blocks and warps in another order each time."""
    model = random_model(shape_of())
    adapter = random_adapter(model.config, 16)
    whole = whole_round(model, adapter, folder, blocks=4, seed=seed, slices=2)
    ids, start = [7 + i for i in range(8)], 250
    together = memory_of(model.config, 384)
    expected = whole.run(inputs_of(16, start, ids, None), together)[0].clone()
    alone = memory_of(model.config, 384)
    for number, token in enumerate(ids):
        rows = 32 if number % 3 == 0 else 16
        company = [token, *([model.config.vocab_size] * 3)] if number % 2 else [token]
        found = whole_bits(whole, alone, inputs_of(rows, start + number, company, 1 if number % 2 else None))
        assert torch.equal(found, expected[number]), number
    assert torch.equal(alone[..., : start + len(ids), :], together[..., : start + len(ids), :])


def whole_bits(whole: WholeRound, memory: torch.Tensor, inputs: RoundInputs) -> torch.Tensor:
    """The first row; the table of addresses follows the memory."""
    return whole.run(inputs, memory)[0][0].clone()
