"""What `make test` makes of failures: one more run alone for a few files, none for tests of exactness."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[1] / "helpers/run_suite.py"
FAILS_ONCE = """
from pathlib import Path

def test_first_time():
    seen = Path(__file__).with_suffix(".seen")
    was_there = seen.exists()
    seen.touch()
    assert was_there
"""
ALWAYS_FAILS = "def test_always():\n    assert False\n"


def run(folder: Path, files: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The runner over a suite of these files."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:asyncio -p no:xdist\n")
    for name, text in files.items():
        path = folder / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command = [sys.executable, str(RUNNER), "--import-mode=importlib", "tests"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_what_passes_alone_is_named(tmp_path: Path) -> None:
    result = run(tmp_path, {"net/test_a.py": FAILS_ONCE, "net/test_b.py": "def test_b():\n    pass\n"})
    assert result.returncode == 0, result.stdout
    assert "Once more, alone: tests/net/test_a.py\n" in result.stdout
    assert result.stdout.rstrip().endswith("to be looked into:\n  tests/net/test_a.py::test_first_time")


@pytest.mark.parametrize(
    "files",
    [
        {"net/test_a.py": ALWAYS_FAILS},
        {"model/test_a.py": FAILS_ONCE},
        {"net/test_a.py": FAILS_ONCE, "sampling/test_b.py": FAILS_ONCE},
        {f"net/test_{number}.py": FAILS_ONCE for number in range(4)},
    ],
    ids=["it fails alone too", "exactness", "exactness among others", "many files"],
)
def test_what_fails(tmp_path: Path, files: dict[str, str]) -> None:
    result = run(tmp_path, files)
    assert result.returncode == 1, result.stdout
    assert ("alone" in result.stdout) == (files == {"net/test_a.py": ALWAYS_FAILS})


def test_a_run_that_breaks_off_is_not_repeated(tmp_path: Path) -> None:
    result = run(tmp_path, {"net/test_a.py": "import no_such_module\n"})
    assert result.returncode not in (0, 1), result.stdout
    assert "alone" not in result.stdout
