"""An engine whose rounds are one kernel: requests share them, and each text is that of the request alone.

Without a GPU the kernel's source runs on the CPU, thread by thread.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny_models import save_tiny_checkpoint
from helpers.whole_rounds import whole_forward

from diffusion_core.callers import OWNER
from diffusion_core.checkpoints.load import load_checkpoint
from diffusion_core.config import EngineConfig
from diffusion_core.engine import loaded_model
from diffusion_core.engine.engine import Engine
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_forward import WholeForward
from diffusion_core.requests import CompletionRequest


def test_requests_share_rounds_and_their_texts_are_those_of_requests_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"hidden_size": 96, "intermediate_size": 176, "num_heads": 6, "num_kv_heads": 2, "head_dim": 64}
    checkpoint = str(save_tiny_checkpoint(tmp_path / "model", **shape))
    made: list[WholeForward] = []

    def choose(model: Transformer, adapter: GatedAdapter | None, *, max_positions: int) -> WholeForward:
        # What is laid out for a CPU has no plain weights: those of the file are the same.
        plain = load_checkpoint(checkpoint, dtype=torch.bfloat16, device=model.device).model
        made.append(whole_forward(plain, adapter, blocks=2))
        return made[-1]

    monkeypatch.setattr(loaded_model, "choose_whole", choose)
    config = EngineConfig(
        model=checkpoint, edit_model=checkpoint, dtype="bfloat16", capture="exact", max_context_tokens=256
    )
    engine = Engine(config)
    engine.start()
    try:
        requests = [
            CompletionRequest(prefix=f"def f{n}(a):\n" + "    x = 1\n" * n, max_tokens=6, stop_at_scope=False)
            for n in range(4)
        ]
        alone = [engine.submit(request).future.result(timeout=120).text for request in requests]
        assert len(made) == 1
        assert all(alone)
        before = engine.counters()
        callers = [replace(OWNER, user=f"u{n}", space=f"u{n}") for n in range(4)]
        jobs = [
            engine.submit(replace(request, id=f"r{n}"), caller=callers[n]) for n, request in enumerate(requests)
        ]  # fmt: skip
        assert [job.future.result(timeout=120).text for job in jobs] == alone
        after = engine.counters()
        assert sum(after.batch_sizes[3:]) > sum(before.batch_sizes[3:]), "at least three shared a round"
    finally:
        engine.close()
