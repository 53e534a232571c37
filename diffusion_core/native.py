"""How the libraries below torch behave in an engine's process. They read it once, when they load: call it before."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NoReturn, TypeVar

_T = TypeVar("_T")

LOADING_PREFIXES = ("load ", "reload ")  # of the names of threads that load a model

# A forward has over a hundred parallel pieces with some 0.2 ms between them. Threads that sleep in between cost a fifth
# of its time in being woken; threads that spin without a limit make it ten times slower as soon as a build or a second
# engine wants the same cores. This is about half a millisecond: awake within a forward, asleep when it is over.
SPIN_COUNT = 10_000

# oneDNN keeps what it has made for a shape, some 200 KB each, 1,024 of them by default. Making one anew takes less than
# half a millisecond, and a model has six or seven shapes for each number of rows.
KEPT_PRIMITIVES = 256


def prepare_libraries() -> None:
    """Let threads spin for a moment before they sleep, and oneDNN keep less, unless the environment says otherwise."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_PRIMITIVES))


def compute_apart(function: Callable[[], _T]) -> _T:
    """What ``function`` returns, computed in a thread that ends.

    Every thread that computes has a team of threads of its own for as long as it lives, and as soon as there are more
    of them than cores, OpenMP lets all sleep at once instead of spinning: the engine's forwards, of a hundred short
    pieces each, then take up to twice as long. A probe must not leave that behind in whoever asks first.
    """
    with ThreadPoolExecutor(1, "probe") as beside:
        return beside.submit(function).result()


def leave(status: int) -> NoReturn:
    """End this process with ``status``, when all that is to be put away has been.

    The interpreter stops the threads that it leaves behind, and one that is loading a model, deep inside torch, takes
    the process with it: aborted, whatever the status. Then the process ends without the interpreter's farewell.
    """
    if any(thread.name.startswith(LOADING_PREFIXES) for thread in threading.enumerate()):
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # nobody reads it any more, or there is none
                stream.flush()
        os._exit(status)
    sys.exit(status)
