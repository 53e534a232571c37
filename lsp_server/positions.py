"""Columns of one line in the three position encodings of LSP.

Inside the server a column counts code points, as Python strings do; an editor counts UTF-8 bytes, UTF-16 units or
code points. ``line`` is the content of a line without its terminator in every function here.
"""

from __future__ import annotations

import re
from enum import StrEnum

_SPLIT_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Encoding(StrEnum):
    """What an editor counts; the values are those of ``PositionEncodingKind``."""

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF32 = "utf-32"


def cut(line: str, character: int, encoding: Encoding) -> tuple[str, str]:
    """Both sides of ``character``; past the end means the end.

    A UTF-16 position between the halves of a pair cuts there, and each side keeps a lone surrogate, as the editor's
    own buffer does. A UTF-8 position inside a character is moved to its start.
    """
    if line.isascii() or encoding is Encoding.UTF32:
        return line[:character], line[character:]
    if encoding is Encoding.UTF16:
        units = line.encode("utf-16-le", "surrogatepass")
        at = 2 * character
        return units[:at].decode("utf-16-le", "surrogatepass"), units[at:].decode("utf-16-le", "surrogatepass")
    column = column_at(line, character, encoding)
    return line[:column], line[column:]


def column_at(line: str, character: int, encoding: Encoding) -> int:
    """The column of an editor's ``character``: clamped to the line, and to the start of the character it is in."""
    if line.isascii() or encoding is Encoding.UTF32:
        return min(character, len(line))
    head = line[:character]  # a character is at least one unit long, so the rest cannot matter
    if encoding is Encoding.UTF16:
        units = head.encode("utf-16-le", "surrogatepass")
        column = len(units[: 2 * character].decode("utf-16-le", "surrogatepass"))
        return column - 1 if len(line[:column].encode("utf-16-le", "surrogatepass")) > 2 * character else column
    units = head.encode("utf-8", "surrogatepass")
    end = min(character, len(units))
    while end < len(units) and units[end] & 0xC0 == 0x80:
        end -= 1
    return len(units[:end].decode("utf-8", "surrogatepass"))


def character_at(line: str, column: int, encoding: Encoding) -> int:
    """What the editor calls ``column``; past the end means the end."""
    head = line[:column]
    if head.isascii() or encoding is Encoding.UTF32:
        return len(head)
    if encoding is Encoding.UTF16:
        return len(head.encode("utf-16-le", "surrogatepass")) // 2
    return len(head.encode("utf-8", "surrogatepass"))


def join_surrogates(text: str) -> str:
    """Halves of a pair that stand side by side become the one character they are."""
    if text.isascii() or not _SPLIT_PAIR.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def without_lone_surrogates(text: str) -> str:
    """Valid Unicode for the wire: half a pair (an editor may send one) becomes U+FFFD."""
    if text.isascii() or not _LONE_SURROGATE.search(text):
        return text
    return _LONE_SURROGATE.sub("\ufffd", text)
