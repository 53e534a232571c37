"""What a user can set: a tree of small frozen dataclasses, the same names in camelCase on the editor's side.

A wrong value never stops the server: its default is used and a :class:`Problem` names the setting, what it is, and
what is allowed. An editor's ``null`` means "not set".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, get_type_hints

import cattrs

from diffusion_core.config import ClientConfig, EngineConfig, from_environment
from diffusion_core.errors import ConfigError
from diffusion_core.requests import MAX_ALTERNATIVES

ROOT = "unmask"
# Keys that editors keep under our section for themselves.
FOREIGN_KEYS = frozenset({"trace"})

T = TypeVar("T")


def setting(default: T, allowed: str, is_allowed: Callable[[T], bool] = lambda _: True, *, secret: bool = False) -> T:
    """A field with its default, the values it may have (in words and as a test), and whether it must not be shown."""
    value: T = field(
        default=default, repr=not secret, metadata={"allowed": allowed, "is_allowed": is_allowed, "secret": secret}
    )
    return value


def number(default: int, low: int, high: int) -> int:
    """A whole number within bounds."""
    return setting(default, f"a whole number from {low} to {high}", lambda value: low <= value <= high)


def _is_url(value: str) -> bool:
    return not value or value.startswith(("http://", "https://"))


def choice(default: str, *values: str) -> str:
    """One of a few words."""
    return setting(default, "one of " + ", ".join(values), lambda value: value in {default, *values})


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Where the engine is. Without ``url`` a local one is started, shared by all editors of the user.

    What is empty is taken from ``UNMASK_CLIENT_*`` and ``UNMASK_ENGINE_*`` variables, else from the defaults.
    """

    url: str = setting("", "empty (local engine), or a URL", _is_url)
    token: str = setting("", "the bearer token of a remote engine", secret=True)
    token_file: str = setting("", "the path of a file that holds the token")
    ca_file: str = setting("", "the path of a PEM file with the certificate authority of the engine")
    model: str = setting("", "the name of a model (`unmask models` lists them) or the path of a folder")
    edit_model: str = setting("", "auto, the name of a model, or the path of a folder")
    device: str = setting("", "auto, cpu, cuda or another device of torch")
    dtype: str = setting(
        "", "one of auto, float32, bfloat16, float16", lambda v: v in {"", "auto", "float32", "bfloat16", "float16"}
    )
    num_threads: int = number(0, 0, 1024)


@dataclass(frozen=True, kw_only=True)
class DebounceSettings:
    """Bounds of the wait before an automatic request, in milliseconds; adaptive in between."""

    min: int = number(30, 0, 5000)
    max: int = number(80, 0, 5000)


@dataclass(frozen=True, kw_only=True)
class ContextSettings:
    """What the model is shown of other files; each kind is off until measurements show that it helps.

    ``max_files`` and ``max_megabytes`` bound what the workspace's index reads.
    """

    declarations: bool = setting(False, "true or false")
    similar: bool = setting(False, "true or false")
    recent_edits: bool = setting(False, "true or false")
    diagnostics: bool = setting(False, "true or false")
    max_chars: int = number(3000, 200, 50_000)
    max_files: int = number(2000, 1, 100_000)
    max_megabytes: int = number(20, 1, 1000)


@dataclass(frozen=True, kw_only=True)
class CompletionSettings:
    """Ghost text. ``max_tokens`` 0 leaves it to the engine.

    ``alternatives`` is how many texts an invoked request gets at most. ``warm_ahead`` lets an idle engine read what a
    shown suggestion would make of the text, so that the one after it comes sooner.
    """

    enabled: bool = setting(True, "true or false")
    debounce_ms: DebounceSettings = field(default_factory=DebounceSettings)
    max_tokens: int = number(0, 0, 1024)
    multi_line: str = choice("auto", "auto", "always", "never")
    deadline_ms: int = number(4000, 50, 120_000)
    max_prefix_chars: int = number(4000, 200, 100_000)
    max_suffix_chars: int = number(1000, 0, 100_000)
    alternatives: int = number(3, 1, 1 + MAX_ALTERNATIVES)
    in_strings: bool = setting(True, "true or false")
    in_comments: bool = setting(True, "true or false")
    warm_ahead: bool = setting(True, "true or false")
    context: ContextSettings = field(default_factory=ContextSettings)


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """Instruction edits. A selection above the limits is refused, never cut."""

    max_selection_lines: int = number(400, 1, 100_000)
    max_selection_chars: int = number(20_000, 1, 1_000_000)
    max_context_chars: int = number(3000, 0, 100_000)
    deadline_ms: int = number(120_000, 1000, 3_600_000)
    code_actions: bool = setting(True, "true or false")


@dataclass(frozen=True, kw_only=True)
class IgnoreSettings:
    """Files that are neither completed nor edited nor shown to the model, besides those of ``.unmaskignore``."""

    use_gitignore: bool = setting(True, "true or false")
    globs: tuple[str, ...] = setting(
        ("**/.env*", "*.pem", "*.key", "*.cert", "*.crt", "secrets.*"), "a list of patterns as in .gitignore"
    )


@dataclass(frozen=True, kw_only=True)
class LanguageSettings:
    """Language ids (as in VS Code) with automatic suggestions; an empty ``enabled`` means all."""

    enabled: tuple[str, ...] = setting((), "a list of language ids")
    disabled: tuple[str, ...] = setting((), "a list of language ids")

    def allow(self, language: str) -> bool:
        """Whether suggestions are wanted in this language."""
        return language not in self.disabled and (not self.enabled or language in self.enabled)


@dataclass(frozen=True, kw_only=True)
class StatsSettings:
    """Statistics of how useful suggestions are, kept in one file on this machine (`unmask stats` shows them).

    Nothing of them is ever sent anywhere, and they hold no code and no paths.
    """

    enabled: bool = setting(True, "true or false")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings. An empty ``log_level`` keeps the one of the command line."""

    engine: EngineSettings = field(default_factory=EngineSettings)
    completion: CompletionSettings = field(default_factory=CompletionSettings)
    edit: EditSettings = field(default_factory=EditSettings)
    languages: LanguageSettings = field(default_factory=LanguageSettings)
    ignore: IgnoreSettings = field(default_factory=IgnoreSettings)
    stats: StatsSettings = field(default_factory=StatsSettings)
    log_level: str = choice("", "debug", "info", "warning", "error")


@dataclass(frozen=True)
class Problem:
    """A setting that could not be used, and why."""

    name: str
    message: str


def camel_case(name: str) -> str:
    """``max_tokens`` -> ``maxTokens``."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


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
            token=settings.token or None,
            token_file=settings.token_file or None,
            ca_file=settings.ca_file or None,
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
