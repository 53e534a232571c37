"""Which form a model's weights get when nothing is configured."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.checkpoints.store import stored_bytes
from diffusion_core.config import EngineConfig
from diffusion_core.engine import device as devices
from diffusion_core.engine.device import Precision, choose_dtype, choose_precision
from diffusion_core.engine.engine import Engine
from diffusion_core.errors import ConfigError
from diffusion_core.model import quantized
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import multiplies_tiles, why_not_quantized
from diffusion_core.requests import CompletionRequest

CPU = torch.device("cpu")
HUGE, LARGE, SMALL = 1_117_320_768, 500_000_000, 1_000_000
needs_vnni = pytest.mark.skipif(
    bool(why_not_quantized("cpu")) or platform.machine() != "x86_64", reason="no x86 CPU with VNNI"
)


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "why_no_kernels", lambda: "no compiler")


@pytest.fixture
def no_tiles(monkeypatch: pytest.MonkeyPatch, no_kernels: None) -> None:
    monkeypatch.setattr(devices, "multiplies_tiles", lambda: False)


def form(dtype: str, stored: int, device: torch.device = CPU) -> Quantization:
    return choose_precision(EngineConfig(dtype=dtype), device, stored).weights


@needs_vnni
@pytest.mark.usefixtures("no_tiles")
def test_without_tiles_large_models_have_8_bits() -> None:
    precision = choose_precision(EngineConfig(), CPU, LARGE)
    assert (precision.weights, str(precision)) == (Quantization.INT8, "int8")
    assert precision.dtype == choose_dtype(EngineConfig(), CPU)
    assert form("auto", SMALL) is Quantization.NONE
    assert form("auto", LARGE, torch.device("cuda")) is Quantization.NONE
    assert {form(dtype, LARGE) for dtype in ("bfloat16", "float32")} == {Quantization.NONE}
    assert form("int4", LARGE) is Quantization.INT4


@pytest.mark.usefixtures("no_tiles")
@pytest.mark.parametrize(
    ("machine", "reason"), [("x86_64", "sums overflow"), ("aarch64", ""), ("arm64", "sums overflow")]
)
def test_8_bits_are_not_chosen_where_they_are_wrong_or_not_measured(
    machine: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(devices, "why_not_served", lambda kind, device_type: reason)
    assert form("auto", LARGE) is Quantization.NONE


@needs_vnni
@pytest.mark.usefixtures("no_kernels")
def test_with_tiles_only_models_have_8_bits_that_are_bound_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "multiplies_tiles", lambda: True)
    assert form("auto", LARGE) is Quantization.NONE
    assert form("auto", HUGE) is Quantization.INT8
    assert form("bfloat16", HUGE) is Quantization.NONE
    assert form("auto", HUGE, torch.device("cuda")) is Quantization.NONE


def test_with_kernels_of_our_own_large_models_have_8_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "why_no_kernels", lambda: "")
    monkeypatch.setattr(devices, "multiplies_tiles", lambda: True)
    assert [form("auto", stored) for stored in (SMALL, LARGE, HUGE)] == [Quantization.NONE, *[Quantization.INT8] * 2]
    assert form("bfloat16", LARGE) is Quantization.NONE
    assert form("auto", LARGE, torch.device("cuda")) is Quantization.NONE


def test_kernels_of_our_own_need_nothing_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "why_not_quantized", lambda device_type: "sums overflow")
    monkeypatch.setattr(devices, "choose_dtype", lambda config, device: torch.float32)
    for module in (devices, quantized):
        monkeypatch.setattr(module, "why_no_kernels", lambda: "")
    for dtype in ("auto", "int8"):
        precision = choose_precision(EngineConfig(dtype=dtype), CPU, LARGE)
        assert precision == Precision(torch.bfloat16, Quantization.INT8), "they keep keys and values in bfloat16"
    assert choose_precision(EngineConfig(dtype="float32"), CPU, LARGE) == Precision(torch.float32)
    for module in (devices, quantized):
        monkeypatch.setattr(module, "why_no_kernels", lambda: "no compiler")
    assert choose_precision(EngineConfig(), CPU, LARGE) == Precision(torch.float32)
    with pytest.raises(ConfigError, match="overflow"):
        choose_precision(EngineConfig(dtype="int8"), CPU, LARGE)


@pytest.mark.parametrize(("limit", "may"), [("ALL", True), ("avx512_core_amx", True), ("AVX512_CORE_VNNI", False)])
def test_what_onednn_may_use_counts(limit: str, may: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert multiplies_tiles.__wrapped__() is may


@needs_vnni
@pytest.mark.usefixtures("no_tiles")
def test_an_engine_says_what_its_model_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_tiny_checkpoint(tmp_path / "base", hidden_size=64, intermediate_size=128, head_dim=16)
    size = stored_bytes(str(base))
    assert (base / "model.safetensors").stat().st_size < size < SMALL
    assert stored_bytes(str(tmp_path / "nothing")) == 0
    for least, dtype in ((size + 1, str(choose_dtype(EngineConfig(), CPU)).removeprefix("torch.")), (size, "int8")):
        monkeypatch.setattr(devices, "_LARGE_BYTES", least)
        engine = Engine(EngineConfig(model=str(base), edit_model=str(base), device="cpu"))
        engine.start()
        try:
            engine.submit(CompletionRequest(prefix="x", max_tokens=1)).future.result(60)
            assert engine.health().dtype == dtype
        finally:
            engine.close()
