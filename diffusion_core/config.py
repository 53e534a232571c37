"""Configuration of engine, server and client: frozen, keyword-only, validated; no torch.

Values come from command-line flags or from environment variables named ``UNMASK_<SECTION>_<FIELD>``, for instance
``UNMASK_ENGINE_MODEL`` (:func:`from_environment`). Where files live is decided here as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from diffusion_core.errors import ConfigError

DEFAULT_MODEL = "qwen2.5-coder-0.5b"
DEFAULT_EDIT_MODEL = "qwen2.5-coder-1.5b"

ENGINE_DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")

MIB = 1024 * 1024
GIB = 1024 * MIB


def cache_folder() -> Path:
    """Where checkpoints are kept: ``$UNMASK_CACHE_DIR`` or the user's cache folder."""
    return Path(os.environ.get("UNMASK_CACHE_DIR") or platformdirs.user_cache_dir("unmask"))


def state_folder() -> Path:
    """Where the local engine's state file, lock and log are kept: ``$UNMASK_STATE_DIR`` or the user's state folder."""
    return Path(os.environ.get("UNMASK_STATE_DIR") or platformdirs.user_state_dir("unmask"))


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What an engine loads and how much it may use.

    ``model`` answers completions, ``edit_model`` answers edits: each a registry name or the path of a folder.
    ``edit_model`` ``auto`` takes the recommended edit model if it is downloaded and fits the memory, else ``model``.
    ``drafter`` ``auto`` takes the drafter that comes with a named model, ``none`` none; else it is the folder of one
    for ``model``.
    ``tuning`` ``auto`` merges the edit tuning that comes with a named model into it, ``none`` none; else it is the
    folder of one for the model that answers edits.
    ``dtype`` ``auto`` is bfloat16 where the device has instructions for it, else float32. ``int8`` (CPUs with AVX-512
    or AVX-VNNI) halves the weights once more and is near the others, not equal; activations are as with ``auto``.
    ``capture`` is how decoding rounds run: ``off`` evaluates each as it comes; ``exact`` gives all of them one static
    shape, so that `verified` is `autoregressive` bit for bit on a GPU too; ``fast`` gives them the smallest of several.
    On CUDA such rounds are captured as graphs. ``auto`` is ``exact`` on CUDA and ``off`` elsewhere.
    ``num_threads`` 0 chooses by measurement where there are more than two cores and OMP_NUM_THREADS does not say.
    ``prefix_cache_bytes`` bounds the KV caches kept between requests.
    """

    model: str = DEFAULT_MODEL
    edit_model: str = "auto"
    drafter: str = "auto"
    tuning: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    capture: str = "auto"
    num_threads: int = 0
    memory_limit_bytes: int = 0
    prefix_cache_bytes: int = 256 * MIB
    max_context_tokens: int = 8192
    max_completion_tokens: int = 128
    max_edit_tokens: int = 4096
    max_queued: int = 64

    def __post_init__(self) -> None:
        _require(bool(self.model), "engine.model is empty: name a model (`unmask models` lists them) or a folder")
        _require(bool(self.edit_model), "engine.edit_model is empty: name a model, a folder, or `auto`")
        _require(bool(self.drafter), "engine.drafter is empty: allowed are auto, none, and the folder of a drafter")
        _require(bool(self.tuning), "engine.tuning is empty: allowed are auto, none, and the folder of a tuning")
        _require(
            self.dtype in ENGINE_DTYPES,
            f"engine.dtype is {self.dtype!r}: allowed are {', '.join(ENGINE_DTYPES)}",
        )
        _require(
            self.capture in {"auto", "exact", "fast", "off"},
            f"engine.capture is {self.capture!r}: allowed are auto, exact, fast, off",
        )
        _require(self.num_threads >= 0, f"engine.num_threads is {self.num_threads}: it cannot be negative")
        _require(
            self.memory_limit_bytes >= 0,
            f"engine.memory_limit_bytes is {self.memory_limit_bytes}: it cannot be negative (0: what is free)",
        )
        _require(
            self.prefix_cache_bytes >= 0,
            f"engine.prefix_cache_bytes is {self.prefix_cache_bytes}: it cannot be negative",
        )
        _require(
            self.max_context_tokens >= 64,
            f"engine.max_context_tokens is {self.max_context_tokens}: at least 64",
        )
        for name in ("max_completion_tokens", "max_edit_tokens", "max_queued"):
            _require(getattr(self, name) >= 1, f"engine.{name} is {getattr(self, name)}: at least 1")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """How the engine is offered over HTTP.

    A token is always required; without one given, the server makes one and tells it (the launcher reads it from
    the state file). ``idle_exit_s`` 0 means: never stop by itself.
    """

    host: str = "127.0.0.1"
    port: int = 8712
    token: str = field(default="", repr=False)
    token_file: str = ""
    max_request_bytes: int = 8 * MIB
    idle_exit_s: float = 0.0
    keep_alive_s: float = 75.0

    def __post_init__(self) -> None:
        _require(bool(self.host), "server.host is empty: 127.0.0.1 serves this machine only")
        _require(0 <= self.port <= 65535, f"server.port is {self.port}: allowed is 0 (any free port) to 65535")
        _require(
            not (self.token and self.token_file),
            "server.token and server.token_file are both set: give one of them",
        )
        _require(
            self.max_request_bytes >= 1024,
            f"server.max_request_bytes is {self.max_request_bytes}: at least 1024",
        )
        _require(self.idle_exit_s >= 0, f"server.idle_exit_s is {self.idle_exit_s}: it cannot be negative")


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """Where a client finds its engine. ``url`` empty means the shared local engine, started when needed."""

    url: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    ca_file: str = ""
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 300.0
    engine: EngineConfig = field(default_factory=EngineConfig)
    engine_idle_exit_s: float = 1800.0
    engine_start_timeout_s: float = 120.0

    def __post_init__(self) -> None:
        _require(
            not self.url or self.url.startswith(("http://", "https://")),
            f"client.url is {self.url!r}: it must begin with http:// or https://",
        )
        _require(
            not (self.token and self.token_file),
            "client.token and client.token_file are both set: give one of them",
        )
        _require(self.connect_timeout_s > 0, "client.connect_timeout_s must be above 0")
        _require(self.request_timeout_s > 0, "client.request_timeout_s must be above 0")
        _require(self.engine_start_timeout_s > 0, "client.engine_start_timeout_s must be above 0")


C = TypeVar("C", EngineConfig, ServerConfig, ClientConfig)


def from_environment(cls: type[C], section: str, environment: Mapping[str, str] = os.environ, **given: Any) -> C:
    """A configuration from ``UNMASK_<SECTION>_<FIELD>`` variables; ``given`` values that are not None win.

    Raises:
        ConfigError: a value has the wrong type, or a variable names no field (a typo would be a silent default).
    """
    known = {f.name: f for f in fields(cls) if f.name != "engine"}
    mark = f"UNMASK_{section.upper()}_"
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(mark):
            continue
        name = variable.removeprefix(mark).lower()
        if name not in known:
            raise ConfigError(f"{variable} names no setting of {section}: known are {', '.join(sorted(known))}")
        values[name] = _convert(text, type(known[name].default), variable)
    values.update({name: value for name, value in given.items() if value is not None})
    return cls(**values)


def _convert(text: str, kind: type, variable: str) -> str | int | float:
    try:
        if kind is int:
            return int(text)
        return float(text) if kind is float else text
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}: {kind.__name__} expected") from None
