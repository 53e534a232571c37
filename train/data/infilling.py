"""Infilling examples: holes that look like those at a cursor, cut into the files of a source.

Five kinds of holes (rest of a line, several lines, a random span, a syntax node, all up to the end of the file)
and the whole file as a document. Everything is drawn from one generator, so a file gives the same holes again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from train.data.examples import ExampleKind, InfillExample, Origin
from train.data.source_files import SourceFile
from train.data.syntax_nodes import NodeKind, NodeRange, find_nodes

_DEFAULT_RATES: Mapping[ExampleKind, float] = {
    ExampleKind.INFILL_LINE: 1.0,
    ExampleKind.INFILL_LINES: 1.0,
    ExampleKind.INFILL_SPAN: 1.0,
    ExampleKind.INFILL_NODE: 1.0,
    ExampleKind.INFILL_END: 0.3,
}


@dataclass(frozen=True, kw_only=True)
class InfillConfig:
    """How many holes a file gets, and how large they and their surroundings are. Sizes in characters.

    ``rates`` are holes for every ``characters_per_hole`` of a file, for each kind; ``max_per_file`` bounds each kind.
    Prefix and suffix are cut to windows drawn up to ``max_prefix`` and ``max_suffix``, at line starts.
    """

    rates: Mapping[ExampleKind, float] = field(default_factory=lambda: dict(_DEFAULT_RATES))
    characters_per_hole: int = 3000
    max_per_file: int = 8
    max_prefix: int = 4000
    max_suffix: int = 2000
    max_middle: int = 1500
    max_lines: int = 12
    has_documents: bool = True


Hole = tuple[int, int]


def make_infills(
    file: SourceFile, origin: Origin, config: InfillConfig, generator: random.Random
) -> Iterator[InfillExample]:
    """The examples of one file: the document, then holes of every kind, no hole twice."""
    text = file.text
    if config.has_documents:
        yield InfillExample(kind=ExampleKind.DOCUMENT, prefix="", middle=text, suffix="", path=file.path, origin=origin)
    nodes = find_nodes(text, file.language) if config.rates.get(ExampleKind.INFILL_NODE) else []
    chooser = _HoleChooser(text, nodes, config, generator)
    for kind, rate in config.rates.items():
        wanted = rate * len(text) / config.characters_per_hole
        number = min(config.max_per_file, int(wanted) + (generator.random() < wanted % 1))
        seen: set[Hole] = set()
        for _ in range(number * 3):  # a draw may give no hole, or one that was there
            if len(seen) == number:
                break
            hole = chooser.choose(kind)
            if hole is not None and hole not in seen and text[hole[0] : hole[1]].strip():
                seen.add(hole)
                prefix, suffix = _surroundings(text, hole, config, generator)
                yield InfillExample(
                    kind=kind,
                    prefix=prefix,
                    middle=text[hole[0] : hole[1]],
                    suffix=suffix,
                    path=file.path,
                    origin=origin,
                )


class _HoleChooser:
    """Draws holes of one file."""

    def __init__(self, text: str, nodes: list[NodeRange], config: InfillConfig, generator: random.Random) -> None:
        self._text, self._config, self._generator = text, config, generator
        self._starts = [0, *(place + 1 for place, letter in enumerate(text) if letter == "\n")]
        if self._starts[-1] == len(text):
            self._starts.pop()
        usable = [node for node in nodes if node.end - node.start <= config.max_middle]
        # Each kind of node equally often: expressions outnumber bodies ten to one.
        self._nodes = {kind: [node for node in usable if node.kind is kind] for kind in NodeKind}
        self._choosers: dict[ExampleKind, Callable[[], Hole | None]] = {
            ExampleKind.INFILL_LINE: self._line,
            ExampleKind.INFILL_LINES: self._lines,
            ExampleKind.INFILL_SPAN: self._span,
            ExampleKind.INFILL_NODE: self._node,
            ExampleKind.INFILL_END: self._end,
        }

    def choose(self, kind: ExampleKind) -> Hole | None:
        """A hole as a character range, or None if this draw found none."""
        return self._choosers[kind]()

    def _line_end(self, number: int) -> int:
        """Where line ``number`` ends, before its line feed."""
        if number + 1 < len(self._starts):
            return self._starts[number + 1] - 1
        return len(self._text.rstrip("\n")) if self._text.endswith("\n") else len(self._text)

    def _line(self) -> Hole | None:
        """The rest of a line: from its first letter, its start, or a place inside it."""
        number = self._generator.randrange(len(self._starts))
        start, end = self._starts[number], self._line_end(number)
        line = self._text[start:end]
        if not line.strip():
            return None
        indent = len(line) - len(line.lstrip())
        choice = self._generator.random()
        if choice < 0.4:
            begin = start + indent
        elif choice < 0.6:
            begin = start
        else:
            begin = self._generator.randint(start + indent, end - 1)
        return begin, end

    def _lines(self) -> Hole | None:
        """Whole lines: from the first letter of one (or its start) to the end of another."""
        if len(self._starts) < 3:
            return None
        number = self._generator.randrange(len(self._starts) - 1)
        last = min(number + self._generator.randint(1, self._config.max_lines - 1), len(self._starts) - 1)
        start, end = self._starts[number], self._line_end(last)
        if self._generator.random() < 0.5:
            line = self._text[start : self._line_end(number)]
            start += len(line) - len(line.lstrip())
        return (start, end) if start < end <= start + self._config.max_middle else None

    def _span(self) -> Hole | None:
        """Any characters; short spans are as likely as long ones of twice their length."""
        longest = min(self._config.max_middle, len(self._text) // 2)
        if longest < 4:
            return None
        length = int(2 ** self._generator.uniform(2.0, longest.bit_length() - 1))
        start = self._generator.randrange(len(self._text) - length)
        return start, start + length

    def _node(self) -> Hole | None:
        kinds = [kind for kind in NodeKind if self._nodes[kind]]
        if not kinds:
            return None
        node = self._generator.choice(self._nodes[self._generator.choice(kinds)])
        return node.start, node.end

    def _end(self) -> Hole | None:
        """All that is left of the file, from some line near its end on."""
        near = [
            number
            for number, start in enumerate(self._starts)
            if number > 0 and len(self._text) - start <= self._config.max_middle
        ]
        return (self._starts[self._generator.choice(near)], len(self._text)) if near else None


def _surroundings(text: str, hole: Hole, config: InfillConfig, generator: random.Random) -> tuple[str, str]:
    # Half of the windows are full, so that short contexts are seen without wasting the long ones.
    share = 1.0 if generator.random() < 0.5 else generator.random()
    prefix = keep_end(text[: hole[0]], int(config.max_prefix * share))
    return prefix, keep_start(text[hole[1] :], int(config.max_suffix * share))


def keep_end(text: str, limit: int) -> str:
    """The end of a text within ``limit`` characters, from a line start on; the line of the cursor stays whole."""
    if len(text) <= limit:
        return text
    last_line = text.rfind("\n") + 1
    found = text.find("\n", len(text) - limit)
    return text[min(last_line, found + 1 if found >= 0 else last_line) :]


def keep_start(text: str, limit: int) -> str:
    """The start of a text within ``limit`` characters, up to a line end; the line of the cursor stays whole."""
    if len(text) <= limit:
        return text
    first_line = text.find("\n") + 1 or len(text)
    return text[: max(first_line, text.rfind("\n", 0, limit) + 1)]
