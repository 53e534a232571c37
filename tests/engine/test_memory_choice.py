"""Which model answers edits depends on the memory that is free and on the dtype that the weights grow to."""

from __future__ import annotations

import pytest
import torch

from diffusion_core.config import DEFAULT_EDIT_MODEL, DEFAULT_MODEL, EngineConfig
from diffusion_core.engine import model_builder, models
from diffusion_core.engine.device import Precision
from diffusion_core.engine.models import ModelHost
from diffusion_core.model.quantization import Quantization


@pytest.mark.parametrize(
    ("free_gib", "precision", "expected"),
    [
        (5, Precision(torch.bfloat16), DEFAULT_EDIT_MODEL),
        (3, Precision(torch.bfloat16), DEFAULT_MODEL),
        (3, Precision(torch.bfloat16, Quantization.INT8), DEFAULT_EDIT_MODEL),
        (5, Precision(torch.float32), DEFAULT_MODEL),
        (8, Precision(torch.float32), DEFAULT_EDIT_MODEL),
    ],
)
def test_edit_model_by_memory(
    monkeypatch: pytest.MonkeyPatch, free_gib: float, precision: Precision, expected: str
) -> None:
    # How much is free is the machine's affair; the rest is real.
    monkeypatch.setattr(models, "available_bytes", lambda config, device: int(free_gib * 1e9))
    monkeypatch.setattr(models, "is_downloaded", lambda name: True)
    monkeypatch.setattr(model_builder, "choose_precision", lambda config, device, stored=0: precision)
    host = ModelHost(EngineConfig(), torch.device("cpu"), lambda: None)
    assert host.model_for("edit") == expected
    assert bool(host.notice_for("edit")) == (expected == DEFAULT_MODEL)
    if expected == DEFAULT_MODEL:
        assert f"{free_gib}.0 GB are free" in host.notice_for("edit")
