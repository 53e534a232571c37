"""Rounds as one kernel, on a GPU or with its source run on the CPU thread by thread (``cuda_on_cpu.h``)."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.cuda_on_cpu import compile_on_cpu
from helpers.tiny_models import tiny_config

from diffusion_core.kernels.compiler import find_compiler
from diffusion_core.kernels.cuda_program import SOURCES, Kernel, compile_program
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.kernel_shape import THREADS, Arguments, KernelShape, choose_shapes
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_forward import WholeForward
from diffusion_core.model.whole_round import WholeRound

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MAX_POSITIONS = 512


@cache
def _library_of(shape: KernelShape) -> ctypes.CDLL:
    compiler = find_compiler()
    if not compiler:
        pytest.skip("no C++ compiler is here")
    text = f'#include "{SOURCES / "round.cu"}"\nEXPORT_KERNEL(decoding_round, Arguments)\n'
    with tempfile.TemporaryDirectory() as folder:
        return compile_on_cpu(compiler, [text], {**shape.defines(), "__grid_constant__": ""}, Path(folder))


@cache
def _kernel_of(shape: KernelShape) -> Kernel:
    code = compile_program("round.cu", shape.defines(), torch.cuda.get_device_capability())
    return Kernel(code, "decoding_round", num_blocks=shape.blocks, num_threads=THREADS, shared_bytes=shape.shared_bytes)


def device_with(seed: int) -> Callable[[KernelShape], Callable[[Arguments], None]]:
    """A compiler for :class:`WholeRound`, and with it a device: a GPU, or threads in an order drawn from ``seed``."""

    def build(shape: KernelShape) -> Callable[[Arguments], None]:
        if DEVICE == "cuda":
            return lambda arguments: _kernel_of(shape).launch(arguments, torch.cuda.current_stream().cuda_stream)
        run = _library_of(shape).decoding_round_on_cpu

        def launch(arguments: Arguments) -> None:
            assert run(ctypes.byref(arguments), shape.blocks, THREADS, shape.shared_bytes, seed) == 0

        return launch

    return build


def config_of(**changes: object) -> ModelConfig:
    """A tiny model that the kernel can work with."""
    shape: dict[str, object] = {
        "hidden_size": 96, "intermediate_size": 176, "num_heads": 6, "num_kv_heads": 2, "head_dim": 64, "num_layers": 2,
    }  # fmt: skip
    return tiny_config(**(shape | changes))


def random_model(config: ModelConfig) -> Transformer:
    """Random weights in bfloat16, norms and biases among them."""
    torch.manual_seed(1)
    model = Transformer(config)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.data += 0.2 * torch.randn_like(parameter)
        if name.endswith("bias"):
            parameter.data = 0.5 * torch.randn_like(parameter)
    return model.to(DEVICE, torch.bfloat16).eval().requires_grad_(False)


def random_adapter(config: ModelConfig, rank: int) -> GatedAdapter:
    """A random adapter in bfloat16."""
    adapter = GatedAdapter(config, rank=rank, alpha=2.0 * rank)
    adapter.randomise(torch.Generator().manual_seed(3), scale=0.1)
    return adapter.to(DEVICE, torch.bfloat16).requires_grad_(False)


def shapes_of(model: Transformer, rank: int, *, blocks: int) -> dict[int, KernelShape]:
    """How rounds are cut for a device with memory enough."""
    return choose_shapes(model.config, rank=rank, blocks=blocks, shared_limit=220_000)


def whole_forward(
    model: Transformer, adapter: GatedAdapter | None, *, blocks: int = 3, seed: int = 0, **cut: int
) -> WholeForward:
    """Rounds of ``model`` on ``blocks`` multiprocessors; ``cut`` changes the shape that would be chosen."""
    rank = 0 if adapter is None else adapter.rank
    shapes = shapes_of(model, rank, blocks=blocks)
    shapes = {rows: replace(shape, **cut) for rows, shape in shapes.items()}
    whole = WholeRound(model, adapter, max_positions=MAX_POSITIONS, shapes=shapes, build=device_with(seed))
    return WholeForward(model, adapter, whole, max_positions=MAX_POSITIONS)
