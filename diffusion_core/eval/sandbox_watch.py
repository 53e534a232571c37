"""What a sandbox uses right now, from ``/proc``: processes and resident memory.

Kernel limits alone are not enough: the limit on processes is not enforced for the superuser, and the limit on
memory is per process. Where there is no ``/proc`` nothing is measured and the wall clock remains.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """Processes, and their resident memory (shared pages count once for each)."""

    num_processes: int
    memory_bytes: int


def measure_session(leader: int) -> Usage:
    """What the session of process ``leader`` uses, and everything in the process namespace of its children."""
    namespace = _read_link(PROC / str(leader) / "ns" / "pid_for_children")
    outside = _read_link(PROC / "self" / "ns" / "pid")
    if namespace == outside:
        namespace = ""
    num_processes, pages = 0, 0
    try:
        names = [entry.name for entry in os.scandir(PROC) if entry.name.isdigit()]
    except OSError:
        return Usage(0, 0)
    for name in names:
        folder = PROC / name
        try:
            # "pid (any name) state parent group session ...": the name may hold blanks and parentheses.
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            member = int(fields[3]) == leader or (namespace and _read_link(folder / "ns" / "pid") == namespace)
            if member:
                num_processes += 1
                pages += int((folder / "statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
    return Usage(num_processes, pages * os.sysconf("SC_PAGE_SIZE"))


def _read_link(path: Path) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115 - the target is a name like "pid:[4026531836]", not a path
    except OSError:
        return ""
