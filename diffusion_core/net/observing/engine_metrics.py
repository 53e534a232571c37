"""Prometheus metrics of the engine, made from a snapshot when somebody looks: in between they cost it nothing."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from diffusion_core.engine.counters import EngineCounters
from diffusion_core.net.observing.engine_state import EngineState
from diffusion_core.version import package_version


class EngineFamilies(Collector):
    """Turns ``state`` into metrics."""

    def __init__(self) -> None:
        self.state = EngineState()

    def describe(self) -> list[Metric]:
        """Nothing: names are checked by a test, and need no state."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of ``state``."""
        health = self.state.health
        yield InfoMetricFamily(
            "unmask_build", "Versions, and what the engine runs on.",
            value={
                "version": package_version(), "python": platform.python_version(), "device": health.device,
                "dtype": health.dtype,
            },
        )  # fmt: skip
        yield _gauge("unmask_engine_ready", "1 if the engine can answer, else 0.", float(health.status == "ready"))
        yield _gauge("unmask_engine_uptime_seconds", "How long the engine has been there.", health.uptime_ms / 1000)
        yield _gauge("unmask_engine_memory_bytes", "Resident memory, as the engine reports it.", health.memory_bytes)
        yield _gauge(
            "unmask_requests_in_progress", "Requests that the engine has not answered yet.", self.state.num_under_way
        )
        if self.state.counters is None:
            yield _counter("unmask_engine_forwards", "Model calls, prompts included.", health.num_forwards)
        else:
            yield from _work(self.state.counters)
            yield from _moment(self.state.counters)
        yield from self._models()

    def _models(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("unmask_model_ready", "1 if the model can answer, else 0.", labels=("model", "task"))
        memory = GaugeMetricFamily("unmask_model_memory_bytes", "Weights of a loaded model.", labels=("model", "task"))
        for model in self.state.health.models:
            ready.add_metric((model.name, model.task), float(model.state == "ready"))
            memory.add_metric((model.name, model.task), model.memory_bytes)
        yield ready
        yield memory


def _work(counters: EngineCounters) -> Iterator[Metric]:
    """What the engine has done."""
    yield _counter("unmask_engine_forwards", "Model calls, prompts included.", counters.num_forwards)
    yield _counter("unmask_engine_rows", "Rows of all model calls: positions that were computed.", counters.num_rows)
    yield _batch_sizes(counters.batch_sizes)
    yield _counter("unmask_engine_begun_requests", "Requests that got a place, warm-ups too.", counters.num_begun)
    yield _counter(
        "unmask_cache_hits", "Requests that found a part of their prompt among kept ones.", counters.num_cache_hits
    )
    yield _counter("unmask_engine_refused_requests", "Requests that the engine did not take.", counters.num_refused)
    yield _counter("unmask_engine_late_requests", "Requests whose deadline passed in the engine.", counters.num_late)
    yield _counter("unmask_engine_cancelled_requests", "Requests whose caller left them.", counters.num_cancelled)


def _moment(counters: EngineCounters) -> Iterator[Metric]:
    """What the engine does now."""
    queued = GaugeMetricFamily("unmask_queue_length", "Requests that wait for a place.", labels=("task",))
    queued.add_metric(("complete",), counters.num_queued_completions)
    queued.add_metric(("edit",), counters.num_queued_edits)
    queued.add_metric(("warm",), counters.num_queued_warm_ups)
    yield queued
    yield _gauge("unmask_active_requests", "Requests that are being computed.", counters.num_active)
    yield _gauge("unmask_active_users", "Users with a request that waits or is computed.", counters.num_users)
    size = GaugeMetricFamily(
        "unmask_cache_bytes", "Keys and values: of active requests, or kept for later ones.", labels=("state",)
    )
    size.add_metric(("active",), counters.active_cache_bytes)
    size.add_metric(("kept",), counters.kept_cache_bytes)
    yield size
    yield _gauge("unmask_cache_entries", "Prompts whose keys and values are kept.", counters.num_kept_caches)


def _batch_sizes(counts: tuple[int, ...]) -> Metric:
    """A histogram of sequences a call; the last count stands for that many or more."""
    buckets, seen = [], 0
    for size in range(1, len(counts)):
        seen += counts[size]
        if size & (size - 1) == 0 and size < len(counts) - 1:  # 1, 2, 4, ...
            buckets.append((f"{size}.0", seen))
    buckets.append(("+Inf", seen))
    family = HistogramMetricFamily("unmask_engine_batch_size", "Sequences that shared a model call.")
    family.add_metric((), buckets, sum(size * count for size, count in enumerate(counts)))
    return family


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
