"""What forwards cost on this machine, remembered between starts of the engine.

One small JSON file in the user's state folder. It is a cache: measured anew when torch, the processor or the number
of its cores is another, and taken as empty when it is damaged. It holds names of models and times, nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusion_core.engine.device import usable_cores
from diffusion_core.sampling.cost_table import CostTable

logger = logging.getLogger(__name__)

_FORMAT = 1
_MAX_ENTRIES = 32
_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Remembered:
    """The costs of one model, and with how many threads they were measured."""

    table: CostTable
    num_threads: int


class CostFile:
    """The file at ``path``. Problems with it are logged and cost a measurement, never an answer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, key: str) -> Remembered | None:
        """What was measured for ``key`` on this machine; None if nothing was."""
        entry = self._read_entries().get(key)
        try:
            if not isinstance(entry, dict) or type(entry["threads"]) is not int or entry["threads"] < 1:
                return None
            return Remembered(CostTable.from_plain(entry["table"]), entry["threads"])
        except (KeyError, ValueError, TypeError, OverflowError):  # an integer may be too large for a float
            return None

    def write(self, key: str, remembered: Remembered) -> None:
        """Remember, all at once; what another engine has written meanwhile is kept."""
        entries = self._read_entries()
        entries.pop(key, None)
        entries[key] = {"threads": remembered.num_threads, "table": remembered.table.as_plain()}
        entries = dict(list(entries.items())[-_MAX_ENTRIES:])
        content = {"format": _FORMAT, "machine": describe_machine(), "models": entries}
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
            temporary.replace(self._path)
        except OSError as error:
            logger.warning("the costs of forwards cannot be remembered in %s: %s", self._path, error.strerror)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _read_entries(self) -> dict[str, Any]:
        try:
            if self._path.stat().st_size > _MAX_BYTES:
                return {}
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}  # damaged is as good as none: the next measurement replaces it
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            return {}
        entries = content.get("models")
        return entries if content.get("machine") == describe_machine() and isinstance(entries, dict) else {}


def describe_machine() -> str:
    """What the costs of a forward depend on besides the model: they are void when it changes."""
    return (
        f"torch {torch.__version__}, {_processor()}, {torch.backends.cpu.get_cpu_capability()}, {usable_cores()} cores"
    )


def _processor() -> str:
    """The processor's name, where the system tells it."""
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(("model name", "Hardware", "CPU part")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
