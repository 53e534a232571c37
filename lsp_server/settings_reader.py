"""From what an editor sends to settings.

A wrong value never stops the server: its default is used and a :class:`Problem` names the setting, what it is, and
what is allowed. An editor's ``null`` means "not set".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, get_type_hints

import cattrs

from diffusion_core.config import ClientConfig, EngineConfig, from_environment
from diffusion_core.errors import ConfigError
from lsp_server.settings import FOREIGN_KEYS, ROOT, DebounceSettings, EngineSettings, Settings, camel_case

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A setting that could not be used, and why."""

    name: str
    message: str


def concerns_us(raw: object) -> bool:
    """Whether pushed settings hold any of ours. Some editors push all sections that they have to every server."""
    if not isinstance(raw, Mapping):
        return bool(raw)
    own = {ROOT, *(camel_case(field.name) for field in fields(Settings))}
    return not own.isdisjoint(raw)


def read_settings(raw: object) -> tuple[Settings, tuple[Problem, ...]]:
    """Settings from what the editor sent (with or without an ``unmask`` key around it), and what was wrong with it."""
    if isinstance(raw, Mapping) and ROOT in raw:
        # Some editors push all their settings: other sections are not ours.
        raw = raw[ROOT]
    problems: list[Problem] = []
    settings = _read_section(Settings, raw, ROOT, problems)
    return _without_contradictions(settings, problems), tuple(problems)


def client_config(settings: EngineSettings) -> tuple[ClientConfig, tuple[Problem, ...]]:
    """Where the client finds its engine, and what was wrong in settings and environment."""
    try:
        engine = from_environment(
            EngineConfig,
            "engine",
            model=settings.model or None,
            edit_model=settings.edit_model or None,
            device=settings.device or None,
            dtype=settings.dtype or None,
            num_threads=settings.num_threads or None,
        )
        config = from_environment(
            ClientConfig,
            "client",
            engine=engine,
            url=settings.url or None,
            # One from the settings replaces either from the environment.
            token=settings.token or ("" if settings.token_file else None),
            token_file=settings.token_file or ("" if settings.token else None),
            more_urls=settings.more_urls or None,
            fallback=settings.fallback or None,
            proxy=settings.proxy or None,
            ca_file=settings.ca_file or None,
            cert_file=settings.cert_file or None,
            key_file=settings.key_file or None,
        )
    except ConfigError as error:
        return ClientConfig(), (Problem(f"{ROOT}.engine", f"{error}. The local engine with its defaults is used."),)
    return config, ()


def _strict(kind: type[Any]) -> Callable[[Any, Any], Any]:
    """A structure hook without conversions: 5 is not "5", true is not 1."""

    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{kind.__name__} expected")
        return value

    return structure


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, _strict(kind))

    def structure_names(value: Any, _: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            raise TypeError("a list expected")
        return tuple(converter.structure(item, str) for item in value)

    converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], structure_names)
    return converter


def _read_section(cls: type[T], raw: object, path: str, problems: list[Problem]) -> T:
    if raw is None:
        return cls()
    if not isinstance(raw, Mapping):
        problems.append(Problem(path, f"{path} is not an object of settings. Its defaults are used."))
        return cls()
    converter = _make_converter()
    hints = get_type_hints(cls)
    known = {camel_case(item.name): item for item in fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in raw.items():
        name = f"{path}.{key}"
        if key not in known:
            if key not in FOREIGN_KEYS:
                problems.append(Problem(name, f"{name} is not a setting{_suggestion(str(key), known)}."))
            continue
        if value is None:
            continue
        item = known[key]
        if is_dataclass(hints[item.name]):
            values[item.name] = _read_section(hints[item.name], value, name, problems)
            continue
        try:
            structured = converter.structure(value, hints[item.name])
            if not item.metadata["is_allowed"](structured):
                raise ValueError(name)
        except (TypeError, ValueError):
            problems.append(_wrong_value(name, value, item.default, item.metadata))
        else:
            values[item.name] = structured
    return cls(**values)


def _wrong_value(name: str, value: object, default: object, metadata: Mapping[str, Any]) -> Problem:
    shown = "" if metadata["secret"] else f" is {value!r:.60}"
    allowed = metadata["allowed"]
    default = list(default) if isinstance(default, tuple) else default
    return Problem(name, f"{name}{shown}: allowed is {allowed}. The default {default!r} is used.")


def _suggestion(key: str, known: Mapping[str, object]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]}" if close else ""


def _without_contradictions(settings: Settings, problems: list[Problem]) -> Settings:
    debounce = settings.completion.debounce_ms
    if debounce.min > debounce.max:
        name = f"{ROOT}.completion.debounceMs"
        problems.append(Problem(name, f"{name}: min is {debounce.min}, above max {debounce.max}. max is raised to it."))
        debounce = DebounceSettings(min=debounce.min, max=debounce.min)
        settings = replace(settings, completion=replace(settings.completion, debounce_ms=debounce))
    if settings.engine.token and settings.engine.token_file:
        name = f"{ROOT}.engine.tokenFile"
        problems.append(Problem(name, f"{name} is not used: {ROOT}.engine.token is set too. Give one of them."))
        settings = replace(settings, engine=replace(settings.engine, token_file=""))
    return settings
