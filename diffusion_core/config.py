"""Configuration of engine, server and client: frozen, keyword-only, validated; no torch.

Values come from command-line flags or from environment variables named ``UNMASK_<SECTION>_<FIELD>``, for instance
``UNMASK_ENGINE_MODEL`` (:func:`from_environment`). Where files live is decided here as well.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import platformdirs

from diffusion_core.errors import ConfigError

DEFAULT_MODEL = "qwen2.5-coder-0.5b"
DEFAULT_EDIT_MODEL = "qwen2.5-coder-1.5b"

ENGINE_DTYPES = ("auto", "float32", "bfloat16", "float16", "int8", "int4")

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*\.?|\[[0-9a-fA-F:.]+\]")

LOG_FORMATS = ("text", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
_BOOLEANS = MappingProxyType({"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False})

MIB = 1024 * 1024
GIB = 1024 * MIB


def cache_folder() -> Path:
    """Where checkpoints are kept: ``$UNMASK_CACHE_DIR`` or the user's cache folder."""
    return Path(os.environ.get("UNMASK_CACHE_DIR") or platformdirs.user_cache_dir("unmask"))


def state_folder() -> Path:
    """Where the local engine's state file, lock and log are kept: ``$UNMASK_STATE_DIR`` or the user's state folder."""
    return Path(os.environ.get("UNMASK_STATE_DIR") or platformdirs.user_state_dir("unmask"))


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """What an engine loads and how much it may use.

    ``model`` answers completions, ``edit_model`` answers edits: each a registry name or the path of a folder.
    ``family`` names the family of ``model`` where its folder does not show it (``auto``: it does).
    ``edit_model`` ``auto`` takes the recommended edit model if it is downloaded and fits the memory, else ``model``.
    ``drafter`` ``auto`` takes the drafter that comes with a named model, ``none`` none; else it is the folder of one
    for ``model``.
    ``tuning`` ``auto`` merges the edit tuning that comes with a named model into it, ``none`` none; else it is the
    folder of one for the model that answers edits.
    ``dtype`` ``auto`` is bfloat16 where the device has instructions for it, else float32; on an x86 CPU that has VNNI
    it is int8 for all but tiny models; where there is AMX and no compiler for our kernels (kernels/), for those that
    are stored in more than a gigabyte. ``int8`` (CPUs with VNNI, and GPUs) halves the weights once more and is near
    the others, not equal; ``int4`` halves them again, for models that do not fit otherwise. Activations beside both
    are in bfloat16 or float32.
    ``capture`` is how decoding rounds run: ``off`` evaluates each as it comes; ``exact`` gives all of them one static
    shape, so that `verified` is `autoregressive` bit for bit on a GPU too; ``fast`` gives them the smallest of several.
    On CUDA such rounds are captured as graphs; where a round is one kernel the two are the same. ``auto`` is ``exact``
    on CUDA and ``off`` elsewhere.
    ``num_threads`` 0 chooses by measurement where there are more than two cores and OMP_NUM_THREADS does not say.
    ``memory_check`` is what happens to a model that needs more memory than is free: ``refuse`` it before anything is
    loaded, or ``warn`` in the log and try (what is needed is an estimate from above).
    ``prefix_cache_bytes`` bounds the KV caches kept between requests, ``active_cache_bytes`` those of requests under
    way: who does not fit beside them waits, but one request always goes.
    ``max_queued`` requests may wait or be under way; ``max_active`` of them share the model's forwards, of one user at
    most ``max_active_per_user``.
    """

    model: str = DEFAULT_MODEL
    family: str = "auto"
    edit_model: str = "auto"
    drafter: str = "auto"
    tuning: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    capture: str = "auto"
    num_threads: int = 0
    memory_limit_bytes: int = 0
    memory_check: str = "refuse"
    prefix_cache_bytes: int = 256 * MIB
    active_cache_bytes: int = GIB
    max_context_tokens: int = 8192
    max_completion_tokens: int = 128
    max_edit_tokens: int = 4096
    max_queued: int = 64
    max_active: int = 16
    max_active_per_user: int = 8

    def __post_init__(self) -> None:
        _require(bool(self.model), "engine.model is empty: name a model (`unmask models` lists them) or a folder")
        _require(bool(self.family), "engine.family is empty: allowed are auto and the name of a family")
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
        _require(
            self.memory_check in {"refuse", "warn"},
            f"engine.memory_check is {self.memory_check!r}: allowed are refuse, warn",
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
            self.active_cache_bytes >= 0,
            f"engine.active_cache_bytes is {self.active_cache_bytes}: it cannot be negative",
        )
        _require(
            self.max_context_tokens >= 64,
            f"engine.max_context_tokens is {self.max_context_tokens}: at least 64",
        )
        for name in ("max_completion_tokens", "max_edit_tokens", "max_queued", "max_active", "max_active_per_user"):
            _require(getattr(self, name) >= 1, f"engine.{name} is {getattr(self, name)}: at least 1")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """How the engine is offered over HTTP.

    A token is always required; without one given, the server makes one and tells it (the launcher reads it from
    the state file). ``idle_exit_s`` 0 means: never stop by itself. ``drain_s`` is how long requests under way may take
    to end when the server is told to stop.
    ``allowed_hosts`` are the names under which the server's own web page may be opened, besides ``host``, localhost
    and plain IP addresses.
    ``tls_certificate`` (a chain, the server's own first) and ``tls_key`` are PEM files; both are read again when they
    change. ``behind_proxy`` says that something before this server encrypts, so that it need not. ``trusted_proxies``
    are the addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
    ``reload_settle_s`` is for how long the files of a served model must have rested after a change to be loaded in its
    place; 0: they are not watched.
    ``log_format`` is ``text`` or ``json``; ``log_level`` the least that is logged. Neither shows code at any level.
    ``metrics_token`` (or the one in ``metrics_token_file``) opens ``/metrics`` and nothing else. ``metrics_users`` is
    how many users have metrics of their own; those beyond share one name, and 0 keeps names out of metrics.
    ``otlp_endpoint`` is where traces go (OpenTelemetry over HTTP), for instance http://127.0.0.1:4318; empty: nowhere.
    ``users`` is ``single`` (whoever has the token) or ``database``: users with tokens and limits of their own, kept in
    ``database_url`` (sqlite:///FILE or postgresql://...; empty: a file in the state folder).
    ``requests_per_minute`` and ``requests_at_once`` bound what each such user may ask who has no other limits; 0 is no
    limit.
    """

    host: str = "127.0.0.1"
    port: int = 8712
    token: str = field(default="", repr=False)
    token_file: str = ""
    max_request_bytes: int = 8 * MIB
    idle_exit_s: float = 0.0
    drain_s: float = 20.0
    keep_alive_s: float = 75.0
    allowed_hosts: tuple[str, ...] = ()
    log_format: str = "text"
    log_level: str = "info"
    metrics_token: str = field(default="", repr=False)
    metrics_token_file: str = ""
    metrics_users: int = 100
    otlp_endpoint: str = ""
    users: str = "single"
    database_url: str = field(default="", repr=False)  # may hold a password
    requests_per_minute: int = 1200
    requests_at_once: int = 16
    tls_certificate: str = ""
    tls_key: str = ""
    behind_proxy: bool = False
    trusted_proxies: tuple[str, ...] = ()
    reload_settle_s: float = 3.0

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
        _require(
            self.users in {"single", "database"},
            f"server.users is {self.users!r}: allowed are single (one token) and database",
        )
        _require(
            self.users == "single" or not (self.token or self.token_file),
            "server.token and server.token_file belong to server.users = single: users of a database have their own",
        )
        for name in ("requests_per_minute", "requests_at_once"):
            _require(getattr(self, name) >= 0, f"server.{name} is {getattr(self, name)}: it cannot be negative")
        _require(self.idle_exit_s >= 0, f"server.idle_exit_s is {self.idle_exit_s}: it cannot be negative")
        _require(self.reload_settle_s >= 0, f"server.reload_settle_s is {self.reload_settle_s}: it cannot be negative")
        _require(
            bool(self.tls_certificate) == bool(self.tls_key),
            "server.tls_certificate and server.tls_key belong together: give both or none",
        )
        for proxy in self.trusted_proxies:
            _require(
                _is_network(proxy),
                f"server.trusted_proxies holds {proxy!r}: give addresses or networks, as 10.0.0.7 or 10.1.0.0/16",
            )
        _require(self.drain_s >= 0, f"server.drain_s is {self.drain_s}: it cannot be negative")
        for name in self.allowed_hosts:
            _require(
                bool(_HOST_NAME.fullmatch(name)),
                f"server.allowed_hosts holds {name!r}: give host names without scheme and port, as code.example.org",
            )
        _require(self.log_format in LOG_FORMATS, f"server.log_format is {self.log_format!r}: allowed are text, json")
        _require(
            self.log_level in LOG_LEVELS,
            f"server.log_level is {self.log_level!r}: allowed are {', '.join(LOG_LEVELS)}",
        )
        _require(
            not (self.metrics_token and self.metrics_token_file),
            "server.metrics_token and server.metrics_token_file are both set: give one of them",
        )
        _require(
            0 <= self.metrics_users <= 1000,
            f"server.metrics_users is {self.metrics_users}: allowed is 0 (no names of users) to 1000",
        )
        _require(
            not self.otlp_endpoint or self.otlp_endpoint.startswith(("http://", "https://")),
            f"server.otlp_endpoint is {self.otlp_endpoint!r}: it must begin with http:// or https://",
        )


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """Where a client finds its engine. ``url`` empty means the shared local engine, started when needed.

    ``more_urls`` are other doors to the same team's engine, tried in this order while ``url`` does not answer; the
    token is sent to them too. ``fallback`` ``local`` lets the local engine answer while none of them does; ``none``
    does not.
    ``ca_file`` is a file of certificates, or a folder of such; empty: those that the system trusts. ``cert_file`` and
    ``key_file`` are for servers that ask for a client's certificate.
    ``proxy`` is the URL of a proxy, ``none`` for a direct way, or empty for what the environment says (HTTPS_PROXY,
    NO_PROXY). An engine on this machine is never asked through a proxy.
    ``max_attempts`` bounds how often a request is sent within its deadline; 1: never again.
    """

    url: str = ""
    more_urls: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    token_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    proxy: str = field(default="", repr=False)  # may hold a password
    fallback: str = "none"
    max_attempts: int = 8
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
        for url in self.more_urls:
            _require(
                url.startswith(("http://", "https://")),
                f"client.more_urls holds {url!r}: each must begin with http:// or https://",
            )
        _require(not self.more_urls or bool(self.url), "client.more_urls is set without client.url: give that first")
        _require(
            not (self.token and self.token_file),
            "client.token and client.token_file are both set: give one of them",
        )
        _require(
            not self.key_file or bool(self.cert_file),
            "client.key_file is set without client.cert_file: give the certificate that the key belongs to",
        )
        _require(
            self.proxy in {"", "none"} or self.proxy.startswith(("http://", "https://", "socks5://", "socks5h://")),
            "client.proxy must be empty, none, or a URL that begins with http://, https:// or socks5://",
        )
        _require(self.fallback in {"none", "local"}, f"client.fallback is {self.fallback!r}: allowed are none, local")
        _require(self.max_attempts >= 1, f"client.max_attempts is {self.max_attempts}: at least 1")
        _require(self.connect_timeout_s > 0, "client.connect_timeout_s must be above 0")
        _require(self.request_timeout_s > 0, "client.request_timeout_s must be above 0")
        _require(self.engine_start_timeout_s > 0, "client.engine_start_timeout_s must be above 0")


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """Several replicas of an engine on Ray Serve: how many, what each may use, and when there are more.

    ``address`` empty starts a cluster of this machine alone; ``auto`` joins the one that runs here.
    A replica is added while the present ones have more than ``target_ongoing`` requests each, up to ``max_replicas``,
    and one is taken away when that has not been so for a while. A replica with ``max_ongoing`` requests gets no more:
    then they go to another one, which does not have their prompts.
    ``drain_s`` is how long a replica that is replaced or taken away may go on with what it has begun.
    """

    address: str = ""
    min_replicas: int = 2
    max_replicas: int = 2
    target_ongoing: int = 4
    max_ongoing: int = 16
    cpus_per_replica: float = 1.0
    gpus_per_replica: float = 0.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        _require(self.min_replicas >= 1, f"ray.min_replicas is {self.min_replicas}: at least 1")
        _require(
            self.max_replicas >= self.min_replicas,
            f"ray.max_replicas is {self.max_replicas}: at least ray.min_replicas, which is {self.min_replicas}",
        )
        _require(self.target_ongoing >= 1, f"ray.target_ongoing is {self.target_ongoing}: at least 1")
        _require(
            self.max_ongoing >= self.target_ongoing,
            f"ray.max_ongoing is {self.max_ongoing}: at least ray.target_ongoing, which is {self.target_ongoing}",
        )
        for name in ("cpus_per_replica", "gpus_per_replica", "drain_s"):
            _require(getattr(self, name) >= 0, f"ray.{name} is {getattr(self, name)}: it cannot be negative")


C = TypeVar("C", EngineConfig, ServerConfig, ClientConfig, RayConfig)


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


def _convert(text: str, kind: type, variable: str) -> bool | str | int | float | tuple[str, ...]:
    if kind is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ConfigError(f"{variable} is {text!r}: true or false expected")
        return _BOOLEANS[text.lower()]
    try:
        if kind is int:
            return int(text)
        return float(text) if kind is float else text
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}: {kind.__name__} expected") from None
