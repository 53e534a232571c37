"""Pages are joined while nobody waits: contents stay, and a system that has no huge pages is left alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.config import EngineConfig
from diffusion_core.engine import calibration
from diffusion_core.engine.engine import Engine
from diffusion_core.engine.huge_pages import huge_page_bytes
from diffusion_core.requests import CompletionRequest, DecodingParams, Policy

JOIN = """
import torch
from diffusion_core.engine.huge_pages import join_pages
def huge_kib():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages"))
numbers = torch.arange(32 * 2**20 // 8)  # 32 MiB
before = huge_kib()
steps = sum(1 for _ in join_pages())
assert torch.equal(numbers, torch.arange(len(numbers)))
print(steps, huge_kib() - before)
"""


def knows_to_join() -> bool:
    """Linux from 6.1 on."""
    release = Path("/proc/sys/kernel/osrelease")
    if not huge_page_bytes() or not release.exists():
        return False
    major, minor = release.read_text(encoding="ascii").split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)))) >= (6, 1)


@pytest.mark.skipif(not knows_to_join(), reason="this system joins no pages")
def test_memory_is_joined_and_stays_what_it_was() -> None:
    done = subprocess.run([sys.executable, "-c", JOIN], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    steps, grown_kib = map(int, done.stdout.split())
    assert steps >= 3, "others are let in between"
    assert grown_kib >= 16 * 1024, "of a system with little memory in one piece some may be left out"


@pytest.mark.parametrize(
    ("enabled", "size", "wanted"),
    [
        ("always [madvise] never", "2097152", 2097152),
        ("[always] madvise never", "4194304", 4194304),
        ("always madvise [never]", "2097152", 0),
        ("always [madvise] never", None, 0),
        ("always [madvise] never", "a lot", 0),
    ],
)
def test_the_administrator_decides(tmp_path: Path, enabled: str, size: str | None, wanted: int) -> None:
    (tmp_path / "enabled").write_text(enabled)
    if size is not None:
        (tmp_path / "hpage_pmd_size").write_text(size)
    assert huge_page_bytes(tmp_path) == (wanted if sys.platform == "linux" else 0)
    assert huge_page_bytes(tmp_path / "nothing") == 0


def test_an_engine_joins_and_answers_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_tiny_checkpoint(tmp_path / "base")
    request = CompletionRequest(
        prefix="for i in range(10):\n", max_tokens=12, decoding=DecodingParams(policy=Policy.VERIFIED)
    )
    texts = []
    for least in (1e12, 0.0):
        monkeypatch.setattr(calibration, "LARGE_BYTES", least)
        engine = Engine(EngineConfig(model=str(base), edit_model=str(base), device="cpu"))
        engine.start()
        try:
            for _ in range(3):
                texts.append(engine.submit(request).future.result(60).text)
                time.sleep(0.1)
            give_up = time.monotonic() + 60
            while engine._calibration.has_work:
                assert time.monotonic() < give_up, "it does not come to an end"
                time.sleep(0.05)
            texts.append(engine.submit(request).future.result(60).text)
        finally:
            engine.close()
    assert len(set(texts)) == 1 and texts[0]
