"""Runs a test file beside the files that it imports, as ``python -m unittest`` does."""

# ruff: noqa: T201, PTH123 - the output is the report; small and without imports that a solution could miss

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import unittest


def unittest_files(files: dict[str, str], test: str, max_lines: int, max_characters: int) -> None:
    """Write ``files`` (name to text) into the working folder and run the tests of the module ``test``.

    On failure the beginning of unittest's report is printed (times and rulers taken out, so that it is the same for
    the same failure) and the program exits with 1.
    """
    for name, text in files.items():
        with open(name, "w", encoding="utf-8", newline="") as stream:
            stream.write(text)
    report = io.StringIO()
    folder = os.getcwd()  # noqa: PTH109
    # By discovery: a file that cannot be imported is then a failed test with its reason, as on the command line.
    with contextlib.redirect_stdout(io.StringIO()):  # what the solution prints belongs to the test that it fails
        tests = unittest.TestLoader().discover(folder, pattern=f"{test}.py", top_level_dir=folder)
    result = unittest.TextTestRunner(stream=report, buffer=True).run(tests)
    if result.testsRun > 0 and result.wasSuccessful():
        return
    text = re.sub(r"^Ran (\d+) tests? in .*$", "", report.getvalue(), flags=re.MULTILINE)
    text = re.sub(r"^(=|-){4,}$", r"\1\1\1\1", text, flags=re.MULTILINE).replace(folder + os.sep, "")
    print("\n".join(text.strip().splitlines()[:max_lines])[:max_characters])
    sys.exit(1)
