"""Tunings that come with the package: a folder for each named model that has one, with its card."""

from __future__ import annotations

from pathlib import Path


def find_packaged_tuning(name: str) -> Path | None:
    """The folder of the tuning of the model ``name``; None when there is none."""
    folder = Path(__file__).parent / name
    is_plain = name == Path(name).name and not name.startswith(".")
    return folder if is_plain and (folder / "tuning.json").is_file() else None
