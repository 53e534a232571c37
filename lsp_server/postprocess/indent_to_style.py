"""An answer's indentation becomes the document's: tabs or spaces, and as wide."""

from __future__ import annotations

from dataclasses import replace
from math import gcd

from lsp_server.postprocess.indent_style import MAX_WIDTH, opens_block, white_space
from lsp_server.postprocess.proposal import Place, Proposal

DEFAULT_WIDTH = 4


def indent_to_style(proposal: Proposal, place: Place) -> Proposal:
    """Rewrite the leading white space of all lines but the first, where it is of another style than the document's."""
    lines = proposal.text.split("\n")
    if len(lines) == 1 and not place.head.strip():
        return replace(proposal, text=_first_line(lines[0], place))
    if place.indent_style.by_tabs:
        rest = [_to_tabs(line, _own_width(lines, place)) for line in lines[1:]]
    elif any("\t" in white_space(line) for line in lines[1:]):
        width = place.indent_style.width  # unknown: a new file of Go has tabs to come
        rest = [_to_spaces(line, width) if width else line for line in lines[1:]]
    else:
        rest = _rescale(lines, place)
    first = lines[0] if place.head.strip() else _first_line(lines[0], place)
    return replace(proposal, text="\n".join([first, *rest]))


def _first_line(line: str, place: Place) -> str:
    """The indentation that an answer begins with, on a line that has nothing else yet."""
    space = white_space(line)
    if place.indent_style.by_tabs and " " in space:
        return _to_tabs(line, _own_width([line], place))
    if not place.indent_style.by_tabs and "\t" in space and place.indent_style.width:
        return _to_spaces(line, place.indent_style.width)
    return line


def _to_spaces(line: str, width: int) -> str:
    return white_space(line).replace("\t", " " * width) + line.lstrip(" \t")


def _to_tabs(line: str, width: int) -> str:
    """Whole steps of spaces become tabs; what is left over aligns something and stays."""
    space = white_space(line)
    if " " not in space:
        return line
    columns = sum(width if character == "\t" else 1 for character in space)
    return "\t" * (columns // width) + " " * (columns % width) + line.lstrip(" \t")


def _own_width(lines: list[str], place: Place) -> int:
    """How many spaces an answer uses for what is one tab in the document.

    Its second line shows it: it is as deep as the line of the cursor, or one step deeper behind an opening line.
    """
    first = place.head + lines[0]
    num_steps = white_space(first).count("\t") + opens_block(first)
    indented = [len(white_space(line)) for line in lines[1:] if line.strip() and not white_space(line).count("\t")]
    if indented and num_steps and indented[0] % num_steps == 0 and 1 < indented[0] // num_steps <= MAX_WIDTH:
        return indented[0] // num_steps
    common = gcd(*indented)
    return common if 1 < common <= MAX_WIDTH else DEFAULT_WIDTH


def _rescale(lines: list[str], place: Place) -> list[str]:
    """Steps of another width become the document's; anything that is not whole steps is left as it is."""
    base = len(white_space(place.head if place.head.strip() else place.head + lines[0]))
    own, wanted = _step_after_openers(lines, place, base), place.indent_style.width
    depths = [len(white_space(line)) - base for line in lines[1:] if line.strip()]
    if not own or not wanted or own == wanted or any(depth % own for depth in depths):
        return lines[1:]

    def fit(line: str) -> str:
        if not line.strip():
            return line
        columns = max(0, base + (len(white_space(line)) - base) // own * wanted)
        return " " * columns + line.lstrip(" ")

    return [fit(line) for line in lines[1:]]


def _step_after_openers(lines: list[str], place: Place, base: int) -> int:
    """The one step that every deeper line behind an opening line makes; 0 if there is none or they differ."""
    steps = set()
    before, depth = place.head + lines[0], base
    for line in lines[1:]:
        if not line.strip():
            continue
        here = len(white_space(line))
        if opens_block(before) and here > depth:
            steps.add(here - depth)
        before, depth = line, here
    return steps.pop() if len(steps) == 1 else 0
