"""The kinds of kernels, by what a CPU can do, and which of them this one may use."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SWITCH = "UNMASK_KERNELS"  # environment: auto, off, or the name of one kind


@dataclass(frozen=True, slots=True)
class Kind:
    """Kernels for some CPUs: what these have (names of /proc/cpuinfo), and the compiler's flags for it."""

    name: str
    needs: tuple[str, ...]
    flags: tuple[str, ...] = ()


_COMMON = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma")
_BF16 = ("-mavx512bf16",)
# The best first.
KINDS = (
    Kind(
        "amx",
        (*_COMMON, "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
        (*_BF16, "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
    ),
    Kind("avx512_bf16", (*_COMMON, "avx512_bf16"), _BF16),
    Kind("avx512", _COMMON),
)


def usable_kinds() -> tuple[Kind, ...]:
    """The kinds that this CPU has the instructions for and the environment allows."""
    wanted = os.environ.get(SWITCH, "auto").lower()
    if wanted == "off" or why_not_here():
        return ()
    flags = _cpu_flags()
    return tuple(kind for kind in KINDS if wanted in ("auto", kind.name) and flags.issuperset(kind.needs))


def why_not_here() -> str:
    """Why no kernels exist for this system; empty when they do."""
    is_known = sys.platform == "linux" and platform.machine() == "x86_64"
    return "" if is_known else "they are for Linux on x86-64"


@cache
def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
