"""A language server connected to an engine whose answers are written down in the test."""

from contextlib import asynccontextmanager

import pytest
from helpers.lsp_client import open_editor
from helpers.lsp_engine import TOKEN, WrittenEngine, serve_engine


@pytest.fixture
def engine():
    engine = WrittenEngine()
    with serve_engine(engine) as engine.url:
        yield engine


@pytest.fixture
def connect(engine):
    """``async with connect(...) as editor``: initialized, and the engine is ready."""

    @asynccontextmanager
    async def connect(settings=None, *, arguments=(), env=None, **capabilities):
        async with open_editor(*arguments, env=env) as editor:
            settings = {"engine": {"url": engine.url, "token": TOKEN}, **(settings or {})}
            await editor.initialize(settings, **capabilities)
            await editor.wait_for_status("ready")
            yield editor
            await editor.shut_down()
            assert set(editor.answers.values()) <= {1}, "a request was answered twice"

    return connect
