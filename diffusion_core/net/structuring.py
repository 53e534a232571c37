"""Strict conversion between plain msgpack values and the wire dataclasses.

cattrs converts generously by default (``int("7")``, ``bool("no")``, a text where a list belongs). On a wire that
hides mistakes, so this converter refuses every value that is not exactly of the declared type, every unknown field
and every missing one (fields with a default may be left out). Problems name the field; they never repeat a value,
because values hold the user's code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Any, get_origin, get_type_hints

from cattrs import Converter, ForbiddenExtraKeysError, transform_error
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.msgpack import MsgpackConverter, make_converter

from diffusion_core.errors import InvalidRequest
from diffusion_core.requests import MAX_SNIPPETS, MAX_STOPS

# Names and labels are short on purpose: they reach log lines and status bars. Texts are bounded by the message size.
MAX_CHARACTERS: Mapping[str, int] = MappingProxyType(
    {
        "language": 64,
        "path": 4096,
        "repository": 4096,
        "model": 4096,
        "policy": 64,
        "notice": 4096,
        "code": 64,
        "message": 4096,
        "name": 4096,
        "detail": 4096,
        "source": 64,
        "round_shape": 64,
    }
)
# Told before any item is looked at: a problem for each of thousands would stop the server for a while.
MAX_ITEMS: Mapping[str, int] = MappingProxyType({"snippets": MAX_SNIPPETS, "stop": MAX_STOPS})
# A request id is chosen by the client and written to the server's log: no line breaks, no escapes, no code.
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_KINDS = MappingProxyType({dict: "map", list: "list", str: "text", type(None): "nil", bytes: "binary"})
_MAX_PROBLEMS = 3


class _WrongValue(ValueError):
    """A value does not fit its field; the message holds types and limits only."""


def make_strict_converter() -> MsgpackConverter:
    """The converter for all wire classes."""
    converter = make_converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, _exact)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(StrEnum, _enum_member)  # else the hook for str would take them
    converter.register_structure_hook_factory(_is_tuple, _make_tuple_hook)
    converter.register_structure_hook_factory(is_dataclass, _make_class_hook)
    converter.register_unstructure_hook_factory(_omits_defaults, _make_omitting_hook)
    return converter


def describe_problems(error: Exception, root: str) -> str:
    """What is wrong, for people: at most three problems, each with the path of its field and without its value."""
    problems = [problem.rsplit(" @ ", 1) for problem in transform_error(error, root, _describe)]
    shown = [f"{path}: {text}" for text, path in problems[:_MAX_PROBLEMS]]
    rest = len(problems) - len(shown)
    return "; ".join(shown) + (f"; and {rest} more" if rest else "")


def _describe(error: BaseException, _: type | None = None) -> str:
    if isinstance(error, _WrongValue | InvalidRequest):
        return str(error)
    if isinstance(error, ForbiddenExtraKeysError):
        # A key is the sender's text as well: only what looks like a field name is repeated.
        names = sorted(k for k in error.extra_fields if isinstance(k, str) and _FIELD_NAME.fullmatch(k))
        return f"unknown field {', '.join(names[:_MAX_PROBLEMS])}" if names else "unknown field"
    if isinstance(error, KeyError):
        return "missing field"
    return "invalid value"


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _exact(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise _WrongValue(f"{_KINDS.get(kind, kind.__name__)} expected, {_kind(value)} given")
    return value


def _number(value: Any, _: Any) -> float:
    if type(value) not in (int, float):
        raise _WrongValue(f"number expected, {_kind(value)} given")
    try:
        return float(value)
    except OverflowError:
        raise _WrongValue("number too large") from None


def _enum_member(value: Any, cls: type[Enum]) -> Enum:
    try:
        return cls(_exact(value, str))
    except _WrongValue:
        raise
    except ValueError:
        raise _WrongValue(f"one of {', '.join(str(m.value) for m in cls)} expected") from None


def _is_tuple(cls: Any) -> bool:
    return get_origin(cls) is tuple


def _make_tuple_hook(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    assert cls.__args__[1:] == (...,), "wire classes hold tuples of one type only"
    list_type = list[cls.__args__[0]]

    def structure(value: Any, _: Any) -> Any:
        return tuple(converter.structure(_exact(value, list), list_type))

    return structure


def _make_short_tuple_hook(limit: int, cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    structure_items = _make_tuple_hook(cls, converter)

    def structure(value: Any, target: Any) -> Any:
        if isinstance(value, list) and len(value) > limit:
            raise _WrongValue(f"{len(value)} items given, {limit} allowed")
        return structure_items(value, target)

    return structure


def _make_class_hook(cls: Any, converter: Converter) -> Callable[[Any, Any], Any]:
    types = get_type_hints(cls)
    limits = {
        name: override(struct_hook=_make_short_text_hook(limit))
        for name, limit in MAX_CHARACTERS.items()
        if types.get(name) is str
    }
    for name in MAX_ITEMS.keys() & types.keys():
        limits[name] = override(struct_hook=_make_short_tuple_hook(MAX_ITEMS[name], types[name], converter))
    if "id" in types:
        limits["id"] = override(struct_hook=_request_id)
    # cattrs declares the overrides as Any-typed keyword arguments of the same function.
    structure_fields = make_dict_structure_fn(cls, converter, **limits)  # type: ignore[arg-type]

    def structure(value: Any, target: Any) -> Any:
        return structure_fields(_exact(value, dict), target)

    return structure


def _omits_defaults(cls: Any) -> bool:
    return is_dataclass(cls) and any(each.metadata.get("omit_default") for each in fields(cls))


def _make_omitting_hook(cls: Any, converter: Converter) -> Callable[[Any], Any]:
    omitted = {each.name: override(omit_if_default=True) for each in fields(cls) if each.metadata.get("omit_default")}
    return make_dict_unstructure_fn(cls, converter, **omitted)  # type: ignore[arg-type]


def _make_short_text_hook(limit: int) -> Callable[[Any, Any], str]:
    def structure(value: Any, _: Any) -> str:
        text: str = _exact(value, str)
        if len(text) > limit:
            raise _WrongValue(f"{len(text)} characters given, {limit} allowed")
        return text

    return structure


def _request_id(value: Any, _: Any) -> str:
    text: str = _exact(value, str)
    if not _ID.fullmatch(text):
        raise _WrongValue("1 to 64 letters, digits or . _ : - expected")
    return text
