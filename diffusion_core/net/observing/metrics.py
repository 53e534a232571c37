"""Prometheus metrics of requests. What the engine itself counts is in :mod:`engine_metrics`.

Labels are bounded: routes are the application's, users beyond the first ``num_users`` share one name. No metric holds
a text of a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from diffusion_core.net.observing.engine_metrics import EngineFamilies
from diffusion_core.net.observing.engine_state import EngineState
from diffusion_core.net.observing.observation import Observation

# From what a cached completion takes to what an edit of a large selection may.
SECONDS = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0,
    5.0, 10.0, 20.0, 30.0, 60.0,
)  # fmt: skip
TOKENS_PER_FORWARD = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
OTHERS = "(others)"


class Names:
    """The first ``limit`` different names; any further one is ``(others)``. With a limit of 0 there are no names."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        """The label for ``name``."""
        if not name or not self._limit:
            return ""
        if name not in self._known and len(self._known) >= self._limit:
            return OTHERS
        self._known.add(name)
        return name


class Metrics:
    """The counters of one server, in a registry of its own. ``num_users`` users have labels of their own."""

    def __init__(self, num_users: int) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._users, self._routes = Names(num_users), Names(100)
        self._http = Counter(
            "unmask_http_requests", "HTTP requests that ended; status 0: the client left before an answer.",
            ("method", "route", "status", "user"), registry=registry,
        )  # fmt: skip
        self._http_seconds = Histogram(
            "unmask_http_request_duration_seconds", "From a request's first byte to the end of its answer.",
            ("route",), buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._requests = Counter(
            "unmask_requests", "Requests to the engine that ended, by outcome.", ("task", "outcome", "user"),
            registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "unmask_failed_requests", "Requests that were answered with an error, by its code.", ("outcome", "reason"),
            registry=registry,
        )  # fmt: skip
        self._phases = {
            name: Histogram(
                f"unmask_{name}_seconds",
                text,
                ("task",),
                buckets=SECONDS,
                registry=registry,
            )
            for name, text in (
                ("queue", "Time a request waited before the engine began it."),
                ("prefill", "Time to compute what was new in its prompt."),
                ("denoise", "Time to make its answer."),
                ("answer", "Time from its arrival at the engine to its answer."),
            )
        }
        self._tokens = Counter(
            "unmask_answer_tokens", "Tokens of answers.", ("task", "user"), registry=registry
        )  # fmt: skip
        self._forwards = Counter(
            "unmask_answer_forwards", "Model calls for answers, prompts not counted.", ("task",), registry=registry
        )
        self._per_forward = Histogram(
            "unmask_tokens_per_forward", "Tokens of an answer over its model calls.", ("task",),
            buckets=TOKENS_PER_FORWARD, registry=registry,
        )  # fmt: skip
        self._prompt_tokens = Counter(
            "unmask_prompt_tokens", "Tokens of prompts: reused from earlier requests, or computed.",
            ("task", "source"), registry=registry,
        )  # fmt: skip
        self._reloads = Counter(
            "unmask_model_reloads", "Checkpoints that were to be replaced while serving.", ("model", "state"),
            registry=registry,
        )  # fmt: skip
        self._engine = EngineFamilies()
        registry.register(self._engine)
        ProcessCollector(registry=registry)

    def record(self, observation: Observation) -> None:
        """Count a request that ended."""
        user, route = self._users(observation.user), self._routes(observation.route)
        self._http.labels(observation.method, route, str(observation.status), user).inc()
        self._http_seconds.labels(route).observe(observation.seconds)
        if observation.task:
            self._requests.labels(observation.task, observation.outcome.value, user).inc()
        if observation.code:
            self._failures.labels(observation.outcome.value, observation.code).inc()
        for answer in observation.answers:
            if (result := answer.result) is None:
                continue
            timings = result.timings
            for name, ms in (
                ("queue", timings.queue_ms), ("prefill", timings.prefill_ms), ("denoise", timings.denoise_ms),
                ("answer", timings.total_ms),
            ):  # fmt: skip
                self._phases[name].labels(answer.task).observe(ms / 1000)
            self._tokens.labels(answer.task, user).inc(result.num_tokens)
            self._forwards.labels(answer.task).inc(result.num_forwards)
            if result.num_forwards:
                self._per_forward.labels(answer.task).observe(result.tokens_per_forward)
            self._prompt_tokens.labels(answer.task, "reused").inc(result.num_reused_tokens)
            self._prompt_tokens.labels(answer.task, "computed").inc(result.num_computed_tokens)

    def count_reload(self, model: str, state: str) -> None:
        """Count a checkpoint that was ``replaced`` or ``refused``."""
        self._reloads.labels(model, state).inc()

    def render(self, state: EngineState, accept: str = "") -> tuple[bytes, str]:
        """All metrics with the engine's state of now, and their content type, in the format ``accept`` asks for."""
        self._engine.state = state
        encode, content_type = choose_encoder(accept)
        return encode(_WithoutCreated(self._registry)), content_type


class _WithoutCreated:
    """A registry without the times at which its series began: half of all series, and nothing that one looks at."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)
