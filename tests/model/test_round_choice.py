"""Where a round can be one kernel, how it is cut, and that its source compiles for GPUs that are not here."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import tiny_config, tiny_transformer

from diffusion_core.kernels import cuda_program
from diffusion_core.kernels.compiler import CompilationFailed
from diffusion_core.kernels.cuda_program import DriverError, Kernel, compile_program
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.kernel_shape import ROW_BUCKETS, choose_shapes
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.round_choice import choose_steps, choose_whole, why_not_whole
from diffusion_core.model.round_ops import PlainOps
from diffusion_core.model.transformer import Transformer

# Multiprocessors, and the memory that a block can have, of an A100, an H100 and a card for desktops.
A100, H100, DESKTOP = (108, 166_912), (132, 232_448), (28, 101_376)


def small_coder() -> ModelConfig:
    """The shape of Qwen2.5-Coder-0.5B."""
    return tiny_config(
        vocab_size=151_936, hidden_size=896, intermediate_size=4864, num_layers=24, num_heads=14, num_kv_heads=2,
        head_dim=64,
    )  # fmt: skip


def larger_coder() -> ModelConfig:
    """The shape of Qwen2.5-Coder-1.5B."""
    return tiny_config(
        vocab_size=151_936, hidden_size=1536, intermediate_size=8960, num_layers=28, num_heads=12, num_kv_heads=2,
        head_dim=128,
    )  # fmt: skip


@pytest.mark.parametrize("config", [small_coder(), larger_coder()], ids=["0.5B", "1.5B"])
@pytest.mark.parametrize("device", [A100, H100])
def test_cuts_for_all_rows_sum_in_one_order(config: ModelConfig, device: tuple[int, int]) -> None:
    blocks, limit = device
    shapes = choose_shapes(config, rank=20, blocks=blocks, shared_limit=limit)
    assert tuple(shapes) == ROW_BUCKETS
    assert all(shape.rows == rows and shape.shared_bytes <= limit for rows, shape in shapes.items())
    assert {shape.rank for shape in shapes.values()} == {32}, "filled up to tiles"
    # What decides in which order a row is summed, and where its best token is taken.
    assert len({(shape.slices, shape.most_steps, shape.blocks, shape.fused_head) for shape in shapes.values()}) == 1


def test_less_memory_of_a_block_is_made_do_with() -> None:
    roomy = choose_shapes(small_coder(), rank=32, blocks=28, shared_limit=H100[1])[64]
    tight = choose_shapes(small_coder(), rank=32, blocks=28, shared_limit=DESKTOP[1])[64]
    assert tight.shared_bytes <= DESKTOP[1] < roomy.shared_bytes
    assert choose_shapes(small_coder(), rank=32, blocks=28, shared_limit=48 * 1024) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"head_dim": 32}, {"qk_norm": True, "qkv_bias": False}, {"hidden_size": 904}, {"intermediate_size": 4872},
        {"hidden_size": 4096}, {"num_heads": 34},
    ],
)  # fmt: skip
def test_models_that_the_kernel_cannot_work_with_are_known(changes: dict[str, object]) -> None:
    config = tiny_config(**({"hidden_size": 896, "num_heads": 14, "num_kv_heads": 2, "head_dim": 64} | changes))
    assert choose_shapes(config, rank=0, blocks=132, shared_limit=H100[1]) == {}


def test_the_reason_is_told_where_a_round_cannot_be_one_kernel() -> None:
    torch.manual_seed(0)
    model = Transformer(tiny_config()).to(torch.bfloat16)
    room = 1 << 40
    assert why_not_whole(model, (8, 0), True, room) == ""
    assert "below 8.0" in why_not_whole(model, (7, 5), True, room)
    assert "sizes" in why_not_whole(model, (9, 0), False, room)
    assert "no room" in why_not_whole(model, (9, 0), True, 1000)
    assert "bfloat16" in why_not_whole(model.float(), (9, 0), True, room)
    packed = Transformer(tiny_config()).to(torch.bfloat16)
    packed.pack(quantize=Quantization.INT8)
    assert "bfloat16" in why_not_whole(packed, (9, 0), True, room)


def test_a_cpu_takes_torchs_own_operations() -> None:
    model = tiny_transformer("qwen2")
    assert choose_whole(model, None, max_positions=512) is None
    assert type(choose_steps(model, None)) is PlainOps


def test_sources_compile_for_gpus_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_program, "cache_folder", lambda: tmp_path)
    try:
        cuda_program._load_nvrtc()
    except CompilationFailed:
        pytest.skip("NVRTC is not installed here")
    for config, (blocks, limit), capability in (
        (small_coder(), A100, (8, 0)), (small_coder(), DESKTOP, (8, 6)), (small_coder(), H100, (9, 0)),
        (larger_coder(), H100, (9, 0)), (small_coder(), H100, (10, 0)),
    ):  # fmt: skip
        shapes = choose_shapes(config, rank=32, blocks=blocks, shared_limit=limit)
        code = compile_program("round.cu", shapes[32].defines(), capability)
        assert code[:4] == b"\x7fELF"
        assert b"decoding_round" in code
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "kernels").iterdir()}
    assert len(kept) == 5
    assert compile_program("round.cu", shapes[32].defines(), (10, 0)) == code
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kernels").iterdir()} == kept, "compiled again"
    with pytest.raises(CompilationFailed, match="counts otherwise"):
        compile_program("round.cu", shapes[32].defines() | {"SHARED_BYTES": 16}, (9, 0))


def test_a_missing_driver_or_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with pytest.raises(DriverError, match="driver cannot be loaded: libcuda"):
        Kernel(b"", "decoding_round", num_blocks=1, num_threads=32, shared_bytes=0)
    with pytest.raises(CompilationFailed, match="NVRTC was not found"):
        compile_program("round.cu", {}, (9, 0))
