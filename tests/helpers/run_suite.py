"""Runs the suite; files whose tests failed among others are run once more, alone and from a fresh start.

``python tests/helpers/run_suite.py [ARGUMENTS OF PYTEST]``

Tests of real editors, browsers and servers share a machine's cores with another worker and with whatever else runs
there. What fails alone too has failed. What does not is named at the end, as a fault of the test or a race to be found.
Tests of exactness depend on no clock and get no second run, and neither does anything when many files fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FAILED = Path(".pytest_cache/v/cache/lastfailed")
EXACT = ("tests/model/", "tests/sampling/", "tests/diffusion/", "tests/contracts/")
MAX_FILES = 3
SOME_FAILED = 1  # pytest's status; others mean that the run itself broke off


def failed_tests() -> list[str]:
    """Node ids of the tests that failed in the last run."""
    return sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []


def files_to_repeat(failed: list[str]) -> list[str]:
    """Their files, whole, since tests of one window build on each other; none if there must be no second run."""
    files = sorted({test.split("::")[0] for test in failed})
    return files if len(files) <= MAX_FILES and not any(file.startswith(EXACT) for file in files) else []


def main(arguments: list[str]) -> int:
    FAILED.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", "-q"]
    status = subprocess.run([*pytest, *arguments], check=False).returncode
    failed = failed_tests()
    files = files_to_repeat(failed) if status == SOME_FAILED else []
    if not files:
        return status
    print("\nOnce more, alone:", *files, flush=True)
    status = subprocess.run([*pytest, *files], check=False).returncode
    if status == 0:
        print("\nFailed beside other tests, passed alone; to be looked into:", *failed, sep="\n  ")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
