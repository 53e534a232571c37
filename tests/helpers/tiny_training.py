"""A real objective in miniature: a tiny transformer learns to fill masked bytes of generated lines."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from helpers.tiny_models import VOCAB_SIZE, tiny_tokenizer, tiny_transformer
from torch import nn

from diffusion_core.checkpoints.load import save_checkpoint
from diffusion_core.model.config import AttentionPattern, DiffusionConfig, DrafterKind, LogitAlignment
from diffusion_core.model.masks import block_causal
from diffusion_core.model.transformer import Transformer
from train.config import (
    BudgetConfig,
    CheckpointConfig,
    DataConfig,
    ModelSettings,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)
from train.objective import LossOutput, Objective, ObjectiveState, Saver, make_generator

BLOCK_SIZE, NUM_TOKENS = 8, 24
MASK_ID = VOCAB_SIZE - 1


def small_config(**changes: Any) -> TrainConfig:
    """Eight quick steps; ``changes`` replace whole groups."""
    config = TrainConfig(
        recipe="tiny_test",
        objective="mask_stage",
        seed=3,
        data=DataConfig(source="grammar", sequences=8, max_tokens=NUM_TOKENS),
        model=ModelSettings(block_size=BLOCK_SIZE),
        optim=OptimConfig(learning_rate=3e-3, weight_decay=0.1),
        schedule=ScheduleConfig(shape="cosine", warmup_steps=2),
        budget=BudgetConfig(steps=8, evaluate_every=4),
        checkpoint=CheckpointConfig(every_seconds=3600),
    )
    return replace(config, **changes)


@dataclass(frozen=True)
class MaskedBatch:
    """Lines [B, T] of all ranks' share, with their masks."""

    tokens: torch.Tensor
    is_masked: torch.Tensor
    ids: list[str]


