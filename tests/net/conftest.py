"""Fixtures of the launcher's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from helpers import scripted_engine
from helpers.local_engines import Local


@pytest.fixture
async def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Local]:
    monkeypatch.setenv("UNMASK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(scripted_engine.__file__).parents[1]))
    made = Local()
    yield made
    for engine in made.engines:
        await engine.stop()
        await engine.aclose()
