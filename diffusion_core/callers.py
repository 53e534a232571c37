"""Who asks: a user of a shared engine, as far as the engine has to know. No names of people, no code, no secrets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from diffusion_core.requests import EngineClient


class Scope(StrEnum):
    """What a token allows."""

    COMPLETE = "complete"  # completions and their warm-ups
    EDIT = "edit"  # instruction edits and their warm-ups
    ADMIN = "admin"  # users, tokens, limits, live load
    METRICS = "metrics"  # /metrics and nothing else; whoever has `admin` may read it as well


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a user may ask of a server process; 0 is no limit.

    ``requests_per_minute`` may come at once after a quiet minute. ``requests_at_once`` counts those that wait, too.
    """

    requests_per_minute: int = 0
    requests_at_once: int = 0
    max_request_bytes: int = 0


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A user on whose behalf a request runs.

    ``user`` takes turns with other users in the queue and is what logs and metrics say. ``space`` is whose cached
    prompts may be reused: requests of different spaces never see each other's, not even by their timing. Users have a
    space each unless an administrator puts them into a shared workspace. ``limits`` are kept by the server.
    """

    user: str
    space: str
    scopes: frozenset[Scope]
    limits: Limits = NO_LIMITS


# The only user of an engine with a single token: the shared local engine, or `unmask serve` for one person.
OWNER = Caller(user="owner", space="owner", scopes=frozenset(Scope))


@runtime_checkable
class ServesCallers(Protocol):
    """An engine that tells callers apart."""

    def on_behalf_of(self, caller: Caller) -> EngineClient:
        """The same engine for requests of ``caller``. Cheap; closing what is returned closes nothing."""
        ...


def engine_for(engine: EngineClient, caller: Caller) -> EngineClient:
    """``engine`` as ``caller`` sees it; the engine itself where it does not tell callers apart."""
    return engine.on_behalf_of(caller) if isinstance(engine, ServesCallers) else engine
