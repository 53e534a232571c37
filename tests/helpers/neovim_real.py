"""A Neovim with the plugin, the real language server, and a local engine with the default models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.neovim import ROOT, Neovim, open_neovim
from helpers.neovim_unmask import SERVER

from diffusion_core.config import cache_folder

INIT = "require('unmask').setup({ cmd = vim.split(%r, ' '), settings = { completion = { deadlineMs = 60000 } } })"


@contextmanager
def open_real(folder: Path, init: str = "", **options: Any) -> Iterator[Neovim]:
    """The engine is of its own (a state folder of its own) and is stopped at the end."""
    environment = {
        "UNMASK_STATE_DIR": str(folder / "engine"), "UNMASK_CACHE_DIR": str(cache_folder()), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    setup = INIT % " ".join(SERVER)
    try:
        with open_neovim(folder, f"{setup}\n{init}", environment=environment, **options) as nvim:
            yield nvim
    finally:
        subprocess.run(
            [sys.executable, "-m", "diffusion_core.commands", "stop"],
            env={**os.environ, **environment, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
