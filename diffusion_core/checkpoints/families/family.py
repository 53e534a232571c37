"""What a family of checkpoints is: plain values, no code of its own and no torch.

A family says by what its ``config.json`` is recognised, under which keys and tensor names its numbers and weights are
stored, and the contract by which it denoises. Everything else (Transformer, decoder, cache) is shared by all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusion_core.checkpoints.weights import HUGGING_FACE, Naming
from diffusion_core.model.config import AttentionPattern, Certainty, CommitForward, LogitAlignment


@dataclass(frozen=True, kw_only=True)
class ConfigKeys:
    """Under which key of ``config.json`` each number of a ModelConfig is found; "" where the format has none."""

    vocab_size: str = "vocab_size"
    hidden_size: str = "hidden_size"
    intermediate_size: str = "intermediate_size"
    num_layers: str = "num_hidden_layers"
    num_heads: str = "num_attention_heads"
    num_kv_heads: str = "num_key_value_heads"
    head_dim: str = "head_dim"
    rms_norm_eps: str = "rms_norm_eps"
    rope_theta: str = "rope_theta"
    tie_word_embeddings: str = "tie_word_embeddings"
    max_position_embeddings: str = "max_position_embeddings"


@dataclass(frozen=True, kw_only=True)
class Markers:
    """What a folder shows when it belongs to a family; all that is given must hold.

    ``architectures``: one of these classes is named in ``architectures``. ``code``: one of these texts occurs in an
    entry of ``architectures`` or ``auto_map``, whatever the case. ``keys``: all are in ``config.json``. ``tokens``: all
    are in the tokenizer. Markers that other families show as well are not ``is_conclusive``: such a folder is loaded
    only when its family is named.
    """

    architectures: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    is_conclusive: bool = True


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of checkpoints.

    ``model_types`` are the values of that key in ``config.json``; ``markers`` are alternatives. ``is_generic`` families
    stand back behind any other that fits. ``fixed`` are values of ``config.json`` that the format leaves out;
    ``required`` are those that it must have where it has the key at all, since the shape knows no other.

    ``mask_token`` is its name in the tokenizer (``mask_aliases``: of some), "" for an autoregressive family; its id
    is always that of the tokenizer, and must agree with ``mask_key`` of ``config.json`` where that is present.
    ``block_key`` overrides ``block_size``; ``sub_block_size`` and ``commit`` are those of DiffusionConfig. An empty
    ``prompt_format`` is chosen by the vocabulary.

    ``licence_must_be_accepted``: the weights may not be used freely; pulling them asks first.
    """

    name: str
    title: str
    repositories: tuple[str, ...]
    licence: str
    licence_must_be_accepted: bool = False
    licence_url: str = ""

    model_types: tuple[str, ...]
    markers: tuple[Markers, ...]
    is_generic: bool = False

    config_keys: ConfigKeys = field(default_factory=ConfigKeys)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, Any] = field(default_factory=dict)
    qkv_bias: bool = False
    qk_norm: bool = False
    default_head_dim: int | None = None
    naming: Naming = HUGGING_FACE
    ignored_tensors: tuple[str, ...] = ()

    prompt_format: str = ""
    fim_layout: str = ""
    alignment: LogitAlignment = LogitAlignment.SHIFTED
    attention: AttentionPattern = AttentionPattern.CAUSAL_CONTEXT
    commit: CommitForward = CommitForward.MERGED
    mask_token: str = ""
    mask_aliases: tuple[str, ...] = ()
    mask_key: str = "mask_token_id"
    block_size: int = 1
    block_key: str = ""
    sub_block_size: int = 0
    certainty: Certainty = Certainty.PROBABILITY
    stop_tokens: tuple[str, ...] = ()
    banned_tokens: tuple[str, ...] = ()

    @property
    def is_diffusion(self) -> bool:
        """Whether the family denoises mask slots."""
        return bool(self.mask_token)
