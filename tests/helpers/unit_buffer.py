"""An editor's buffer as a list of code units: the reference for text sync.

It shares nothing with the server: no line list, no string methods, no codecs but one encode of what is inserted. Every
edit scans the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence

CR, LF = 13, 10


def units_of(text: str, encoding: str) -> list[int]:
    """Code units of a text; a lone surrogate is a unit of its own in UTF-16 and UTF-32."""
    match encoding:
        case "utf-8":
            return list(text.encode("utf-8", "surrogatepass"))
        case "utf-32":
            return [ord(character) for character in text]
    units: list[int] = []
    for character in text:
        code = ord(character)
        if code < 0x10000:
            units.append(code)
        else:
            units += [0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF)]
    return units


class UnitBuffer:
    """Positions count units of ``encoding``."""

    def __init__(self, text: str, encoding: str) -> None:
        self.encoding = encoding
        self.units = units_of(text, encoding)

    def text(self) -> str:
        """The text; UTF-16 pairs that stand side by side are one character."""
        match self.encoding:
            case "utf-8":
                return bytes(self.units).decode("utf-8", "surrogatepass")
            case "utf-32":
                return "".join(map(chr, self.units))
        found: list[str] = []
        for unit in self.units:
            if 0xDC00 <= unit < 0xE000 and found and 0xD800 <= ord(found[-1]) < 0xDC00:
                found[-1] = chr(0x10000 + ((ord(found[-1]) - 0xD800) << 10) + (unit - 0xDC00))
            else:
                found.append(chr(unit))
        return "".join(found)

    def line_spans(self) -> list[tuple[int, int]]:
        """Begin and end of each line's content, without its terminator."""
        spans, begin, at = [], 0, 0
        while at < len(self.units):
            if self.units[at] in (CR, LF):
                spans.append((begin, at))
                is_pair = self.units[at] == CR and at + 1 < len(self.units) and self.units[at + 1] == LF
                at += 2 if is_pair else 1
                begin = at
            else:
                at += 1
        return [*spans, (begin, len(self.units))]

    def offset(self, line: int, character: int) -> int:
        """The unit of a position: clamped to its line, and to the start of the UTF-8 character it is in."""
        spans = self.line_spans()
        if line >= len(spans):
            return len(self.units)
        begin, end = spans[line]
        at = min(begin + character, end)
        while self.encoding == "utf-8" and begin < at < end and 0x80 <= self.units[at] < 0xC0:
            at -= 1
        return at

    def replace(self, start: Sequence[int], end: Sequence[int], text: str) -> None:
        """One change; a range may be reversed."""
        first, last = sorted((self.offset(*start), self.offset(*end)))
        self.units[first:last] = units_of(text, self.encoding)
