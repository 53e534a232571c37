"""The models a user can choose from: those that have a name, and those that were pulled from a path."""

from __future__ import annotations

from typing import Any

from diffusion_core.config import DEFAULT_EDIT_MODEL, DEFAULT_MODEL


def known_models() -> list[dict[str, Any]]:
    """One JSON object a model. Reads the registry and the folder of checkpoints; needs no torch."""
    from diffusion_core.checkpoints.registry import registry
    from diffusion_core.checkpoints.store import downloaded_names, is_downloaded

    known: list[dict[str, Any]] = [
        {
            "name": entry.name, "title": entry.title, "parameters": entry.parameters, "licence": entry.licence,
            "tasks": [entry.task], "isDefault": entry.name in {DEFAULT_MODEL, DEFAULT_EDIT_MODEL},
            "isPresent": is_downloaded(entry.name),
        }
        for entry in registry().values()
    ]  # fmt: skip
    # What a checkpoint from a path was made for is not recorded: it may be chosen for either task.
    own: list[dict[str, Any]] = [
        {"name": name, "licence": "", "tasks": ["complete", "edit"], "isDefault": False, "isPresent": True}
        for name in downloaded_names()
        if name not in registry() and is_downloaded(name)
    ]
    return known + own
