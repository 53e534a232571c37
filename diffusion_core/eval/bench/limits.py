"""What the memory allows: a forward of few rows cannot be faster than reading the weights once.

The limit is (bytes of weights that a forward reads) / (bytes per second that the memory of the model's device gives).
Keys and values and a drafter's own weights are left out, so the limit is a lower bound. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Bandwidth:
    """Bytes per second, the best of some tries: reading alone, and a copy (bytes read and bytes written together)."""

    read: float
    copy: float

    @property
    def best(self) -> float:
        """What the memory gives, in bytes per second."""
        return max(self.read, self.copy)

    def better(self, other: Bandwidth) -> Bandwidth:
        """The faster of two measurements, kind by kind: other programs only ever slow one down."""
        return Bandwidth(read=max(self.read, other.read), copy=max(self.copy, other.copy))

    def fields(self) -> dict[str, float]:
        """For the result file, in GB/s."""
        return {"read_gb_per_second": round(self.read / 1e9, 3), "copy_gb_per_second": round(self.copy / 1e9, 3)}


def relate_to_limit(ms: float, num_bytes: float, bandwidth: Bandwidth | None) -> dict[str, float | None]:
    """A forward that took ``ms`` beside the limit for ``num_bytes`` of weights; None where that is not known."""
    if bandwidth is None or not num_bytes:
        return {"limit_ms_per_forward": None, "times_limit": None}
    limit_ms = 1000 * num_bytes / bandwidth.best
    return {"limit_ms_per_forward": round(limit_ms, 6), "times_limit": round(ms / limit_ms, 3)}
