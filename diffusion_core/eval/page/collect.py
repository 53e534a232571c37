"""Reads result files for the page: one :class:`RunResult` each, with how it came about."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from diffusion_core.errors import UnmaskError
from diffusion_core.eval.run_log import read_log

_NEEDED = ("benchmark", "n", "passed", "pass_at_1", "items", "settings")
_ENDINGS = (".gz", ".jsonl", ".json", ".dev")
Z_95 = 1.959964


class PageError(UnmaskError):
    """The page cannot be made; the message names the file or what is missing."""

    code: ClassVar[str] = "page"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """One result file. ``document`` is its JSON, ``log`` the lines of the log beside it."""

    path: Path
    document: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]

    @property
    def set_name(self) -> str:
        """The data file's name without its endings."""
        name = str(self.document.get("data") or self.path.name)
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        return name

    @property
    def model(self) -> str:
        """The model that answered."""
        return str(self.document.get("model") or "no model")

    @property
    def policy(self) -> str:
        """The policy that decoded."""
        return str(self.document.get("policy") or "no policy")

    @property
    def label(self) -> str:
        """Set, model and policy."""
        return f"{self.set_name} · {self.model} · {self.policy}"

    @property
    def outcomes(self) -> dict[str, int]:
        """How the programs ended, the most frequent first."""
        return dict(Counter(item["verdict"]["outcome"] for item in self.document["items"]).most_common())

    @property
    def finish_reasons(self) -> dict[str, int]:
        """Why the answers ended, the most frequent first."""
        items = self.document["items"]
        return dict(Counter(item["finish_reason"] for item in items if "finish_reason" in item).most_common())


def interval(passed: int, total: int) -> tuple[float, float]:
    """Wilson's interval of a rate at 95 %, both ends in ``[0, 1]``; (0, 1) for nothing."""
    if total == 0:
        return 0.0, 1.0
    rate, spread = passed / total, Z_95**2 / total
    middle = (rate + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(rate * (1 - rate) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def collect(paths: Sequence[Path]) -> tuple[list[RunResult], list[str]]:
    """All results that the paths name or hold, and remarks about what is not shown.

    Raises:
        PageError: a file is no result, or there is none at all.
    """
    files: list[Path] = []
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            files += sorted(path.glob("*.json"))
            notes += [f"{file.name}: not finished, not shown" for file in sorted(path.glob("*.partial.jsonl"))]
        else:
            files.append(path)
    results = [read_result(file) for file in dict.fromkeys(files)]
    if not results:
        raise PageError(f"{', '.join(map(str, paths))}: there is no result file (*.json)")
    return results, notes


def read_result(path: Path) -> RunResult:
    """One result file of `unmask eval`.

    Raises:
        PageError: not readable, no JSON, or something else than a result.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise PageError(f"{path}: is no JSON ({error})") from None
    missing = [name for name in _NEEDED if not isinstance(document, dict) or name not in document]
    if missing:
        raise PageError(f"{path}: is no result of `unmask eval`: {', '.join(missing)} missing")
    return RunResult(path=path, document=document, log=read_log(path))


def count_same_text(left: RunResult, right: RunResult) -> tuple[int, int]:
    """Of the items that both runs answered, how many have the same text; and how many there are."""
    texts = {item["task_id"]: item["completion"] for item in left.document["items"]}
    pairs = [
        (texts[item["task_id"]], item["completion"]) for item in right.document["items"] if item["task_id"] in texts
    ]
    return sum(a == b for a, b in pairs), len(pairs)
