"""Huge pages for what a model takes, made of ordinary ones while nobody waits.

A forward reads all weights, and in pages of 4 KiB much of its time goes into finding them: huge pages make it a fifth
to a quarter shorter. Most systems give them only to who asks. To ask beforehand is malloc's affair and would need a
variable in the environment before the process starts; to join pages afterwards (Linux 6.1) needs nothing.
"""

from __future__ import annotations

import ctypes
import errno
import sys
from collections.abc import Iterator
from pathlib import Path

LARGE_BYTES = 50e6  # smaller models stay in the processor's caches

_MADV_COLLAPSE = 25
_SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
_MAPS = Path("/proc/self/maps")
_AT_A_TIME = 4  # huge pages between two looks at who waits: a few milliseconds
_MOST_FAILURES = 64  # one after the other; then there are none left, or the kernel is too old


def huge_page_bytes(settings: Path = _SETTINGS) -> int:
    """The size of a huge page; 0 where the system has none or its administrator wants none."""
    if sys.platform != "linux":
        return 0
    try:
        if "[never]" in (settings / "enabled").read_text(encoding="ascii"):
            return 0
        return int((settings / "hpage_pmd_size").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def join_pages() -> Iterator[None]:
    """Join the pages of this process's own memory to huge ones, some MiB at a time; yields in between.

    Contents do not change, and what cannot be joined stays as it is.
    """
    size = huge_page_bytes()
    if not size:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    num_failed = 0
    for number, address in enumerate(_addresses(size)):
        if number % _AT_A_TIME == _AT_A_TIME - 1:
            yield
        if libc.madvise(address, size, _MADV_COLLAPSE) == 0:
            num_failed = 0
        elif (num_failed := num_failed + 1) == _MOST_FAILURES or ctypes.get_errno() == errno.EPERM:
            return


def _addresses(size: int) -> Iterator[int]:
    """Where a huge page could be: whole ones inside writable private memory that is no file's."""
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        span, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if not permissions.startswith("rw-p") or inode != "0" or (name and name[0] != "[heap]"):
            continue
        first, end = (int(number, 16) for number in span.split("-"))
        yield from range(-(-first // size) * size, end - size + 1, size)
