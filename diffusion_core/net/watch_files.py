"""Noticing that files have changed, by looking now and then: that works on every file system, also on mounted ones."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

# Of each file: where it really is, and what changes with its contents.
State = tuple[tuple[str, int, int, int], ...]


def look(paths: Iterable[Path]) -> State:
    """What is there of ``paths`` now; links are followed, so one that points elsewhere counts as a change."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((str(path.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


async def watch(
    state: Callable[[], State], on_change: Callable[[], Awaitable[object]], *, poll_s: float, settle_s: float
) -> None:
    """Call ``on_change`` whenever ``state`` has changed and then stayed the same for ``settle_s`` seconds."""
    known = await asyncio.to_thread(state)
    while True:
        await asyncio.sleep(poll_s)
        seen = await asyncio.to_thread(state)
        if seen == known:
            continue
        since = time.monotonic()
        while time.monotonic() - since < settle_s:
            await asyncio.sleep(min(poll_s, settle_s))
            again = await asyncio.to_thread(state)
            if again != seen:
                seen, since = again, time.monotonic()
        if seen != known:
            known = seen
            await on_change()
