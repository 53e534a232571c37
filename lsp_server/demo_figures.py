"""What the engine did for a suggestion. LSP has no place for it, so it is read from the language server's log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(
    r"request \S+: (?P<tokens>\d+) tokens, (?P<forwards>\d+) forwards, "
    r"(?P<reused>\d+) of (?P<prompt>\d+) prompt tokens reused, \d+ ms, \w+$",
    re.MULTILINE,
)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One request's tokens and forwards (the NFE)."""

    num_tokens: int
    num_forwards: int
    num_prompt_tokens: int
    num_reused_tokens: int

    @property
    def tokens_per_forward(self) -> float:
        """Committed tokens per model call; 0 without a call."""
        return self.num_tokens / self.num_forwards if self.num_forwards else 0.0


def read_figures(log: Path) -> list[Figures]:
    """The figures of all requests that the engine has answered, in the order of the answers."""
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    return [
        Figures(
            num_tokens=int(found["tokens"]),
            num_forwards=int(found["forwards"]),
            num_prompt_tokens=int(found["prompt"]),
            num_reused_tokens=int(found["reused"]),
        )
        for found in _LINE.finditer(text)
    ]
