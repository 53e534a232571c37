"""Compiles and runs a program of another language."""

# ruff: noqa: T201, PTH123, S603 - the output is the report; this runs inside the sandbox

from __future__ import annotations

import subprocess
import sys


def toolchain_files(files: dict[str, str], commands: list[list[str]], num_lenient: int) -> None:
    """Write ``files`` (name to text) and run ``commands`` one after the other; exits with 1 at the first that fails.

    The exit codes of the first ``num_lenient`` commands do not count. Times are bounded by the sandbox.
    """
    for name, text in files.items():
        with open(name, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
    for number, command in enumerate(commands):
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode != 0 and number >= num_lenient:
            print((done.stdout[-800:] + done.stderr[-2000:]).decode("utf-8", "replace"))
            sys.exit(1)
