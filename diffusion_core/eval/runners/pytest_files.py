"""Runs a test file with pytest beside the files that it imports."""

# ruff: noqa: PTH123

from __future__ import annotations

import os
import sys


def pytest_files(files: dict[str, str], test: str) -> None:
    """Write ``files`` (name to text) into the working folder and run pytest on ``test``; exits with 1 on failure."""
    for name, text in files.items():
        with open(name, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the verdict must not depend on what else is installed
    import pytest

    code = pytest.main(["-s", "-q", "--disable-warnings", "-p", "no:cacheprovider", "--rootdir=.", test])
    if code != 0:
        sys.exit(1)
