"""Drafters that come with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_core.checkpoints import drafters
from diffusion_core.checkpoints.packaged import find_packaged_drafter
from diffusion_core.checkpoints.registry import registry
from diffusion_core.config import EngineConfig
from diffusion_core.errors import ConfigError

FOLDER = Path(drafters.__file__).parent
MAX_BYTES = 40_000_000


@pytest.mark.parametrize("name", ["", ".", "..", "../drafters", "no-such-model", "/etc", "__pycache__"])
def test_a_name_without_a_drafter_gives_none(name: str) -> None:
    assert find_packaged_drafter(name) is None


def test_every_packaged_drafter_belongs_to_a_named_model_and_is_small() -> None:
    for folder in FOLDER.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert folder.name in registry()
            assert find_packaged_drafter(folder.name) == folder
            assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_BYTES
            assert (folder / "README.md").is_file(), "a drafter has a card"


def test_an_empty_drafter_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="allowed are auto, none"):
        EngineConfig(drafter="")
