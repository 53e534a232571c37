"""The engine of a user runs in another working folder than the command that starts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_core.config import EngineConfig
from diffusion_core.net.state_files import resolve_folders


def test_every_folder_of_a_configuration_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model", "edits", "drafter", "tuning"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    given = EngineConfig(model="./model", edit_model="./edits", drafter="./drafter", tuning="./tuning")
    found = resolve_folders(given)
    assert [found.model, found.edit_model, found.drafter, found.tuning] == [
        str(tmp_path / name) for name in ("model", "edits", "drafter", "tuning")
    ]
    assert resolve_folders(EngineConfig()) == EngineConfig(), "names and `auto` stay"
