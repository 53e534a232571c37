"""Tables of costs as devices have them, and as no device has them."""

from __future__ import annotations

import random

from diffusion_core.sampling.cost_table import CostTable

ROWS = (1, 2, 4, 8, 16, 32, 64, 96)


def linear_table(fixed_ms: float, row_ms: float, *, slot_ms: float = 0.0, head_ms: float = 0.0) -> CostTable:
    """A forward of n rows takes ``fixed_ms + n * row_ms``, a slot ``slot_ms`` more, the head ``head_ms`` a call."""
    return CostTable(
        body=tuple((n, fixed_ms + n * row_ms) for n in ROWS),
        head=tuple((n, head_ms + 0.01 * n * row_ms) for n in ROWS),
        slots=tuple((n, n * slot_ms) for n in ROWS),
        drafter=tuple((n, 0.05 * fixed_ms + n * row_ms) for n in (4, 8, 16)),
    )


FLAT = linear_table(4.0, 0.0, head_ms=0.2)  # a GPU: the weights are read once, whatever the rows
SLOW = linear_table(0.5, 40.0, slot_ms=10.0)  # a CPU without matrix instructions: every row costs as much as the first
# The 0.5B on two cores with AMX, and on two without AVX-512 (EXPERIMENTS.md).
AMX = CostTable(
    body=((2, 31), (4, 32), (8, 33), (16, 38), (32, 58), (64, 95), (96, 130)),
    head=((2, 11), (16, 12), (64, 25)), slots=((4, 8), (16, 10), (64, 14)), key_ms=0.0005, num_keys=256,
)  # fmt: skip
AVX2 = CostTable(
    body=((2, 108), (4, 153), (8, 187), (16, 245), (32, 360), (64, 600)),
    head=((2, 25), (8, 37), (16, 54), (32, 91)), slots=((4, 12), (16, 30), (64, 100)), key_ms=0.002, num_keys=256,
)  # fmt: skip


def random_table(draw: random.Random) -> CostTable:
    """Costs without any sense: falling, jumping, free and unbounded ones among them."""

    def curve() -> tuple[tuple[int, float], ...]:
        rows = sorted(draw.sample(range(1, 128), draw.randrange(1, 8)))
        return tuple((n, draw.choice([0.0, draw.random(), draw.random() * 1000, 1e9])) for n in rows)

    return CostTable(
        body=curve(), head=curve(), slots=curve(), drafter=curve(),
        key_ms=draw.choice([0.0, 0.01, 10.0]), num_keys=draw.randrange(500),
    )  # fmt: skip
