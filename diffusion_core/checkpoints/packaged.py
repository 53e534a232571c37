"""Drafters and tunings that come with the package: a folder for each named model that has one, with its card."""

from __future__ import annotations

from pathlib import Path


def _find(kind: str, marker: str, name: str) -> Path | None:
    folder = Path(__file__).parent / kind / name
    is_plain = name == Path(name).name and not name.startswith(".")
    return folder if is_plain and (folder / marker).is_file() else None


def find_packaged_drafter(name: str) -> Path | None:
    """The folder of the drafter of the model ``name``; None when there is none."""
    return _find("drafters", "drafter.json", name)


def find_packaged_tuning(name: str) -> Path | None:
    """The folder of the tuning of the model ``name``; None when there is none."""
    return _find("tunings", "tuning.json", name)