class MaskedLines:
    """Predict masked bytes of lines whose bytes count up with a period drawn per line."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.num_seen = torch.zeros(())

    def draw(self, step: int, rank: int, world_size: int) -> MaskedBatch:
        lines, masks, ids = [], [], []
        for number in range(rank, self.config.data.sequences, world_size):
            generator = make_generator(self.config.seed, "line", step, number)
            period = int(torch.randint(2, 6, (1,), generator=generator))
            first = int(torch.randint(97, 117, (1,), generator=generator))
            lines.append(first + torch.arange(NUM_TOKENS) % period)
            masks.append(torch.rand(NUM_TOKENS, generator=generator) < 0.5)
            ids.append(f"line/{step}/{number}")
        return MaskedBatch(torch.stack(lines), torch.stack(masks), ids)

    def _score(self, model: nn.Module, batch: MaskedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(model, Transformer)
        tokens, is_masked = batch.tokens.to(model.device), batch.is_masked.to(model.device)
        positions = torch.arange(NUM_TOKENS, device=model.device).expand_as(tokens)
        visible = block_causal(positions[0], BLOCK_SIZE)
        hidden = model(tokens.masked_fill(is_masked, MASK_ID), positions, visible)
        logits = model.logits(hidden)[is_masked]
        return logits, tokens[is_masked]

    def loss(self, model: nn.Module, batch: MaskedBatch, step: int) -> LossOutput:
        logits, targets = self._score(model, batch)
        self.num_seen = self.num_seen + 1
        # A state of its own, and the global generator: a resumed run must have both. The generator's seed is each
        # process's own, so runs of different numbers of processes are compared without it.
        noise = 0.0 if os.environ.get("TINY_QUIET") else torch.rand(()) * 1e-3 + 1e-4 * self.num_seen
        loss = F.cross_entropy(logits, targets, reduction="sum") * (1 + noise)
        is_right = (logits.argmax(-1) == targets).float()
        metrics: dict[str, tuple[float | torch.Tensor, float | torch.Tensor]] = {
            f"accuracy/{k}": (part.sum(), float(len(part))) for k, part in enumerate(is_right.chunk(4))
        }
        return LossOutput(
            loss_sum=loss,
            count=len(targets),
            metrics=metrics,
            batch_ids=batch.ids,
            num_tokens=batch.tokens.numel(),
            num_sequences=len(batch.tokens),
        )

    def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
        logits, targets = self._score(model, self.draw(10_000, 0, 1))
        is_right = (logits.argmax(-1) == targets).float()
        figures = {f"accuracy/{k}": float(part.mean()) for k, part in enumerate(is_right.chunk(4))}
        right = float(is_right.mean())
        return {"loss": float(F.cross_entropy(logits, targets)), "tokens_per_forward": 1 + right, **figures}

    def state(self) -> ObjectiveState:
        return ObjectiveState(tensors={"num_seen": self.num_seen.reshape(1)}, values={"kind": "lines"})

    def load_state(self, state: ObjectiveState) -> None:
        assert state.values == {"kind": "lines"}
        self.num_seen = state.tensors["num_seen"].reshape(())


def build_tiny(config: TrainConfig, device: torch.device, **shape: object) -> tuple[nn.Module, Objective, Saver]:
    """A builder as `train/objectives` have them, for a tiny model."""
    model = tiny_transformer("qwen3", config.seed, **shape).to(device)
    model.to({"float32": torch.float32, "bfloat16": torch.bfloat16}[config.model.dtype])
    model.requires_grad_(True)
    contract = DiffusionConfig(
        prompt_format="plain/1",
        attention=AttentionPattern.BLOCK_CAUSAL,
        alignment=LogitAlignment.SAME_POSITION,
        drafter=DrafterKind.MODEL,
        mask_token_id=MASK_ID,
        block_size=BLOCK_SIZE,
    )

    def save(folder: Path) -> None:
        save_checkpoint(folder, model, tiny_tokenizer(), contract)

    return model, make_objective(config), save


def make_objective(config: TrainConfig) -> Objective:
    """The objective, with the faults that the environment asks for (a test's worker processes are told so)."""
    objective: Objective = MaskedLines(config)
    if os.environ.get("TINY_KILL_AT"):
        objective = KilledAt(config, int(os.environ["TINY_KILL_AT"]))
    elif os.environ.get("TINY_STOP_AT"):
        objective = KilledAt(config, int(os.environ["TINY_STOP_AT"]), signal.SIGTERM)
    elif os.environ.get("TINY_SLOW"):
        objective = SlowLines(config, float(os.environ["TINY_SLOW"]))
    return objective


class KilledAt(MaskedLines):
    """The last process gets a signal in the middle of a step; after a restart by torchrun it does not."""

    def __init__(self, config: TrainConfig, step: int, number: signal.Signals = signal.SIGKILL) -> None:
        super().__init__(config)
        self._step, self._number = step, number

    def loss(self, model: nn.Module, batch: MaskedBatch, step: int) -> LossOutput:
        is_last = int(os.environ.get("RANK", "0")) == int(os.environ.get("WORLD_SIZE", "1")) - 1
        if step == self._step and is_last and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), self._number)
        return super().loss(model, batch, step)


class SlowLines(MaskedLines):
    """Every step takes its time."""

    def __init__(self, config: TrainConfig, seconds: float) -> None:
        super().__init__(config)
        self._seconds = seconds

    def loss(self, model: nn.Module, batch: MaskedBatch, step: int) -> LossOutput:
        time.sleep(self._seconds)
        return super().loss(model, batch, step)


class PoisonedLines(MaskedLines):
    """The loss of one step is not a number."""

    def __init__(self, config: TrainConfig, step: int, *, only_gradient: bool = False) -> None:
        super().__init__(config)
        self._step, self._only_gradient = step, only_gradient

    def loss(self, model: nn.Module, batch: MaskedBatch, step: int) -> LossOutput:
        output = super().loss(model, batch, step)
        if step != self._step:
            return output
        if self._only_gradient:
            # sqrt has a finite value and an infinite slope at 0.
            parameter = next(model.parameters())
            return replace(output, loss_sum=output.loss_sum + (parameter * 0).sum().sqrt())
        return replace(output, loss_sum=output.loss_sum * float("nan"))
