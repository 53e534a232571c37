"""What a user can set: a tree of small frozen dataclasses, the same names in camelCase on the editor's side.

``settings_reader.py`` fills it from what an editor sends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from diffusion_core.config import ENGINE_DTYPES
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

    ``more_urls`` are asked while ``url`` does not answer; if ``fallback`` is ``local``, the local one after them.
    What is empty is taken from ``UNMASK_CLIENT_*`` and ``UNMASK_ENGINE_*`` variables, else from the defaults.
    """

    url: str = setting("", "empty (local engine), or a URL", _is_url)
    token: str = setting("", "the bearer token of a remote engine", secret=True)
    token_file: str = setting("", "the path of a file that holds the token")
    more_urls: tuple[str, ...] = setting((), "a list of URLs", lambda urls: all(map(_is_url, urls)))
    fallback: str = setting("", "one of none, local", lambda value: value in {"", "none", "local"})
    proxy: str = setting("", "empty (as the environment says), none, or the URL of a proxy")
    ca_file: str = setting("", "the path of a PEM file, or a folder of such, with the engine's certificate authority")
    cert_file: str = setting("", "the path of a PEM file with a certificate of the user's")
    key_file: str = setting("", "the path of a PEM file with the key of that certificate")
    model: str = setting("", "the name of a model (`unmask models` lists them) or the path of a folder")
    edit_model: str = setting("", "auto, the name of a model, or the path of a folder")
    device: str = setting("", "auto, cpu, cuda or another device of torch")
    dtype: str = setting("", f"one of {', '.join(ENGINE_DTYPES)}", lambda v: v in {"", *ENGINE_DTYPES})
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
class NextEditSettings:
    """Places where the change that was just made belongs as well (``unmask.nextEdit``).

    ``min_confidence`` is the share of such places, in percent, that were right in the histories it was counted over.
    """

    enabled: bool = setting(False, "true or false")
    min_confidence: int = number(60, 1, 100)


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
    next_edit: NextEditSettings = field(default_factory=NextEditSettings)
    stats: StatsSettings = field(default_factory=StatsSettings)
    log_level: str = choice("", "debug", "info", "warning", "error")


def camel_case(name: str) -> str:
    """``max_tokens`` -> ``maxTokens``."""
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)
