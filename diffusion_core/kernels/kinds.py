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


_AVX2 = ("avx2", "fma")
_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "fma")
_AVX512_FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma")
_BF16_FLAGS = (*_AVX512_FLAGS, "-mavx512bf16")
# The best first.
KINDS = (
    Kind(
        "amx",
        (*_AVX512, "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
        (*_BF16_FLAGS, "-mamx-tile", "-mamx-int8", "-mamx-bf16"),
    ),
    Kind("avx512_bf16", (*_AVX512, "avx512_bf16"), _BF16_FLAGS),
    Kind("avx512", _AVX512, _AVX512_FLAGS),
    Kind("avx_vnni", (*_AVX2, "avx_vnni"), ("-mavx2", "-mfma", "-mavxvnni")),
    Kind("avx2", _AVX2, ("-mavx2", "-mfma")),
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
