"""Fixtures that the reference code of each family wrote: a loadable folder, golden logits, answers of its sampler."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint
from diffusion_core.model.config import AttentionPattern, DiffusionConfig
from diffusion_core.model.masks import block_causal, causal

FOLDER = Path(__file__).parent.parent / "checkpoints" / "fixtures"


@dataclass(frozen=True)
class Golden:
    """Inputs with their logits, and the sampler's answers: prompt, settings, tokens, forwards."""

    logits: list[tuple[torch.Tensor, torch.Tensor]]
    answers: list[dict[str, Any]]


def fixture_folder(family: str) -> Path:
    """The checkpoint that the reference code saved."""
    return FOLDER / family / "model"


def load_fixture(family: str, folder: Path | None = None) -> Checkpoint:
    """The fixture (or a copy of it) in float32, its family named where the files do not show it."""
    named = family if family.startswith(("a2d-", "open-dcoder", "dream")) else "auto"
    return load_checkpoint(
        str(folder or fixture_folder(family)), dtype=torch.float32, device=torch.device("cpu"), family=named
    )


def read_golden(family: str) -> Golden:
    """What the reference code computed."""
    tensors = load_file(FOLDER / family / "golden.safetensors")
    lengths = sorted(int(name.split(".")[1]) for name in tensors if name.startswith("ids."))
    answers = json.loads((FOLDER / family / "golden.json").read_text())["answers"]
    return Golden([(tensors[f"ids.{n}"], tensors[f"logits.{n}"]) for n in lengths], answers)


def visible_rows(contract: DiffusionConfig, length: int) -> torch.Tensor:
    """Which of ``length`` rows from position 0 see which: bool [T, T]."""
    match contract.attention:
        case AttentionPattern.BLOCK_CAUSAL:
            return block_causal(torch.arange(length), contract.block_size)
        case AttentionPattern.BIDIRECTIONAL:
            return torch.ones(length, length, dtype=torch.bool)
        case _:
            return causal(length)


@torch.inference_mode()
def full_logits(checkpoint: Checkpoint, ids: torch.Tensor) -> torch.Tensor:
    """Logits [T, V] of one uncached forward of tokens [T]."""
    model = checkpoint.model
    visible = visible_rows(checkpoint.diffusion_config, len(ids))
    return model.logits(model(ids[None], torch.arange(len(ids))[None], visible)[0])
