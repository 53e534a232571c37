"""What an attached Neovim shows: the grid of cells that its ``ext_linegrid`` events describe, frame by frame."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One cell. The right half of a wide character has an empty text."""

    text: str = " "
    highlight: int = 0


@dataclass(frozen=True)
class Frame:
    """The screen between two updates: what a user sees."""

    time_s: float
    lines: tuple[str, ...]

    def has(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@dataclass
class Screen:
    """Takes redraw events; every ``flush`` ends a frame."""

    rows: list[list[Cell]] = field(default_factory=list)
    highlights: dict[int, dict[str, Any]] = field(default_factory=dict)
    default_colours: tuple[int, int] = (0xFFFFFF, 0x000000)
    cursor: tuple[int, int] = (0, 0)
    frames: list[Frame] = field(default_factory=list)

    def handle(self, events: list[list[Any]]) -> None:
        """A batch of redraw events, each with one or more argument lists."""
        for name, *calls in events:
            method = getattr(self, f"_on_{name}", None)
            if method is not None:
                for arguments in calls:
                    method(*arguments)

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple("".join(cell.text for cell in row).rstrip() for row in self.rows)

    @property
    def text(self) -> str:
        """The lines that hold something, for messages."""
        return "\n".join(line for line in self.lines if line not in {"", "~"})

    def _on_grid_resize(self, _grid: int, width: int, height: int) -> None:
        old = self.rows
        self.rows = [[Cell() for _ in range(width)] for _ in range(height)]
        for row, cells in zip(self.rows, old, strict=False):
            row[: len(cells)] = cells[:width]

    def _on_grid_clear(self, _grid: int) -> None:
        self.rows = [[Cell() for _ in row] for row in self.rows]

    def _on_grid_cursor_goto(self, _grid: int, row: int, column: int) -> None:
        self.cursor = (row, column)

    def _on_grid_line(self, _grid: int, row: int, column: int, cells: list[list[Any]], *_: Any) -> None:
        highlight = 0
        for text, *more in cells:
            if more:
                highlight = more[0]
            for _ in range(more[1] if len(more) > 1 else 1):
                self.rows[row][column] = Cell(text, highlight)
                column += 1

    def _on_grid_scroll(self, _grid: int, top: int, bottom: int, left: int, right: int, by: int, _cols: int) -> None:
        order = range(top, bottom - by) if by > 0 else range(bottom - 1, top - by - 1, -1)
        for row in order:
            self.rows[row][left:right] = self.rows[row + by][left:right]

    def _on_hl_attr_define(self, number: int, rgb: dict[str, Any], *_: Any) -> None:
        self.highlights[number] = rgb

    def _on_default_colors_set(self, foreground: int, background: int, *_: Any) -> None:
        self.default_colours = (foreground, background)

    def _on_flush(self) -> None:
        self.frames.append(Frame(time.monotonic(), self.lines))
