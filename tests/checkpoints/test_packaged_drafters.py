"""Drafters and tunings that come with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from diffusion_core.checkpoints import drafters, tunings
from diffusion_core.checkpoints.packaged import find_packaged_drafter, find_packaged_tuning
from diffusion_core.checkpoints.registry import registry
from diffusion_core.config import EngineConfig
from diffusion_core.errors import ConfigError

KINDS = [
    pytest.param(Path(drafters.__file__).parent, find_packaged_drafter, id="drafters"),
    pytest.param(Path(tunings.__file__).parent, find_packaged_tuning, id="tunings"),
]
MAX_BYTES = 40_000_000


@pytest.mark.parametrize(("parent", "find"), KINDS)
@pytest.mark.parametrize("name", ["", ".", "..", "../drafters", "no-such-model", "/etc", "__pycache__"])
def test_a_name_without_one_gives_none(name: str, parent: Path, find: Callable[[str], Path | None]) -> None:
    assert find(name) is None


@pytest.mark.parametrize(("parent", "find"), KINDS)
def test_each_belongs_to_a_named_model_and_is_small(parent: Path, find: Callable[[str], Path | None]) -> None:
    folders = [folder for folder in parent.iterdir() if folder.is_dir() and folder.name != "__pycache__"]
    assert folders, "the default model has one"
    for folder in folders:
        assert folder.name in registry()
        assert find(folder.name) == folder
        assert sum(file.stat().st_size for file in folder.iterdir()) <= MAX_BYTES
        assert (folder / "README.md").is_file(), "it has a card"


def test_an_empty_drafter_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="allowed are auto, none"):
        EngineConfig(drafter="")
