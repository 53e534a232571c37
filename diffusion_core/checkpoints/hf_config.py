"""``config.json`` of a Hugging Face folder in our terms, both of transformers 4 and 5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from diffusion_core.checkpoints.families.family import Family
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig

CONFIG_FILE = "config.json"
GENERATION_CONFIG_FILE = "generation_config.json"

N = TypeVar("N", int, float, bool)


def read_json(path: Path) -> dict[str, Any]:
    """An object out of a JSON file.

    Raises:
        CheckpointError: the file is missing or holds no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: an object was expected")
    return values


def read_hf_config(path: Path, given: Mapping[str, Any], family: Family) -> ModelConfig:
    """The shape of the model whose ``config.json`` at ``path`` has these values, by the keys of its family.

    Raises:
        CheckpointError: an unsupported feature, or a missing or mistyped key.
    """
    values, keys = {**family.fixed, **given}, family.config_keys
    _refuse_unsupported(path, values)
    for key, wanted in family.required.items():
        if key in values and values[key] != wanted:
            raise CheckpointError(f"{path}: {key} {values[key]!r} is not supported: {wanted!r} is")
    theta, scaling = _read_rope(path, values, keys.rope_theta)
    heads = _number(path, values, keys.num_heads, int)
    width = _number(path, values, keys.hidden_size, int)
    if heads < 1:
        raise CheckpointError(f"{path}: {keys.num_heads} is {heads}")
    return ModelConfig(
        vocab_size=_number(path, values, keys.vocab_size, int),
        hidden_size=width,
        intermediate_size=_number(path, values, keys.intermediate_size, int),
        num_layers=_number(path, values, keys.num_layers, int),
        num_heads=heads,
        num_kv_heads=_number(path, values, keys.num_kv_heads, int, heads),
        head_dim=_number(path, values, keys.head_dim, int, family.default_head_dim or width // heads),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=_number(path, values, keys.rms_norm_eps, float, 1e-6),
        qkv_bias=family.qkv_bias,
        qk_norm=family.qk_norm,
        tie_word_embeddings=_number(path, values, keys.tie_word_embeddings, bool, False),
        max_position_embeddings=_number(path, values, keys.max_position_embeddings, int),
    )


def read_eos_ids(folder: Path) -> tuple[int, ...]:
    """End-of-text ids of ``config.json`` and ``generation_config.json``, where these are present."""
    found: dict[int, None] = {}
    for name in (CONFIG_FILE, GENERATION_CONFIG_FILE):
        path = folder / name
        if not path.exists():
            continue
        ids = read_json(path).get("eos_token_id")
        for value in ids if isinstance(ids, list) else [] if ids is None else [ids]:
            if not isinstance(value, int) or isinstance(value, bool):
                raise CheckpointError(f"{path}: eos_token_id is {ids!r}, a number or a list of numbers expected")
            found[value] = None
    return tuple(found)


def _number(path: Path, values: dict[str, Any], key: str, kind: type[N], default: N | None = None) -> N:
    """A value of that type; None counts as absent, an integer may stand for a float."""
    value = values.get(key)
    if value is None:
        if default is None:
            raise CheckpointError(f"{path}: key {key} is missing")
        return default
    is_bool = isinstance(value, bool)
    if kind is float and isinstance(value, int) and not is_bool:
        return kind(value)
    if not isinstance(value, kind) or (is_bool and kind is not bool):
        raise CheckpointError(f"{path}: {key} is {value!r}, {kind.__name__} expected")
    return value


def _refuse_unsupported(path: Path, values: dict[str, Any]) -> None:
    """Features of these families that our Transformer does not have: ignoring them would give wrong results."""
    if values.get("hidden_act", "silu") != "silu":
        raise CheckpointError(f"{path}: hidden_act {values['hidden_act']!r} is not supported: silu is")
    for key in ("mlp_bias", "attention_bias"):
        if values.get(key):
            raise CheckpointError(f"{path}: {key} true is not supported")
    if values.get("quantization_config"):
        raise CheckpointError(f"{path}: quantised safetensors are not supported: take the original or a GGUF file")
    layer_types = values.get("layer_types") or []
    if values.get("use_sliding_window") and (not layer_types or set(layer_types) != {"full_attention"}):
        raise CheckpointError(f"{path}: use_sliding_window true is not supported")
    for holder in (values, values.get("rope_parameters") or {}):
        if isinstance(holder, dict) and holder.get("partial_rotary_factor", 1.0) != 1.0:
            raise CheckpointError(f"{path}: partial_rotary_factor {holder['partial_rotary_factor']!r} is not supported")


def _read_rope(path: Path, values: dict[str, Any], theta_key: str) -> tuple[float, dict[str, Any] | None]:
    """Theta and scaling: ``rope_parameters`` of transformers 5, or ``rope_theta`` and ``rope_scaling`` of 4."""
    given = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        raise CheckpointError(f"{path}: rope_parameters differ by layer or are no object: not supported")
    parameters = dict(given)
    stored = {**values, **({theta_key: parameters["rope_theta"]} if "rope_theta" in parameters else {})}
    theta = _number(path, stored, theta_key, float, 10_000.0)
    parameters.pop("rope_theta", None)
    kind = parameters.pop("type", None)  # the older spelling
    kind = parameters.pop("rope_type", kind) or "default"
    needed = {
        "default": (),
        "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    }
    if kind not in needed:
        raise CheckpointError(f"{path}: rope_type {kind!r} is not supported: {', '.join(needed)} are")
    if kind == "default":
        return theta, None
    return theta, {"rope_type": kind, **{key: _number(path, parameters, key, float) for key in needed[kind]}}
