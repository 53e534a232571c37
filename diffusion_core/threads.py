"""How torch's threads wait for each other. Read once, when torch loads its thread pool: call it before."""

from __future__ import annotations

import os

# A forward has over a hundred parallel pieces with some 0.2 ms between them. Threads that sleep in between cost a fifth
# of its time in being woken; threads that spin without a limit make it ten times slower as soon as a build or a second
# engine wants the same cores. This is about half a millisecond: awake within a forward, asleep when it is over.
SPIN_COUNT = 10_000


def bound_spinning() -> None:
    """Let threads spin for a moment before they sleep, unless the environment says how they wait."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
