"""A window of a real VS Code with the packaged extension, the real language server and an engine that follows a script.

Where the editor cannot be set up the tests are skipped with the reason; in CI that is a failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.lsp_engine import TOKEN, WrittenEngine, serve_engine
from helpers.lsp_tap import Tap
from helpers.vscode import open_vscode, why_not

ROOT = Path(__file__).resolve().parents[3]
ARTEFACTS = ROOT / "out" / "vscode"
SERVER = (sys.executable, "-P", "-m", "lsp_server")


@pytest.fixture(scope="session")
def editor_in_place() -> None:
    """Skips where there is no editor, and says why."""
    reason = why_not()
    if reason:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@pytest.fixture(scope="module")
def engine() -> Iterator[WrittenEngine]:
    engine = WrittenEngine()
    with serve_engine(engine) as engine.url:
        yield engine


@pytest.fixture(scope="module")
def tap(tmp_path_factory) -> Tap:
    return Tap(tmp_path_factory.mktemp("tap"))


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def engine_settings(engine) -> dict[str, object]:
    return {"unmask.engine.url": engine.url, "unmask.engine.token": TOKEN}


@pytest.fixture(scope="module")
def log_level() -> str:
    return "info"


@pytest.fixture(scope="module")
def window(editor_in_place, engine_settings, environment, log_level, tap, tmp_path_factory):
    settings = {"unmask.server.command": tap.command(*SERVER), **engine_settings}
    paths = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))}
    base = tmp_path_factory.mktemp("vscode")
    with open_vscode(base, ARTEFACTS, settings, {**paths, **environment}, log_level) as window:
        yield window


@pytest.fixture
def vscode(window, request):
    """The window; a test that fails leaves a picture of it."""
    yield window
    report = request.node.stash.get(REPORT, None)
    if report is not None and report.failed:
        window.screenshot(f"failed-{request.node.name}")


REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.stash[REPORT] = report
    return report
