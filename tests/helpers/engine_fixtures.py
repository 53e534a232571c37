"""Fixtures: one engine server for a folder of tests, scripted anew by each, and the command line that talks to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.answering_engine import EngineServer, run_engine_server
from helpers.unmask_process import Unmask


@pytest.fixture(scope="session")
def engine_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    with run_engine_server(tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture
def server(engine_server: EngineServer) -> EngineServer:
    engine_server.script()
    engine_server.forget_requests()
    return engine_server


@pytest.fixture
def unmask(server: EngineServer) -> Unmask:
    return Unmask(server.folder, server)
