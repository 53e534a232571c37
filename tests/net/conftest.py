"""Fixtures of the launcher's tests, and a server that answers other people's clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from helpers import scripted_engine
from helpers.local_engines import Local
from helpers.tiny_server import ServeProcess, serve_tiny


@pytest.fixture
async def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Local]:
    monkeypatch.setenv("UNMASK_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PYTHONPATH", str(Path(scripted_engine.__file__).parents[1]))
    made = Local()
    yield made
    for engine in made.engines:
        await engine.stop()
        await engine.aclose()


@pytest.fixture(scope="session")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """`unmask serve` with a tiny model, for all tests that only ask it something."""
    with serve_tiny(tmp_path_factory.mktemp("serve")) as running:
        yield running
