"""Shape of a model and the contract by which it denoises: two frozen records, stored beside the weights. No torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from diffusion_core.errors import CheckpointError

MODEL_CONFIG_FILE = "model_config.json"
TOKEN_IDS = "token_ids"  # noqa: S105 - not a password: a drafter's tensor that lists what it drafts
DIFFUSION_CONFIG_FILE = "diffusion_config.json"


class LogitAlignment(StrEnum):
    """Which position a row's logits speak of: its own, or the next one (adapted from an autoregressive base)."""

    SHIFTED = "shifted"
    SAME_POSITION = "same_position"


class AttentionPattern(StrEnum):
    """What rows see.

    ``CAUSAL_CONTEXT``: clean rows are causal, the slots of the active block see each other. ``BLOCK_CAUSAL``: every
    row sees its own block (an absolute grid) and all earlier blocks. ``BIDIRECTIONAL``: every row sees every row.
    """

    CAUSAL_CONTEXT = "causal_context"
    BLOCK_CAUSAL = "block_causal"
    BIDIRECTIONAL = "bidirectional"


class Certainty(StrEnum):
    """What ranks the masked positions of a denoising step: who is committed first.

    ``PROBABILITY``: that of the chosen token (LLaDA's low_confidence, Dream's maskgit_plus). ``MARGIN``: how far it is
    ahead of the second. ``ENTROPY``: the least entropy of the whole distribution.
    """

    PROBABILITY = "probability"
    MARGIN = "margin"
    ENTROPY = "entropy"


class CommitForward(StrEnum):
    """How the keys and values of a finished block get into the cache.

    ``MERGED``: in the forward that begins the next block. ``APART``: in a forward of its own, as the published samplers
    do; where logits are shifted it gives the next block's first token, which the other slots then see.
    """

    MERGED = "merged"
    APART = "apart"


class DrafterKind(StrEnum):
    """Who evaluates the slots of the active block."""

    NONE = "none"  # not trained for mask slots: lookup and selection drafts only
    MODEL = "model"  # the model itself
    GATED_ADAPTER = "gated_adapter"  # the model with low-rank deltas on slot rows only
    DRAFT_HEAD = "draft_head"  # extra layers that read the model's hidden states


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a Llama-, Qwen2- or Qwen3-like decoder. Names follow the field's usual configuration keys."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    rope_scaling: dict[str, Any] | None = None
    rms_norm_eps: float = 1e-6
    qkv_bias: bool = False
    qk_norm: bool = False
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 32_768

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise CheckpointError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """What makes a checkpoint a diffusion model (architecture.md, decision 3). Never inferred from a name.

    ``block_size`` is the trained block (1 for an autoregressive base). ``mask_token_id`` is None when the checkpoint
    was not trained for mask slots. ``sub_block_size`` is the part of a block that is denoised at a time, 0 for all of
    it. ``certainty`` ranks positions where a policy commits a number of them. ``stop_token_ids`` end an answer;
    ``banned_token_ids`` are never produced.
    """

    prompt_format: str
    fim_layout: str = ""
    alignment: LogitAlignment = LogitAlignment.SHIFTED
    attention: AttentionPattern = AttentionPattern.CAUSAL_CONTEXT
    drafter: DrafterKind = DrafterKind.NONE
    mask_token_id: int | None = None
    block_size: int = 1
    sub_block_size: int = 0
    certainty: Certainty = Certainty.PROBABILITY
    commit: CommitForward = CommitForward.MERGED
    stop_token_ids: tuple[int, ...] = ()
    banned_token_ids: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        needs_mask = self.drafter in (DrafterKind.MODEL, DrafterKind.GATED_ADAPTER)
        if needs_mask and self.mask_token_id is None:
            raise CheckpointError(f"drafter {self.drafter.value} needs mask_token_id in {DIFFUSION_CONFIG_FILE}")
        if self.block_size < 1:
            raise CheckpointError(f"block_size is {self.block_size}: at least 1")
        if self.sub_block_size and (self.sub_block_size < 1 or self.block_size % self.sub_block_size):
            raise CheckpointError(f"sub_block_size {self.sub_block_size} does not divide block_size {self.block_size}")

    @property
    def has_causal_clean_path(self) -> bool:
        """Whether clean rows are causal: what ``autoregressive`` and ``verified`` need."""
        return self.attention is AttentionPattern.CAUSAL_CONTEXT and self.alignment is LogitAlignment.SHIFTED


def write_config(config: ModelConfig | DiffusionConfig, path: Path) -> None:
    """Write a record as JSON, one key a line."""
    path.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n", encoding="utf-8")


def read_model_config(path: Path) -> ModelConfig:
    """Read a :class:`ModelConfig`; a missing, unknown or mistyped key raises :class:`CheckpointError`."""
    return ModelConfig(**_read(path, ModelConfig))


def read_diffusion_config(path: Path) -> DiffusionConfig:
    """Read a :class:`DiffusionConfig`; a missing, unknown or mistyped key raises :class:`CheckpointError`."""
    values = _read(path, DiffusionConfig)
    enums = {
        "alignment": LogitAlignment, "attention": AttentionPattern, "drafter": DrafterKind, "commit": CommitForward,
        "certainty": Certainty,
    }  # fmt: skip
    for key, enum in enums.items():
        if key in values:
            try:
                values[key] = enum(values[key])
            except ValueError:
                allowed = ", ".join(member.value for member in enum)
                raise CheckpointError(f"{path}: {key} is {values[key]!r}, allowed are {allowed}") from None
    for key in ("stop_token_ids", "banned_token_ids"):
        if key in values:
            values[key] = tuple(values[key])
    return DiffusionConfig(**values)


def _read(path: Path, cls: type) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: an object was expected")
    known = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - set(known)):
        raise CheckpointError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    required = [
        n for n, f in known.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if absent := [n for n in required if n not in values]:
        raise CheckpointError(f"{path}: key {absent[0]!r} is missing")
    return values
