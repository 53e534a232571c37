"""Memory is looked at before anything is loaded: what is free, control groups included, and what a model needs."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.full_size import FULL_SIZE
from helpers.tiny_checkpoints import save_gguf
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.config import EngineConfig
from diffusion_core.engine import memory
from diffusion_core.engine.device import Precision, resident_bytes
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.memory import Demand, available_bytes, cgroup_free_bytes, check_fits
from diffusion_core.errors import ConfigError, OutOfMemory
from diffusion_core.model.config import AttentionPattern, ModelConfig
from diffusion_core.model.quantization import Quantization
from diffusion_core.requests import CompletionRequest

CPU = torch.device("cpu")
PLAIN = Precision(torch.bfloat16)
EIGHT_B = FULL_SIZE["stable-diffcoder-8b"]


@pytest.fixture
def wide_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of a CPU with instructions for bfloat16 and 8 bits, whatever this one has."""
    monkeypatch.setattr(memory, "can_pack", lambda device, dtype: True)
    monkeypatch.setattr(memory, "why_not_eight_bits", lambda device_type: "")
    monkeypatch.setattr(memory, "why_not_served", lambda quantization, device_type: "")


def demand(
    shape: ModelConfig,
    config: EngineConfig | None = None,
    held: Precision = PLAIN,
    attention: AttentionPattern = AttentionPattern.CAUSAL_CONTEXT,
) -> Demand:
    return Demand(shape=shape, config=config or EngineConfig(), device=CPU, precision=held, attention=attention)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    write(membership, "0::/team/me\n")
    write(root / "team/memory.max", "1000\n")
    write(root / "team/memory.current", "700\n")
    write(root / "team/memory.stat", "anon 500\ninactive_file 50\n")
    write(root / "team/me/memory.max", "max\n")
    write(root / "team/me/memory.current", "600\n")
    assert cgroup_free_bytes(root, membership) == 350
    write(root / "team/me/memory.max", "640\n")
    assert cgroup_free_bytes(root, membership) == 40
    write(root / "team/me/memory.max", "500\n")
    assert cgroup_free_bytes(root, membership) == 0


def test_the_older_interface_and_a_container_are_read(tmp_path: Path) -> None:
    root, membership = tmp_path / "cgroup", tmp_path / "membership"
    # A container sees its own group as the root, under a path of the host's.
    write(membership, "4:cpu,memory:/docker/abc\n1:cpu:/\n0::/\n")
    write(root / "memory/memory.limit_in_bytes", "900\n")
    write(root / "memory/memory.usage_in_bytes", "300\n")
    write(root / "memory/memory.stat", "total_inactive_file 100\n")
    assert cgroup_free_bytes(root, membership) == 700


def test_without_control_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert cgroup_free_bytes(tmp_path, tmp_path / "none") == 2**62
    write(tmp_path / "membership", "0::/\n")
    assert cgroup_free_bytes(tmp_path, tmp_path / "membership") == 2**62


def test_the_configured_limit_counts_what_is_used() -> None:
    limited = available_bytes(EngineConfig(memory_limit_bytes=resident_bytes() + 50_000_000), CPU)
    assert 0 < limited < 60_000_000
    assert available_bytes(EngineConfig(), CPU) > limited


def test_the_limit_of_a_gpu_counts_what_is_used_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5_000_000_000, 8_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3_000_000_000)
    monkeypatch.setattr(memory, "resident_bytes", lambda: 900_000_000)
    gpu = torch.device("cuda", 0)
    assert available_bytes(EngineConfig(memory_limit_bytes=4_000_000_000), gpu) == 1_000_000_000
    assert available_bytes(EngineConfig(memory_limit_bytes=9_000_000_000), gpu) == 5_000_000_000
    assert available_bytes(EngineConfig(), gpu) == 5_000_000_000


@pytest.fixture
def with_free(monkeypatch: pytest.MonkeyPatch) -> object:
    # How much is free is the machine's affair; the rest is real.
    def set_free(gigabytes: float) -> None:
        monkeypatch.setattr(memory, "available_bytes", lambda config, device: int(gigabytes * 1e9))

    return set_free


@pytest.mark.usefixtures("wide_cpu")
def test_an_8b_is_refused_with_what_would_fit(with_free) -> None:
    with_free(12)
    with pytest.raises(OutOfMemory) as refused:
        check_fits("big", demand(EIGHT_B))
    text = str(refused.value)
    assert text.startswith("model big in bfloat16 needs 17.") and "12.0 GB are free" in text
    assert "keys and values 1.3" in text
    assert "set engine.dtype to int" in text and text.endswith("or choose a smaller model")
    check_fits("big", demand(EIGHT_B, held=Precision(torch.bfloat16, Quantization.INT4)))


@pytest.mark.usefixtures("wide_cpu")
def test_every_way_out_that_is_named_is_one(with_free) -> None:
    for free in (3, 6.5, 8, 11, 16.5):
        with_free(free)
        with pytest.raises(OutOfMemory) as refused:
            check_fits("big", demand(EIGHT_B, EngineConfig()))
        text = str(refused.value)
        for way in text.split("are free: ")[1].split(" or choose", maxsplit=1)[0].split(", "):
            changed, held = EngineConfig(), PLAIN
            if "engine.dtype to int8" in way or "engine.dtype to int4" in way:
                held = Precision(torch.bfloat16, Quantization("int8" if "int8" in way else "int4"))
            if "max_context_tokens to " in way:
                tokens = int(way.split("max_context_tokens to ")[1].split()[0])
                changed = replace(changed, max_context_tokens=tokens)
            if "set " in way:
                check_fits("big", demand(EIGHT_B, changed, held))
        assert ("set " in text) == (free > 3)


@pytest.mark.usefixtures("wide_cpu")
def test_a_bidirectional_model_needs_room_for_all_its_rows(with_free) -> None:
    with_free(18)
    shape = FULL_SIZE["llada-8b"]
    check_fits("llada", demand(shape, EngineConfig()))
    with pytest.raises(OutOfMemory, match="max_context_tokens"):
        with_free(18)
        check_fits("llada", demand(shape, attention=AttentionPattern.BIDIRECTIONAL))


def test_it_can_be_tried_all_the_same(with_free, caplog: pytest.LogCaptureFixture) -> None:
    with_free(1)
    with caplog.at_level(logging.WARNING):
        check_fits("big", demand(EIGHT_B, EngineConfig(memory_check="warn")))
    assert "model big in bfloat16 needs" in caplog.text
    with pytest.raises(ConfigError, match=r"engine\.memory_check is 'perhaps': allowed are refuse, warn"):
        EngineConfig(memory_check="perhaps")


@pytest.mark.parametrize("kind", ["own", "gguf"])
def test_an_engine_refuses_before_it_reads_weights(tmp_path: Path, kind: str) -> None:
    if kind == "own":
        path = save_tiny_checkpoint(tmp_path / "base")
        # Weights that cannot be read: whoever looked at them would say so instead.
        (path / "model.safetensors").write_bytes(b"")
    else:
        path = save_gguf(tmp_path / "model.gguf", "qwen2").path
    engine = Engine(EngineConfig(model=str(path), device="cpu", memory_limit_bytes=1_000_000))
    engine.start()
    try:
        job = engine.submit(CompletionRequest(prefix="a", suffix="", language="python"))
        with pytest.raises(OutOfMemory, match=r"needs 0\.\d GB on cpu .* choose a smaller model"):
            job.future.result(timeout=60)
        assert engine.health().models[0].state == "failed"
        assert not list((tmp_path / "cache").glob("converted/*"))
    finally:
        engine.close()
