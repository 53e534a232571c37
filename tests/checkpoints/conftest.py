"""Every test of this part has a cache folder of its own, except those of the real checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("real_model") is None:
        monkeypatch.setenv("UNMASK_CACHE_DIR", str(tmp_path / "cache"))
