"""Judges a solution of a programming contest: by its function's values, or by what it prints for an input."""

# ruff: noqa: T201, PTH123, S102 - the output is the report; this runs inside the sandbox

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal, InvalidOperation
from typing import Any

PRELUDE = "\n".join(
    [f"from {name} import *" for name in (
        "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics",
        "itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing",
    )]
    + [f"import {name}" for name in (
        "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics",
        "itertools", "functools", "operator", "io", "sys", "json",
    )]
    + ["sys.setrecursionlimit(50000)", ""]
)  # fmt: skip


def contest_tests(solution: str, tests: list[tuple[str, str]], function: str, seconds: float) -> None:
    """Run all ``tests`` (input, expected output); exits with 1 at the first that differs or takes too long.

    With a ``function``, inputs are one JSON value a line and the output is a JSON value; a tuple counts as a list.
    Without one the input is what the program reads; outputs are compared line by line without outer white space, and
    as numbers where the text differs. Both as LiveCodeBench judges.
    """
    with open("solution.py", "w", encoding="utf-8") as stream:
        stream.write(PRELUDE + solution)
    if function:
        _judge_function(solution, tests, function, seconds)
        return
    for number, (given, expected) in enumerate(tests):
        try:
            done = subprocess.run(
                [sys.executable, "-B", "solution.py"], input=given.encode(), capture_output=True, timeout=seconds,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            _fail(number, f"took more than {seconds:g} seconds")
        if done.returncode != 0:
            _fail(number, done.stderr.decode("utf-8", "replace")[-1500:])
        printed = done.stdout.decode("utf-8", "replace")
        if not same_output(printed, expected):
            _fail(number, f"printed {printed[:300]!r}, expected is {expected[:300]!r}")


def same_output(printed: str, expected: str) -> bool:
    """Whether two outputs are the same line by line, as text or as numbers."""
    left = [line.strip() for line in printed.strip().split("\n")]
    right = [line.strip() for line in expected.strip().split("\n")]
    return len(left) == len(right) and all(a == b or _same_numbers(a, b) for a, b in zip(left, right, strict=True))


def _same_numbers(left: str, right: str) -> bool:
    try:
        return [Decimal(word) for word in left.split()] == [Decimal(word) for word in right.split()]
    except InvalidOperation:
        return False


def _judge_function(solution: str, tests: list[tuple[str, str]], function: str, seconds: float) -> None:
    import signal

    def stop(_number: int, _frame: Any) -> None:
        raise TimeoutError(f"took more than {seconds:g} seconds")

    signal.signal(signal.SIGALRM, stop)
    names: dict[str, Any] = {"__name__": "solution"}
    exec(compile(PRELUDE + solution, "solution.py", "exec"), names)
    owner = names["Solution"]() if "Solution" in names else None
    call = getattr(owner, function, None) or names[function]
    for number, (given, expected) in enumerate(tests):
        arguments = [json.loads(line) for line in given.split("\n")]
        signal.setitimer(signal.ITIMER_REAL, seconds)
        value = call(*arguments)
        signal.setitimer(signal.ITIMER_REAL, 0)
        value = list(value) if isinstance(value, tuple) else value
        if value != json.loads(expected):
            _fail(number, f"gave {str(value)[:300]}, expected is {expected[:300]}")


def _fail(number: int, why: str) -> None:
    print(f"test {number}: {why}")
    sys.exit(1)
