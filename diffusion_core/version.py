"""The version of this installation."""

from __future__ import annotations

from importlib import metadata


def package_version() -> str:
    """Version of the installed distribution; ``0+source`` when run from a source tree that is not installed."""
    try:
        return metadata.version("unmask")
    except metadata.PackageNotFoundError:
        return "0+source"
