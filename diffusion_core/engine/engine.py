"""The engine: one thread that runs every forward, and nothing else that touches a model.

Between any two forwards it looks at cancels, deadlines and new requests. Ghost text goes before edits, edits before
warm-ups; requests of one kind take turns, a forward each.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from pathlib import Path
from statistics import quantiles

import torch

from diffusion_core.config import EngineConfig
from diffusion_core.engine.calibration import Calibration
from diffusion_core.engine.cost_file import CostFile
from diffusion_core.engine.decoding_reports import report_decoding
from diffusion_core.engine.device import choose_device, choose_precision, resident_bytes
from diffusion_core.engine.job import FrameCallback, Job
from diffusion_core.engine.models import LoadedModel, ModelHost
from diffusion_core.errors import Closed, EngineError, OutOfMemory, Overloaded, UnmaskError
from diffusion_core.requests import CompletionRequest, EditRequest, FinishReason, Health, WarmRequest
from diffusion_core.version import package_version

logger = logging.getLogger(__name__)

# Latencies that `unmask status` speaks of.
_NUM_LATENCIES = 200


class Engine:
    """Owns the models and the thread. All methods may be called from any thread.

    What forwards cost is remembered in ``costs_file`` (None: measured at every start).

    Raises:
        ConfigError: the configured device or dtype is not to be had here.
    """

    def __init__(self, config: EngineConfig, *, costs_file: Path | None = None) -> None:
        self._config = config
        self._device = choose_device(config)
        self._precision = choose_precision(config, self._device)
        self._wake = threading.Condition()
        self._arrived: deque[Job] = deque()
        self._active: list[Job] = []
        self._is_closed = False
        self._hosts = ModelHost(config, self._device, self._precision, self._notify)
        self._calibration = Calibration(config, CostFile(costs_file) if costs_file is not None else None)
        self._num_threads = 0
        self._latencies: deque[float] = deque(maxlen=_NUM_LATENCIES)
        self._num_completed = self._num_forwards = 0
        self._born = time.perf_counter()
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to load the completion model and to serve; returns at once."""
        self._calibration.set_threads()
        self._hosts.load(self._config.model)
        self._thread.start()

    def close(self) -> None:
        """Stop after the running forward; every unanswered request fails with :class:`Closed`."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def submit(
        self, request: CompletionRequest | EditRequest | WarmRequest, on_frame: FrameCallback | None = None
    ) -> Job:
        """Queue a request. ``on_frame`` is called by the engine's thread and must not block.

        Raises:
            Overloaded: too many requests are waiting.
            Closed: the engine is shutting down.
            InvalidRequest: the request names a model that this engine does not serve.
        """
        if isinstance(request, WarmRequest):
            inner = request.completion or request.edit
            assert inner is not None
            job = Job(inner, is_warm_up=True)
        else:
            job = Job(request, on_frame=on_frame)
        job.loading = self._hosts.load(self._hosts.model_for(job.task, job.request.model))
        with self._wake:
            if self._is_closed or not self._thread.is_alive():
                raise Closed("the engine is shut down")
            if len(self._arrived) + len(self._active) >= self._config.max_queued:
                raise Overloaded(f"{self._config.max_queued} requests are waiting already: try again shortly")
            self._arrived.append(job)
            self._wake.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a request; its future resolves after at most one more forward."""
        job.cancel()
        self._notify()

    def loaded_models(self) -> list[LoadedModel]:
        """All models that are ready: to be looked at, and to be used only when the engine is closed."""
        return self._hosts.loaded()

    def health(self) -> Health:
        """What the engine is and does."""
        models = self._hosts.statuses()
        main = models[0].state
        latencies = list(self._latencies)
        # Twentieths: the 10th is the median, the 19th the 95th percentile.
        cuts = quantiles(latencies, n=20) if len(latencies) > 1 else [latencies[0] if latencies else 0.0] * 19
        return Health(
            status={"ready": "ready", "loading": "loading", "not_loaded": "loading"}.get(main, "failed"),
            version=package_version(),
            device=str(self._device),
            dtype=str(self._precision),
            models=models,
            memory_bytes=resident_bytes(),
            num_active=len(self._active) + len(self._arrived),
            num_completed=self._num_completed,
            num_forwards=self._num_forwards,
            uptime_ms=(time.perf_counter() - self._born) * 1000,
            latency_p50_ms=cuts[9],
            latency_p95_ms=cuts[18],
            notices=self._hosts.notices,
            decoding=report_decoding(self._hosts.loaded(), self._num_threads),
        )

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _loop(self) -> None:
        turn = 0
        # The number of threads belongs to the thread that sets it.
        self._calibration.set_threads()
        while self._wait_for_work():
            self._end_lost()
            ready = [job for job in self._active if job.loading.done()]
            self._num_threads = torch.get_num_threads()
            if not ready:
                self._calibration.advance()
                continue
            first = min(job.priority for job in ready)
            same = [job for job in ready if job.priority == first]
            turn += 1
            self._advance(same[turn % len(same)])
        for job in [*self._active, *self._arrived]:
            job.fail(Closed("the engine is shutting down"))

    def _wait_for_work(self) -> bool:
        """Sleep until a request arrives, a model is loaded, or something ends; False when the engine closes."""
        with self._wake:
            while not self._is_closed and not self._arrived and not self._has_work():
                # While a model loads, deadlines pass and callers leave: look now and then.
                self._wake.wait(timeout=0.05 if self._active else None)
                self._end_lost()
            self._active += self._arrived
            self._arrived.clear()
            return not self._is_closed

    def _has_work(self) -> bool:
        """Whether a request can go on, or a model is to be measured."""
        for model in self._hosts.loaded():
            self._calibration.meet(model)
        return self._calibration.has_work or any(job.loading.done() for job in self._active)

    def _end_lost(self) -> None:
        """End requests whose caller left or whose deadline passed."""
        for job in list(self._active):
            if job.is_cancelled:
                self._end(job, FinishReason.CANCELLED)
            elif job.is_late():
                self._end(job, FinishReason.DEADLINE)

    def _end(self, job: Job, reason: FinishReason | None = None) -> None:
        self._active.remove(job)
        job.finish(reason)
        if reason is None and not job.is_warm_up:
            self._num_completed += 1
            self._latencies.append(job.future.result().timings.total_ms)

    def _advance(self, job: Job) -> None:
        """One forward of one request; whatever fails, fails that request only."""
        try:
            if job.model is None:
                self._begin(job)
            is_complete = job.advance()
            self._num_forwards += 1
        except UnmaskError as error:
            self._active.remove(job)
            job.fail(error)
        except (MemoryError, torch.OutOfMemoryError):
            self._active.remove(job)
            job.fail(OutOfMemory("the request does not fit the memory: shorten the context or the answer"))
        except Exception as error:
            logger.exception("request %s failed", job.request.id)
            self._active.remove(job)
            job.fail(EngineError(f"the engine failed ({type(error).__name__}); its log has the details"))
        else:
            if is_complete:
                self._end(job)

    def _begin(self, job: Job) -> None:
        model = job.loading.result()
        self._calibration.meet(model)
        if not job.is_warm_up:
            self._end_warm_ups(job.task, model)
        job.begin(model, self._answer_budget(job, model), self._hosts.notice_for(job.task))

    def _end_warm_ups(self, task: str, model: LoadedModel) -> None:
        """What was expected has come: warm-ups hand over what they have computed, so that it is not computed twice."""
        for other in [job for job in self._active if job.is_warm_up and job.model is model and job.task == task]:
            self._end(other)

    def _answer_budget(self, job: Job, model: LoadedModel) -> int:
        """Tokens the answer may take: what the request says, within the configured limit."""
        request, config = job.request, self._config
        if not isinstance(request, EditRequest):
            return min(request.max_tokens or config.max_completion_tokens, config.max_context_tokens // 2)
        # An edit may grow, but hardly beyond twice its selection and a screenful.
        expected = 2 * len(model.encoder.encode_text(request.selection)) + 256
        return min(request.max_tokens or expected, config.max_edit_tokens)
