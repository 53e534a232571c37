"""The demo's first step: the models that are missing are downloaded."""

from __future__ import annotations

from diffusion_core.checkpoints.pull import pull
from diffusion_core.checkpoints.registry import registry
from diffusion_core.checkpoints.store import is_downloaded
from diffusion_core.cli.pull import show_progress
from diffusion_core.config import DEFAULT_EDIT_MODEL, DEFAULT_MODEL, EngineConfig
from diffusion_core.errors import CheckpointError
from lsp_server.demo_screen import Screen


def edit_model_of(config: EngineConfig) -> str:
    """The model that should answer edits: with ``auto`` the one recommended beside the default model."""
    if config.edit_model != "auto":
        return config.edit_model
    return DEFAULT_EDIT_MODEL if config.model == DEFAULT_MODEL else config.model


def pull_models(config: EngineConfig, screen: Screen, *, with_edit_model: bool) -> None:
    """Pull what is missing. Without the edit model the demo goes on, and says how to get it.

    Raises:
        CheckpointError: the model for completions cannot be had.
    """
    pull_model(config.model, screen)
    name = edit_model_of(config)
    if name == config.model:
        return
    if not with_edit_model and not is_downloaded(name):
        screen.say(f"{name}: left out; edits are made by the smaller {config.model}")
        return
    try:
        pull_model(name, screen)
    except CheckpointError as error:
        screen.say(f"{name}: {error}", "yellow")
        screen.say(f"Edits are made by the smaller {config.model}; for better ones: unmask pull {name}", "yellow")


def pull_model(name: str, screen: Screen) -> None:
    """Pull one model, unless it is here or is a folder of the user's own."""
    if name not in registry():
        screen.say(f"{name}: used as it is")
        return
    if is_downloaded(name):
        screen.say(f"{name}: already here")
        return
    with show_progress(name) as progress:
        pull(name, progress=progress)
    screen.say(f"{name}: downloaded and verified")
