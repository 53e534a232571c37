"""A configuration's fields by name: ``--set a.b=c``, JSON and back, and what differs between two. No torch.

Every leaf of the tree is a bool, int, float, string, a tuple of one of these, or a dict of names to numbers.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from diffusion_core.errors import ConfigError
from train.config import TrainConfig

C = TypeVar("C")

TRUE_WORDS, FALSE_WORDS = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def apply_settings(config: TrainConfig, settings: Sequence[str]) -> TrainConfig:
    """``config`` with ``a.b=c`` applied one after the other.

    Raises:
        ConfigError: no ``=``, an unknown field (the nearest is named), a wrong type (which one is named), or a value
            that the field's record refuses.
    """
    changed = config
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator:
            raise ConfigError(f"--set {setting}: FIELD=VALUE expected, for instance optim.learning_rate=3e-4")
        changed = _replace(changed, path.strip().split("."), text.strip(), path.strip(), config)
    return changed


def _replace(record: C, parts: Sequence[str], text: str, path: str, root: TrainConfig) -> C:
    """``record`` with the field at ``parts`` read from ``text``; ``path`` and ``root`` are for the message."""
    assert dataclasses.is_dataclass(record) and not isinstance(record, type)
    kinds = typing.get_type_hints(type(record))
    name, rest = parts[0], parts[1:]
    if name not in kinds:
        raise ConfigError(_describe_unknown(path, root))
    current, kind = getattr(record, name), kinds[name]
    if dataclasses.is_dataclass(current):
        if not rest:
            inner = ", ".join(f"{path}.{field.name}" for field in dataclasses.fields(current))
            raise ConfigError(f"{path} is a group of fields; set one of {inner}")
        value: Any = _replace(current, rest, text, path, root)
    elif isinstance(current, dict):
        number = typing.get_args(kind)[1]
        value = {**current, ".".join(rest): _read(text, number, path)} if rest else _read_dict(text, number, path)
    elif rest:
        raise ConfigError(_describe_unknown(path, root))
    else:
        value = _read(text, kind, path)
    return dataclasses.replace(record, **{name: value})


def _read(text: str, kind: Any, path: str) -> Any:
    """The value of type ``kind`` that ``text`` stands for."""
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return tuple(_read(part.strip(), item, path) for part in text.split(",") if part.strip())
    try:
        if kind is bool:
            word = text.lower()
            if word not in TRUE_WORDS + FALSE_WORDS:
                raise ValueError
            return word in TRUE_WORDS
        value = kind(text)
    except ValueError:
        raise ConfigError(f"{path} is {TYPE_NAMES[kind]}, and {text!r} is not") from None
    if kind is float and not abs(value) < float("inf"):
        raise ConfigError(f"{path} is a finite number, and {text!r} is not")
    return value


def _read_dict(text: str, number: Any, path: str) -> dict[str, Any]:
    values = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = part.partition(":")
        if not separator:
            raise ConfigError(f"{path} is a list of NAME:VALUE, for instance {path}=infill_line:1,edit_commit:2")
        values[name.strip()] = _read(value.strip(), number, path)
    return values


def field_paths(record: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all leaves of a tree of records."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value):
            yield from field_paths(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def _describe_unknown(path: str, root: TrainConfig) -> str:
    """An unknown field's message: the nearest by its whole name, else by its last part alone."""
    known = list(field_paths(root))
    last = path.rsplit(".", maxsplit=1)[-1]
    by_last: dict[str, str] = {}
    for name in known:
        by_last.setdefault(name.rsplit(".", maxsplit=1)[-1], name)
    exact = [by_last[last]] if last in by_last else []
    near = exact or difflib.get_close_matches(path, known, n=1, cutoff=0.6)
    near = near or [by_last[name] for name in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.0)]
    return f"there is no field {path}; the nearest is {near[0]}"


def to_json(config: Any) -> dict[str, Any]:
    """The tree as plain values; tuples become lists."""
    return {
        key: to_json(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for key, value in ((field.name, getattr(config, field.name)) for field in dataclasses.fields(config))
    }


def from_json(kind: type[C], values: Any, path: str = "config") -> C:
    """A record of type ``kind`` from plain values; fields that are absent take their default.

    Raises:
        ConfigError: a field is unknown or has another type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is a group of fields, and {values!r} is not")
    kinds = typing.get_type_hints(kind)
    if unknown := sorted(set(values) - set(kinds)):
        near = difflib.get_close_matches(unknown[0], list(kinds), n=1, cutoff=0.0)[0]
        raise ConfigError(f"there is no field {path}.{unknown[0]}; the nearest is {path}.{near}")
    try:
        return kind(**{key: _from_plain(kinds[key], value, f"{path}.{key}") for key, value in values.items()})
    except TypeError as error:
        raise ConfigError(f"{path}: {error}") from None


def _from_plain(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return from_json(kind, value, path)
    origin = typing.get_origin(kind)
    if origin is tuple and isinstance(value, list):
        return tuple(_from_plain(typing.get_args(kind)[0], item, path) for item in value)
    if origin is dict and isinstance(value, dict):
        number = typing.get_args(kind)[1]
        return {str(key): _from_plain(number, item, f"{path}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return float(value)
    if isinstance(origin or kind, (type, types.GenericAlias)) and type(value) is (origin or kind):
        return value
    raise ConfigError(f"{path} is {TYPE_NAMES.get(kind, str(kind))}, and {value!r} is not")


def _complete(kind: Any, stored: dict[str, Any]) -> dict[str, Any]:
    """Stored values with the defaults of fields that they lack, without fields that ``kind`` does not know."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(default):
            values[field.name] = _complete(type(default), stored.get(field.name, {}))
        elif field.name in stored:
            values[field.name] = stored[field.name]
        elif default is not dataclasses.MISSING:
            values[field.name] = list(default) if isinstance(default, tuple) else default
    return values


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Leaf values by dotted name."""
    leaves: dict[str, Any] = {}
    for key, value in to_json(config).items() if dataclasses.is_dataclass(config) else config.items():
        if isinstance(value, dict) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def list_differences(stored: dict[str, Any], new: Any, ignored: Sequence[str] = ()) -> list[str]:
    """``field: old value -> new value`` of every leaf that differs; names that begin with an ``ignored`` do not count.

    A ``stored`` configuration may be of another version: a field that it lacks counts by its default, one that is no
    more does not count.
    """
    old = _complete(type(new), stored)
    # An empty dict says no more than its absence beside one with entries.
    before, after = ({name: value for name, value in flatten(side).items() if value != {}} for side in (old, new))
    names = sorted(name for name in before.keys() | after.keys() if not name.startswith(tuple(ignored)))
    return [
        f"{name}: {before.get(name, 'absent')!r} -> {after.get(name, 'absent')!r}"
        for name in names
        if before.get(name) != after.get(name)
    ]
