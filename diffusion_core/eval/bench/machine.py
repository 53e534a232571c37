"""Facts about the machine that a measurement was made on: without them its figures say little."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffusion_core.config import GIB
from diffusion_core.version import package_version


def describe_machine() -> dict[str, Any]:
    """Processor, memory, versions and load as JSON fields; what the system does not tell is None.

    ``load_average`` is that of the last minute: well above 0 before a measurement begins, others are at work.
    """
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": _version("torch"),
        "unmask": package_version(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def describe_torch(device: str) -> dict[str, Any]:
    """Threads, vector instructions and GPU of this process's torch. Imports torch."""
    import torch

    chosen = torch.device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else ""
    return {"threads": torch.get_num_threads(), "instructions": torch.backends.cpu.get_cpu_capability(), "gpu": name}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
