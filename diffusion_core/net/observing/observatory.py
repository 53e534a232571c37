"""Everything that looks at requests, in one place: what is told of each, and what can be asked of it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from diffusion_core.config import ServerConfig
from diffusion_core.net.observing.access_log import log_access
from diffusion_core.net.observing.engine_state import NO_HEALTH, EngineState
from diffusion_core.net.observing.load import STEP_S, Load
from diffusion_core.net.observing.metrics import Metrics
from diffusion_core.net.observing.observation import Observation
from diffusion_core.net.observing.observed_engine import ObservedEngine
from diffusion_core.net.observing.tracing import make_traces
from diffusion_core.net.quiet_logs import describe_exception
from diffusion_core.requests import EngineClient, Health, LoadSummary

_SAMPLES_PER_STEP = 4

logger = logging.getLogger(__name__)


class Observatory:
    """Watches one engine for one server. Make it before the application, run :meth:`watch` beside it, close it.

    Raises:
        ConfigError: traces are wanted, but their package is not installed.
    """

    def __init__(self, engine: EngineClient, config: ServerConfig) -> None:
        self.engine = ObservedEngine(engine)
        self._metrics = Metrics(config.metrics_users)
        self._load = Load()
        self._traces = make_traces(config)
        self._born = time.monotonic()

    def record(self, observation: Observation) -> None:
        """Take note of a request that ended. An error in here never reaches whoever asked."""
        try:
            log_access(observation)
            self._metrics.record(observation)
            self._load.record(observation)
            self._traces.record(observation)
        except Exception as error:
            logger.error("%s could not be counted: %s", observation.request_id, describe_exception(error))

    def count_reload(self, model: str, state: str) -> None:
        """Count a checkpoint that was to be replaced while serving: ``replaced`` or ``refused``."""
        self._metrics.count_reload(model, state)

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """All metrics, and their content type."""
        return self._metrics.render(await self._read_engine(), accept)

    async def report_load(self, user: str = "") -> dict[str, Any]:
        """What the server does and did: the document of ``GET /v1/load``."""
        state = await self._read_engine()
        health = state.health
        self._load.sample(state.num_active, state.num_queued)
        return {
            "now": round(time.time(), 3),
            "status": health.status,
            "version": health.version,
            "device": health.device,
            "uptime_s": round(time.monotonic() - self._born, 1),
            "current": {
                "active": state.num_active,
                "queued": state.num_queued,
                "memory_bytes": health.memory_bytes,
                "cache_bytes": state.counters.kept_cache_bytes if state.counters else 0,
                "cache_entries": state.counters.num_kept_caches if state.counters else 0,
            },
            **self._load.report(self.engine.under_way, user),
        }

    def summarise_load(self) -> LoadSummary:
        """The last minute in a few figures, for whoever asks how the engine is."""
        state, window = self._count_engine(NO_HEALTH), self._load.summarise_window()
        return LoadSummary(
            num_active=state.num_active,
            num_queued=state.num_queued,
            window_s=window["seconds"],
            requests_per_s=round(window["requests"] / max(window["seconds"], 1.0), 3),
            tokens_per_s=window["tokens_per_s"],
            latency_p50_ms=window["p50_ms"] or 0.0,
            latency_p95_ms=window["p95_ms"] or 0.0,
            tokens_per_forward=window["tokens_per_forward"],
            cache_hit_rate=window["cache_hit_rate"],
        )

    async def watch(self) -> None:
        """Sample what is under way until cancelled: without it the load knows only the moments at which it is read."""
        while True:
            await asyncio.sleep(STEP_S / _SAMPLES_PER_STEP)
            state = self._count_engine(NO_HEALTH)
            self._load.sample(state.num_active, state.num_queued)

    def close(self) -> None:
        """Send traces that are left; may wait for their receiver, a few seconds at most."""
        self._traces.close()

    async def _read_engine(self) -> EngineState:
        return self._count_engine(await self.engine.health())

    def _count_engine(self, health: Health) -> EngineState:
        return EngineState(health=health, counters=self.engine.counters(), num_under_way=self.engine.under_way.total())
