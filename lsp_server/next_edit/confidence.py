"""How often places of a kind were right, counted over histories of repositories."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

MIN_SEEN = 30  # places of a kind; a rarer kind is judged by a wider one


@dataclass(frozen=True)
class Tally:
    """Places seen, and those where the commit made that very change."""

    num_seen: int
    num_right: int

    @property
    def share(self) -> float:
        """A careful estimate of the share that is right: one more wrong one and one more right one are imagined."""
        return (self.num_right + 1) / (self.num_seen + 2)


@cache
def load_tallies() -> Mapping[str, Tally]:
    """The tallies that come with the package, by the key of a kind (``rename:definition:once:few:near``)."""
    text = resources.files(__package__).joinpath("calibration.json").read_text(encoding="utf-8")
    return {key: Tally(*counts) for key, counts in json.loads(text)["tallies"].items()}


def confidence(key: str, tallies: Mapping[str, Tally] | None = None) -> float:
    """The estimated probability that a place of this kind is right; 0 if nothing is known of its like.

    Features are left out from the right until enough places of the kind were seen.
    """
    known = load_tallies() if tallies is None else tallies
    parts = key.split(":")
    while parts:
        prefix = ":".join(parts)
        seen = [tally for name, tally in known.items() if name == prefix or name.startswith(prefix + ":")]
        total = Tally(sum(one.num_seen for one in seen), sum(one.num_right for one in seen))
        if total.num_seen >= MIN_SEEN:
            return total.share
        parts.pop()
    return 0.0
