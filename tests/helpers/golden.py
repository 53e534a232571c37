"""What the samplers of the bidirectional families made (tests/checkpoints/fixtures), by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from helpers.family_fixtures import FOLDER


@dataclass(frozen=True)
class Golden:
    """``samples``: settings and tokens by name; ``suffix`` stands behind those that fill in."""

    prompt: list[int]
    suffix: list[int]
    samples: dict[str, dict[str, Any]]


@cache
def golden(name: str) -> Golden:
    """The fixture of that name."""
    stored = json.loads((FOLDER / name / "golden.json").read_text())
    samples = {answer["name"]: answer for answer in stored["answers"]}
    return Golden(stored["prompt"], stored["suffix"], samples)
