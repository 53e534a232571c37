"""Keeps beside a result file how it came about: commands, dates, device, versions.

``OUT.runs.jsonl`` gets a line when a command begins to work on ``OUT`` and one when it ends; a kill leaves the first
only. The result file itself holds nothing that differs between a run in one go and one that was taken up again.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from diffusion_core.eval.store import ResultsError
from diffusion_core.requests import Health

_HIDDEN = frozenset({"--token-file"})


class RunLog:
    """The log of one result file; without a file nothing is written."""

    def __init__(self, out: Path | None) -> None:
        self._path = log_path(out) if out else None

    def begin(self, health: Health, machine: Mapping[str, Any], arguments: Sequence[str]) -> None:
        """A command begins to work on the results.

        Raises:
            ResultsError: the file cannot be written.
        """
        self._append(
            event="begin", command=describe_command(arguments), device=health.device, dtype=health.dtype,
            engine=health.version, threads=max((each.num_threads for each in health.decoding), default=0),
            machine=dict(machine),
        )  # fmt: skip

    def end(self, num_items: int) -> None:
        """The results are complete."""
        self._append(event="end", items=num_items)

    def _append(self, **fields: Any) -> None:
        if self._path is None:
            return
        line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **fields})
        try:
            with self._path.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise ResultsError(f"{self._path}: cannot be written: {error.strerror}") from None


def log_path(out: Path) -> Path:
    """Where the log of the result file ``out`` lies."""
    return out.with_name(out.name + ".runs.jsonl")


def read_log(out: Path) -> list[dict[str, Any]]:
    """The lines of a result file's log; none where there is no log. A line that is cut short is left out."""
    try:
        content = log_path(out).read_text(encoding="utf-8")
    except OSError:
        return []
    lines = []
    for line in content.splitlines():
        try:
            lines.append(dict(json.loads(line)))
        except ValueError:
            continue
    return lines


def describe_command(arguments: Sequence[str] | None = None) -> str:
    """The command line as it could be given again, without places of tokens and without names in addresses."""
    words = ["unmask"]
    hide = False
    for word in sys.argv[1:] if arguments is None else arguments:
        option, equals, value = word.partition("=")
        if hide or (equals and option in _HIDDEN):
            words.append(f"{option}=..." if equals and not hide else "...")
        else:
            words.append(f"{option}={_without_user(value)}" if equals else _without_user(word))
        hide = not equals and word in _HIDDEN
    return shlex.join(words)


def _without_user(word: str) -> str:
    """An address without user name and password; any other word as it is."""
    if "://" not in word:
        return word
    parts = urlsplit(word)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
