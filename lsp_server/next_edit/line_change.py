"""What an edit did to a line, in tokens: what was replaced by what, between which neighbours."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_NAME = re.compile(r"[^\W\d]\w*")
MAX_LINES = 6  # an edit of more lines is no pattern for others
MAX_TOKENS = 200
MAX_CHANGED = 24
_DEFINING_BEFORE = frozenset({"def", "class", "function", "fn", "func", "let", "const", "var", "struct", "as", "type"})


def tokens_of(line: str) -> list[str]:
    """Words, runs of white space, and single other characters; joined they are the line."""
    return _TOKEN.findall(line)


def is_name(token: str) -> bool:
    """Whether a token can be the name of something."""
    return _NAME.fullmatch(token) is not None and not keyword.iskeyword(token)


@dataclass(frozen=True)
class Rename:
    """One name became another one wherever it stood in the edit. ``is_definition``: the edit defines it."""

    old: str
    new: str
    is_definition: bool


@dataclass(frozen=True)
class Replacement:
    """``old`` tokens became ``new`` between ``left`` and ``right`` (the nearest tokens, without white space)."""

    left: tuple[str, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    right: tuple[str, ...]
    indent: int


LineChange = Rename | Replacement


def change_between(old: Sequence[str], new: Sequence[str]) -> LineChange | None:
    """The change that turned lines into as many other lines, if it is one that could be made elsewhere too."""
    if len(old) != len(new) or not 0 < len(old) <= MAX_LINES:
        return None
    pairs = [(tokens_of(a), tokens_of(b)) for a, b in zip(old, new, strict=True) if a != b]
    if not pairs or any(len(a) > MAX_TOKENS or len(b) > MAX_TOKENS for a, b in pairs):
        return None
    renames = {found for a, b in pairs for found in _renames(a, b)}
    if len(renames) == 1 and (names := renames.pop()) is not None:
        return Rename(*names, is_definition=any(_defines(a, names[0]) for a, _ in pairs))
    if len(pairs) == 1:
        return _replacement(*pairs[0])
    return None


def _renames(old: list[str], new: list[str]) -> set[tuple[str, str] | None]:
    """Pairs of names that differ; None among them where more than a name differs."""
    if len(old) != len(new):
        return {None}
    return {(a, b) if is_name(a) and is_name(b) else None for a, b in zip(old, new, strict=True) if a != b}


def _defines(tokens: list[str], name: str) -> bool:
    words = [token for token in tokens if not token.isspace()]
    for at, word in enumerate(words):
        if word != name:
            continue
        if at and words[at - 1] in _DEFINING_BEFORE:
            return True
        if at == 0 and words[1:2] in (["="], [":"]) and words[2:3] != ["="]:
            return True
    return words[:1] in (["def"], ["function"], ["fn"], ["func"]) and name in words


def _replacement(old: list[str], new: list[str]) -> Replacement | None:
    opcodes = [code for code in SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if code[0] != "equal"]
    if not opcodes:
        return None
    a1, a2, b1, b2 = opcodes[0][1], opcodes[-1][2], opcodes[0][3], opcodes[-1][4]
    removed, added = tuple(old[a1:a2]), tuple(new[b1:b2])
    if len(removed) + len(added) > MAX_CHANGED or not (removed + added) or "".join(removed + added).isspace():
        return None
    left = tuple(token for token in old[:a1] if not token.isspace())[-2:]
    right = tuple(token for token in old[a2:] if not token.isspace())[:2]
    if not removed and len(left) + len(right) < 2:
        return None  # an insertion with nothing to recognise its place by
    first = old[0] if old else ""
    return Replacement(left, removed, added, right, len(first) if first.isspace() else 0)
