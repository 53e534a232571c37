"""The default model in 8 bits: what it weighs, how soon it is there, and how often it agrees with bfloat16."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import DEFAULT_MODEL
from diffusion_core.kernels.kinds import SWITCH
from diffusion_core.kernels.library import why_no_kernels
from diffusion_core.model.masks import causal
from diffusion_core.model.quantization import Quantization
from diffusion_core.model.quantized import why_not_quantized

pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(bool(why_not_quantized("cpu")), reason=why_not_quantized("cpu")),
]
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")

ONE_FORWARD = """
import time; start = time.perf_counter()
import psutil, torch
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.kernels.kinds import SWITCH
from diffusion_core.kernels.library import why_no_kernels
from diffusion_core.model.masks import causal
from diffusion_core.model.quantization import Quantization
form = dict(dtype=torch.bfloat16, device=torch.device("cpu"), serve=True, quantize=Quantization.INT8)
model = load_checkpoint({name!r}, **form).model
with torch.inference_mode():
    hidden = model(torch.arange(500, 516).unsqueeze(0), torch.arange(16).unsqueeze(0), causal(16))
    model.logits(hidden[0])
print(model.num_bytes, psutil.Process().memory_info().rss, time.perf_counter() - start)
"""


def test_it_is_small_and_soon_there() -> None:
    command = [sys.executable, "-c", ONE_FORWARD.format(name=DEFAULT_MODEL)]
    found = []
    for _ in range(3):  # the first run may write the copy; the best of three: the machine may be busy
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        found.append([float(word) for word in done.stdout.split()])
    num_bytes, resident, seconds = (min(column) for column in zip(*found, strict=True))
    # 358M weights of layers and 136M of the head in a byte each, and the embedding in two.
    assert 760e6 < num_bytes < 790e6
    # Less the embedding, which stays on disk, plus what torch itself takes.
    assert resident < 1000e6
    assert seconds < 20.0  # one run of a starved machine took 6.4 s of CPU time; an idle one is not measured yet


BY_ITSELF = """
from diffusion_core.config import EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.requests import CompletionRequest
engine = Engine(EngineConfig(edit_model={name!r}, device="cpu"))
engine.start()
request = CompletionRequest(prefix="def add(a, b):\\n    return ", max_tokens=8)
print(repr(engine.submit(request).future.result(120).text), engine.health().dtype)
engine.close()
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured on x86 alone")
@pytest.mark.parametrize("has_kernels", [False, True])
def test_a_cpu_without_tiles_or_with_kernels_gets_it_by_itself(has_kernels: bool) -> None:
    if has_kernels and (reason := why_no_kernels()):
        pytest.skip(reason)
    without = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI", SWITCH: "off"}
    done = subprocess.run(
        [sys.executable, "-c", BY_ITSELF.format(name=DEFAULT_MODEL)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **({} if has_kernels else without)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("' a + b") or done.stdout.startswith("'a + b"), done.stdout
    assert done.stdout.endswith(" int8\n")


def test_it_agrees_with_bfloat16_on_code() -> None:
    plain = load_checkpoint(DEFAULT_MODEL, dtype=torch.bfloat16, device=CPU, serve=True)
    small = load_checkpoint(DEFAULT_MODEL, dtype=torch.bfloat16, device=CPU, serve=True, quantize=Quantization.INT8)
    agreed, sure, num_sure = 0, 0, 0
    with torch.inference_mode():
        for name in ("net/client.py", "engine/job.py", "sampling/stop.py"):
            text = (ROOT / "diffusion_core" / name).read_text(encoding="utf-8")
            ids = torch.tensor([plain.tokenizer.encode(text, add_special_tokens=False).ids[:256]])
            positions, mask = torch.arange(256).unsqueeze(0), causal(256)
            wanted = plain.model.logits(plain.model(ids, positions, mask))[0]
            found = small.model.logits(small.model(ids, positions, mask))[0].argmax(-1)
            best = wanted.topk(2, -1).values
            same, is_sure = found == wanted.argmax(-1), best[:, 0] - best[:, 1] > 1.0
            agreed += int(same.sum())
            sure += int((same & is_sure).sum())
            num_sure += int(is_sure.sum())
    assert agreed / (3 * 256) > MIN_AGREEMENT
    assert sure / num_sure > MIN_SURE_AGREEMENT


# Measured: see EXPERIMENTS.md. Rounding bfloat16 to another order of sums alone changes one best token in a hundred.
MIN_AGREEMENT = 0.95
MIN_SURE_AGREEMENT = 0.995
