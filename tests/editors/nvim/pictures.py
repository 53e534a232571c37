"""Draws what an attached Neovim shows, with the default models: ``python tests/editors/nvim/pictures.py [FOLDER]``.

Writes ``ghost-text.png``, ``edit-preview.png`` and ``edit-hunks.png``; needs the ``dev`` extra and both default models.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from helpers.neovim import Neovim  # noqa: E402
from helpers.neovim_real import open_real  # noqa: E402
from helpers.neovim_screen import Screen  # noqa: E402
from helpers.neovim_unmask import edit_state, open_file, wait_for_ghost, wait_until_ready  # noqa: E402

SIZE, WIDTH, HEIGHT, MARGIN = 20, 12, 27, 14
LOOK = """
vim.o.termguicolors = true
vim.o.laststatus = 0
vim.o.ruler = false
vim.o.showmode = false
vim.o.number = true
vim.o.fillchars = 'eob: '
"""

BANK = '''class Account:
    """A bank account that is never overdrawn."""

    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.balance += amount

    def withdraw(self, amount):
'''

STATS = """import csv


def read_prices(path):
    prices = []
    with open(path) as file:
        for row in csv.reader(file):
            prices.append(float(row[1]))
    return prices


def average(values):
    return sum(values) / len(values)
"""


def picture(screen: Screen, path: Path, *, inserting: bool = False) -> None:
    """The screen as a PNG of few colours."""
    fonts = Path(get_data_path()) / "fonts" / "ttf"
    plain = ImageFont.truetype(str(fonts / "DejaVuSansMono.ttf"), SIZE)
    bold = ImageFont.truetype(str(fonts / "DejaVuSansMono-Bold.ttf"), SIZE)
    foreground, background = screen.default_colours
    size = (len(screen.rows[0]) * WIDTH + 2 * MARGIN, len(screen.rows) * HEIGHT + 2 * MARGIN)
    image = Image.new("RGB", size, f"#{background:06x}")
    draw = ImageDraw.Draw(image)
    for row, cells in enumerate(screen.rows):
        for column, cell in enumerate(cells):
            look = screen.highlights.get(cell.highlight, {})
            front, back = look.get("foreground", foreground), look.get("background", background)
            if look.get("reverse"):
                front, back = back, front
            if (row, column) == screen.cursor and not inserting:
                front, back = background, foreground
            x, y = MARGIN + column * WIDTH, MARGIN + row * HEIGHT
            draw.rectangle((x, y, x + WIDTH - 1, y + HEIGHT - 1), fill=f"#{back:06x}")
            draw.text((x, y + 1), cell.text, f"#{front:06x}", font=bold if look.get("bold") else plain)
    if inserting:  # the cursor is a bar between two cells
        x, y = MARGIN + screen.cursor[1] * WIDTH, MARGIN + screen.cursor[0] * HEIGHT
        draw.rectangle((x - 1, y, x + 1, y + HEIGHT - 1), fill=f"#{foreground:06x}")
    image.quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)


def settled(nvim: Neovim) -> None:
    """Until the screen no longer changes."""
    nvim.wait_for(lambda: nvim.lua("return vim.fn.getchar(1)") == 0)
    nvim.command("redraw")
    nvim.lua("vim.wait(200)")


def draw_all(folder: Path, scratch: Path) -> None:
    """Type, wait for what the models say, and draw it."""
    with open_real(scratch / "home", LOOK, width=100, height=20) as nvim:
        open_file(nvim, scratch / "account.py", BANK)
        nvim.keys("Go")
        wait_until_ready(nvim, 120)
        nvim.keys("<C-u>")
        nvim.type("        if ")
        wait_for_ghost(nvim)
        settled(nvim)
        picture(nvim.screen, folder / "ghost-text.png", inserting=True)
        nvim.keys("<C-]><Esc>")
        nvim.command("silent write")

        open_file(nvim, scratch / "prices.py", STATS)
        nvim.command("4,13Unmask edit add type hints and skip rows whose price is not a number")
        nvim.wait_for(lambda: nvim.lua(
            "local s = require('unmask.edit').of(vim.api.nvim_get_current_buf());"
            "return s and s.preview and #s.preview.settled > 150"), timeout_s=120)  # fmt: skip
        picture(nvim.screen, folder / "edit-preview.png")
        nvim.wait_for(lambda: edit_state(nvim) == "deciding", timeout_s=120)
        settled(nvim)
        picture(nvim.screen, folder / "edit-hunks.png")
        nvim.keys("ghR")


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "editors" / "nvim" / "images"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch_folder:
        draw_all(target, Path(scratch_folder))
