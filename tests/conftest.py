"""Settings for the whole suite."""

from __future__ import annotations

import os

# Two cores are the smallest machine that the suite runs on; tiny models gain nothing from more threads.
os.environ.setdefault("OMP_NUM_THREADS", "2")
