"""Strings over several lines, as Python, Nim and CoffeeScript write them: which lines of a text begin inside one."""

from __future__ import annotations

import re

_LONG = ('"""', "'''")
# What may hold a quote that opens nothing: other strings (which end with their line) and comments.
_TOKEN = re.compile(r"""\"{3}|'{3}|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|#[^\n]*""", re.DOTALL)
_CLOSING = {quote: re.compile(rf"\\.|{quote}", re.DOTALL) for quote in _LONG}
_DEFINITION = re.compile(r"^(?:async def|def|class) \w", re.MULTILINE)


def scan_strings(text: str, quote: str = "") -> tuple[str, set[int]]:
    """The quotes of the long string that ``text`` ends in ("" for none), and which of its lines begin inside one.

    ``quote`` is that of the string in which ``text`` begins. Whether a line begins inside a string depends only on what
    stands before it.
    """
    inside: set[int] = set()
    if not quote and not any(mark in text for mark in _LONG):
        return "", inside  # most texts: they are asked about at each line
    at = line = 0
    while at < len(text):
        begin, was_open = at, quote
        if quote:
            ends = (found.end() for found in _CLOSING[quote].finditer(text, at) if found[0] == quote)
            end = next(ends, None)
            at, quote = (len(text), quote) if end is None else (end, "")
        else:
            found = _TOKEN.search(text, at)
            if found is None:
                break
            at, quote = found.end(), found[0] if found[0] in _LONG else ""
        passed = text.count("\n", begin, at)
        if was_open:
            inside.update(range(line + 1, line + passed + 1))
        line += passed
    return quote, inside


def open_string(prefix: str) -> str:
    """The quotes of the long string that the last line of ``prefix`` begins in; "" for none.

    A prefix may have been cut inside a string, so that all quotes would be taken the wrong way round: what counts
    begins at the last definition without indentation.
    """
    above = prefix[: prefix.rfind("\n") + 1]
    starts = [found.start() for found in _DEFINITION.finditer(above)]
    return scan_strings(above[starts[-1] if starts else 0 :])[0]
