"""Recipes of corpora: functions that return a :class:`BuildConfig`, and how single fields of one are changed."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar

from diffusion_core.errors import ConfigError
from train.data.build import BuildConfig


def python_small() -> BuildConfig:
    """A few million tokens of Python in minutes: documents, holes and synthetic edits."""
    return BuildConfig(name="python_small", manifests=("python",), languages=("python",), max_source_bytes=350_000)


def python() -> BuildConfig:
    """Python libraries, the standard library, and edits from the history of well-known projects."""
    manifests = ("python", "python_stdlib", "python_history")
    return BuildConfig(name="python", manifests=manifests, languages=("python",), max_source_bytes=3_000_000)


def polyglot() -> BuildConfig:
    """The Python corpus and projects in JavaScript, TypeScript, Go, Rust, Java, C and C++."""
    manifests = ("python", "python_stdlib", "python_history", "languages")
    return BuildConfig(name="polyglot", manifests=manifests, max_source_bytes=3_000_000)


def edits() -> BuildConfig:
    """Mostly edits: commits of many projects and four synthetic edits a file, with infilling beside them."""
    return BuildConfig(
        name="edits", manifests=("python", "python_history", "languages"), max_source_bytes=1_000_000,
        synthetic_per_file=4, max_commits=4000,
    )  # fmt: skip


CORPUS_RECIPES: tuple[Callable[[], BuildConfig], ...] = (python_small, python, polyglot, edits)


def find_recipe(name: str) -> BuildConfig:
    """The recipe of that name.

    Raises:
        ConfigError: there is none; names the nearest and how a manifest is given instead.
    """
    known = {recipe.__name__: recipe for recipe in CORPUS_RECIPES}
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"corpus recipe {name!r} is unknown; did you mean {near!r}? Known are {', '.join(known)}; a manifest is "
            "named by its path, which ends in .toml"
        )
    return known[name]()


def change_fields(config: BuildConfig, settings: Sequence[str]) -> BuildConfig:
    """The configuration with ``field=value`` applied in order; ``infill.max_prefix=2000`` reaches inside.

    Raises:
        ConfigError: no ``=``, an unknown field (the nearest is named), or a value of another type.
    """
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set {setting}: FIELD=VALUE expected, for instance max_source_bytes=500000")
        config = _change(config, path.strip().split("."), text.strip(), path.strip())
    return config


C = TypeVar("C")


def _change(record: C, parts: Sequence[str], text: str, path: str) -> C:
    assert is_dataclass(record) and not isinstance(record, type)
    names = [field.name for field in dataclasses.fields(record)]
    if parts[0] not in names:
        near = difflib.get_close_matches(parts[0], names, n=1, cutoff=0.0)[0]
        raise ConfigError(f"--set {path}: field {parts[0]!r} is unknown; did you mean {near!r}?")
    current: Any = getattr(record, parts[0])
    if is_dataclass(current) and parts[1:]:
        return replace(record, **{parts[0]: _change(current, parts[1:], text, path)})
    if is_dataclass(current) or isinstance(current, dict) or parts[1:]:
        raise ConfigError(f"--set {path}: this is not a single value")
    return replace(record, **{parts[0]: _read(current, text, path)})


def _read(current: Any, text: str, path: str) -> Any:
    if isinstance(current, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(current, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"--set {path}: true or false expected, not {text!r}")
        return text.lower() == "true"
    try:
        return type(current)(text)
    except ValueError:
        raise ConfigError(f"--set {path}: {text!r} is no {type(current).__name__}") from None
