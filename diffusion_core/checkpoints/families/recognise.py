"""All families by name, and which one a folder belongs to.

A diffusion checkpoint that is read as the base whose ``model_type`` it carries answers with nonsense and without an
error. So a folder is loaded only when its markers say what it is, or when the caller does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffusion_core.checkpoints.families import (
    autoregressive,
    coda,
    dream,
    fast_dllm,
    llada,
    open_dcoder,
    sdar,
    seed,
    tiny_a2d,
)
from diffusion_core.checkpoints.families.family import Family, Markers
from diffusion_core.errors import CheckpointError

AUTO = "auto"

_GROUPS = (seed, sdar, fast_dllm, tiny_a2d, dream, llada, coda, open_dcoder, autoregressive)
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {family.name: family for group in _GROUPS for family in group.FAMILIES}
)


def find_family(name: str) -> Family:
    """The family of that name.

    Raises:
        CheckpointError: there is none; the known names are listed.
    """
    if name not in FAMILIES:
        raise CheckpointError(f"family {name!r} is unknown: known are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def recognise(
    path: Path,
    config: Mapping[str, Any],
    vocabulary: Mapping[str, int],
    *,
    wanted: str = AUTO,
    is_described: bool = False,
) -> Family:
    """The family of a folder by its ``config.json`` at ``path`` and the tokens of its tokenizer.

    ``wanted`` names the family instead; its ``model_type`` must still fit. ``is_described``: the folder has a
    ``diffusion_config.json`` of its own, which says how it is decoded; the family is then the shape only.

    Raises:
        CheckpointError: of no known family, of another than ``wanted``, or possibly of several; all are named.
    """
    kind = config.get("model_type")
    if wanted != AUTO:
        return _check_wanted(path, kind, find_family(wanted))
    related = [family for family in FAMILIES.values() if kind in family.model_types]
    if not related:
        kinds = dict.fromkeys(kind for family in FAMILIES.values() for kind in family.model_types)
        raise CheckpointError(f"{path}: model_type {kind!r} is not supported: {', '.join(kinds)} are")
    shown = [family for family in related if any(_shows(config, vocabulary, m) for m in family.markers)]
    sure = [family for family in shown if not family.is_generic] or shown
    conclusive = [f for f in sure if any(m.is_conclusive and _shows(config, vocabulary, m) for m in f.markers)]
    if is_described:
        # Any of these has the shape that `model_type` stands for, and nothing but the shape is asked.
        return (conclusive or sure or related[::-1])[0]
    if not sure:
        names = " or ".join(family.name for family in related)
        raise CheckpointError(
            f"{path}: architectures {config.get('architectures')!r} with model_type {kind!r} are those of no known "
            f"family; name the family if you know it (--family {names}), or describe the checkpoint in a "
            "diffusion_config.json beside it"
        )
    if len(conclusive) != 1:
        raise _ambiguous(path, conclusive or shown, "the markers of several families fit")
    return _check_masks(path, conclusive[0], related, vocabulary)


def _shows(config: Mapping[str, Any], vocabulary: Mapping[str, int], markers: Markers) -> bool:
    listed = config.get("architectures")
    classes = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    mapped = config.get("auto_map")
    code = {str(key): str(value) for key, value in mapped.items()} if isinstance(mapped, dict) else {}
    if markers.architectures:
        # A folder that brings code of its own for the model is what that code is, whatever else it names.
        own = {value.rsplit(".", 1)[-1] for key, value in code.items() if key.startswith("AutoModel")}
        if not set(classes) & set(markers.architectures) or not own <= set(markers.architectures):
            return False
    text = " ".join((*classes, *code.values())).lower()
    if markers.code and not any(name.lower() in text for name in markers.code):
        return False
    return all(key in config for key in markers.keys) and all(token in vocabulary for token in markers.tokens)


def _check_wanted(path: Path, kind: Any, family: Family) -> Family:
    if kind not in family.model_types:
        raise CheckpointError(
            f"{path}: model_type is {kind!r}, family {family.name} has {' or '.join(map(repr, family.model_types))}: "
            "the checkpoint is of another family"
        )
    return family


def _check_masks(path: Path, family: Family, related: list[Family], vocabulary: Mapping[str, int]) -> Family:
    """An autoregressive family, unless its tokenizer has a mask token: then it may be a diffusion model in disguise."""
    if family.is_diffusion:
        return family
    masks = {name for other in FAMILIES.values() for name in (other.mask_token, *other.mask_aliases) if name}
    found = sorted(masks & set(vocabulary))
    if found:
        others = [other for other in related if {other.mask_token, *other.mask_aliases} & set(found)]
        raise _ambiguous(path, [family, *others], f"the tokenizer has the mask token {found[0]}")
    return family


def _ambiguous(path: Path, families: list[Family], why: str) -> CheckpointError:
    names = " or ".join(f"--family {family.name}" for family in families)
    return CheckpointError(f"{path}: {why}, so that the family cannot be told: say {names}")
