"""Small evaluation files in the formats of the real ones, and where the real ones lie."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make_hole(number: int, *, solution: str | None = None, suffix: str = "    return x\n") -> dict[str, str]:
    """A hole whose solution is ``x = a + NUMBER``."""
    return {
        "task_id": f"Hole/{number}",
        "entry_point": "add",
        "prompt": f"def add(a):\n    # adds {number}\n",
        "suffix": suffix,
        "canonical_solution": solution or f"    x = a + {number}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {number + 1}\n",
    }


def make_edit_item(number: int, *, library: str = "math") -> dict[str, Any]:
    """An item that wants the constant changed to ``number``."""
    before = f"import {library}\n\n# item {number}\n" + "".join(f"x{i} = {i}\n" for i in range(10)) + "VALUE = 0"
    return {
        "id": number,
        "full_name": f"{number}_constant",
        "before": before,
        "after": before.replace("VALUE = 0", f"VALUE = {number}"),
        "tests": f"assert VALUE == {number}\n",
        "instruction_descriptive": f"Set VALUE to {number}.",
        "instruction_lazy": "set it",
    }


def write_set(path: Path, rows: list[dict[str, Any]]) -> Path:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def find_real_set(name: str) -> Path:
    """A real evaluation file; skips the test where there is none."""
    path = _data_folder() / name
    if not path.exists():
        pytest.skip(f"{path} is not there: set UNMASK_EVAL_DATA")
    return path


def find_paper() -> Path:
    """The paper's text, beside the folder of the evaluation files; skips the test where there is none."""
    path = _data_folder().parent / "paper" / "seed-diffusion.txt"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def _data_folder() -> Path:
    return Path(os.environ.get("UNMASK_EVAL_DATA") or ROOT.parent / "shared" / "data")
