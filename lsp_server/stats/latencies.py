"""Latencies in buckets that grow by a twentieth, so that years of them take little room.

A percentile out of buckets is exact within 2.5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

GROWTH = 1.05
SHORTEST_MS = 0.01
PERCENTILES = (50, 95)
# roundtrip is what the language server waits for the engine: queue, prefill, denoise, and the way there and back.
PHASES = ("debounce", "queue", "prefill", "denoise", "roundtrip", "postprocess")


def bucket_of(milliseconds: float) -> int:
    """The number of the bucket that a duration falls into."""
    return round(math.log(max(milliseconds, SHORTEST_MS)) / math.log(GROWTH))


def duration_of(bucket: int) -> float:
    """The duration in the middle of a bucket, in milliseconds."""
    return float(GROWTH**bucket)


def percentile(counts: Mapping[int, int], percent: int) -> float:
    """The duration that ``percent`` of all do not exceed, in milliseconds; 0 if there are none."""
    total, seen = sum(counts.values()), 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen * 100 >= total * percent:
            return duration_of(bucket)
    return 0.0
