"""The engine: one thread that runs every forward, and nothing else that touches a model.

Between any two forwards it looks at cancels, deadlines and new requests, lets those that wait begin (``waiting.py``),
and chooses whose rows ride in the next forward (``turns.py``).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from statistics import quantiles

import torch

from diffusion_core.callers import OWNER, Caller
from diffusion_core.chat import ChatRequest
from diffusion_core.config import EngineConfig
from diffusion_core.engine.calibration import Calibration
from diffusion_core.engine.cost_file import CostFile
from diffusion_core.engine.counters import EngineCounters, Tally
from diffusion_core.engine.counting import count
from diffusion_core.engine.decodable import answer_budget
from diffusion_core.engine.decoding_reports import report_decoding
from diffusion_core.engine.device import choose_device, choose_precision, resident_bytes
from diffusion_core.engine.forwards import explain, locate_fault, run_forward
from diffusion_core.engine.job import FrameCallback, Job
from diffusion_core.engine.loaded_model import LoadedModel
from diffusion_core.engine.memory import available_bytes
from diffusion_core.engine.models import ModelHost
from diffusion_core.engine.tracer import TraceCallback
from diffusion_core.engine.turns import Turns, Usage, fair_company, is_long_prompt
from diffusion_core.engine.waiting import PlaceTimes, WaitingLine
from diffusion_core.errors import Closed, Overloaded
from diffusion_core.requests import CompletionRequest, EditRequest, FinishReason, Health, WarmRequest
from diffusion_core.version import package_version

logger = logging.getLogger(__name__)

# Latencies that `unmask status` speaks of.
_NUM_LATENCIES = 200

# Seconds to wait behind a fault of the engine itself: one that comes at once again must not take a whole core.
_RECOVERY_S = 0.05

# What an engine is by the state of its completion model; any other state is a failure.
_STATUSES = {"ready": "ready", "loading": "loading", "not_loaded": "loading"}


class Engine:
    """Owns the models and the thread. All methods may be called from any thread.

    What forwards cost is remembered in ``costs_file`` (None: measured at every start).

    Raises:
        ConfigError: the configured device or dtype is not to be had here.
    """

    def __init__(self, config: EngineConfig, *, costs_file: Path | None = None) -> None:
        self._config = config
        self._device = choose_device(config)
        choose_precision(config, self._device)  # what is configured must be possible
        self._wake = threading.Condition()
        self._times = PlaceTimes()
        self._line = WaitingLine(
            self._times,
            max_queued=config.max_queued,
            max_active=config.max_active,
            max_active_per_user=config.max_active_per_user,
        )
        self._active: list[Job] = []
        self._usage = Usage()
        self._turns = Turns(self._usage)
        self._tally = Tally()
        self._is_closed = False
        self._hosts = ModelHost(config, self._device, self._notify)
        self._calibration = Calibration(config, CostFile(costs_file) if costs_file is not None else None)
        self._num_threads = 0
        self._latencies: deque[float] = deque(maxlen=_NUM_LATENCIES)
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
        self._hosts.close()
        if self._thread.is_alive():
            self._thread.join()

    def submit(
        self,
        request: CompletionRequest | EditRequest | ChatRequest | WarmRequest,
        on_frame: FrameCallback | None = None,
        *,
        on_trace: TraceCallback | None = None,
        caller: Caller = OWNER,
    ) -> Job:
        """Queue a request. ``on_frame`` and ``on_trace`` are called by the engine's thread and must not block.

        Raises:
            Overloaded: too many requests are waiting, or so many of this user that the deadline is certain to pass.
            Closed: the engine is shutting down.
            InvalidRequest: the request names a model that this engine does not serve.
        """
        if isinstance(request, WarmRequest):
            inner = request.completion or request.edit
            assert inner is not None
            job = Job(inner, is_warm_up=True, caller=caller)
        else:
            job = Job(request, on_frame=on_frame, on_trace=on_trace, caller=caller)
        job.loading = self._hosts.load(self._hosts.model_for(job.task, job.request.model))
        with self._wake:
            if self._is_closed or not self._thread.is_alive():
                raise Closed("the engine is shut down")
            try:
                given_way = self._line.add(job, self._active)
            except Overloaded:
                self._tally.num_refused += 1
                raise
            self._wake.notify_all()
        if given_way is not None:
            self._tally.num_refused += 1
            given_way.fail(
                self._line.overloaded("others have fewer requests waiting, and this one gave way: try again")
            )
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a request; its future resolves after at most one more forward."""
        job.cancel()
        self._notify()

    def reload(self, name: str) -> Future[LoadedModel]:
        """Load a served model again beside itself; see :meth:`ModelHost.reload`."""
        return self._hosts.reload(name)

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
            status="failed" if self._has_ended else _STATUSES.get(main, "failed"),
            version=package_version(),
            device=str(self._device),
            dtype=str(self._hosts.precision_of(self._config.model)),
            models=models,
            memory_bytes=resident_bytes(),
            num_active=len(self._active) + len(self._line),
            num_completed=self._tally.num_completed,
            num_forwards=self._tally.num_forwards,
            uptime_ms=(time.perf_counter() - self._born) * 1000,
            latency_p50_ms=cuts[9],
            latency_p95_ms=cuts[18],
            notices=self._hosts.notices,
            decoding=report_decoding(self._hosts.loaded(), self._num_threads),
        )

    @property
    def _has_ended(self) -> bool:
        """Whether the thread has run and runs no more."""
        return self._thread.ident is not None and not self._thread.is_alive()

    def counters(self) -> EngineCounters:
        """What the engine has done and is doing; cheap, and from any thread."""
        with self._wake:
            waiting, active = self._line.jobs, tuple(self._active)
        return count(self._tally, waiting, active, [model.prefix_cache for model in self._hosts.loaded()])

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def _loop(self) -> None:
        try:
            # The number of threads belongs to the thread that sets it.
            self._calibration.set_threads()
            while self._take_turn():
                pass
        finally:  # however it ends, nobody waits for ever
            with self._wake:
                self._is_closed = True
                lost = [*self._active, *self._line.clear()]
                self._active.clear()
            for job in lost:
                with suppress(Exception):
                    job.fail(Closed("the engine is shutting down"))

    def _take_turn(self) -> bool:
        """Wait for work and do a piece of it; False when the engine closes.

        What fails here fails whoever is under way, and the thread goes on.
        """
        try:
            if not self._wait_for_work():
                return False
            self._end_lost()
            self._begin_waiting()
            self._num_threads = torch.get_num_threads()
            if self._active:
                self._forward()
            else:
                self._calibration.advance()
        except Exception as error:
            self._recover(error)
        return True

    def _recover(self, error: Exception) -> None:
        """The last resort: end what is under way, or else what waits, so that the same fault does not come for ever."""
        with self._wake:
            concerned = [*self._active] or [*self._line.jobs]
        if not concerned:
            logger.error("the engine failed while nobody waited: %s", locate_fault(error))
        for job in concerned:
            with suppress(Exception):
                self._end(job, error=explain(job, error))
        with self._wake:
            if not self._is_closed:
                self._wake.wait(timeout=_RECOVERY_S)

    def _wait_for_work(self) -> bool:
        """Sleep until a request arrives, a model is loaded, or something ends; False when the engine closes."""
        with self._wake:
            while not self._is_closed and not self._active and not self._has_work():
                # While a model loads, deadlines pass and callers leave: look now and then.
                self._wake.wait(timeout=0.05 if len(self._line) else None)
                self._end_lost()
            return not self._is_closed

    def _has_work(self) -> bool:
        """Whether a request can begin, or a model is to be measured."""
        for model in self._hosts.loaded():
            self._calibration.meet(model)
        return self._calibration.has_work or any(job.loading.done() for job in self._line.jobs)

    def _end_lost(self) -> None:
        """End requests whose caller left or whose deadline passed."""
        for job in [*self._active, *self._line.jobs]:
            if job.is_cancelled:
                self._end(job, FinishReason.CANCELLED)
            elif job.is_late():
                self._end(job, FinishReason.DEADLINE)

    def _take_out(self, job: Job) -> bool:
        """Take a job from wherever it is; False: it has given way to another one meanwhile, and was answered."""
        with self._wake:
            if job in self._active:
                self._active.remove(job)
                return True
            return self._line.remove(job)

    def _end(self, job: Job, reason: FinishReason | None = None, error: Exception | None = None) -> None:
        """Resolve a job: complete, interrupted, or failed."""
        if not self._take_out(job):
            return
        tally = self._tally
        tally.num_prefilled_tokens += job.num_prefilled
        tally.num_answer_tokens += job.num_tokens
        if not job.is_warm_up:
            tally.num_failed += error is not None
            tally.num_cancelled += reason is FinishReason.CANCELLED
            tally.num_late += reason is FinishReason.DEADLINE
            is_complete = reason is None and error is None
            tally.num_completed += is_complete
            if is_complete:
                self._times.add(job.held_s)
        if error is not None:
            job.fail(error)
            return
        try:
            job.finish(reason)
        except Exception as failure:  # it is out of every list: nobody else would answer it
            job.fail(explain(job, failure))
            return
        if reason is None and not job.is_warm_up:
            self._latencies.append(job.future.result().timings.total_ms)

    def _forward(self) -> None:
        """One forward, for all whose rows ride in it."""
        batch = self._turns.choose(self._active)
        for job in self._active:
            assert job.sequence is not None
            if not is_long_prompt(job):
                job.sequence.company = fair_company(job, self._active)
        self._tally.count_forward(len(batch), sum(len(want.tokens) for _, want in batch))
        for job, error in run_forward(batch):
            self._end(job, error=error)

    def _begin_waiting(self) -> None:
        """Let those begin whose turn it is, as long as there are places and memory."""
        while True:
            with self._wake:
                job = self._line.next_to_begin(self._active, self._usage.of)
            if job is None:
                return
            try:
                model = job.loading.result()
                self._calibration.meet(model)
                job.prepare(model, answer_budget(job.request, model, self._config))
                if not self._has_memory(job):
                    return
                self._begin(job, model)
            except Exception as error:
                self._end(job, error=explain(job, error))

    def _has_memory(self, job: Job) -> bool:
        """Whether keys and values of ``job`` fit beside all that is under way; for an answer warm-ups end first."""
        while not self._fits(job):
            guesses = [] if job.is_warm_up else [other for other in self._active if other.is_warm_up]
            if not guesses:
                return False
            # The user's own first: what it has computed is probably the beginning of this very request.
            self._end(min(guesses, key=lambda other: other.caller.user != job.caller.user))
        return True

    def _fits(self, job: Job) -> bool:
        """Whether there is memory for ``job`` now. A job that is alone may always try."""
        if not self._active:
            return True
        held = sum(other.cache_bytes for other in self._active)
        if held + job.cache_bytes > self._config.active_cache_bytes:
            return False
        return job.cache_bytes <= available_bytes(self._config, self._device)

    def _begin(self, job: Job, model: LoadedModel) -> None:
        if not job.is_warm_up:
            self._end_warm_ups(job, model)
        with self._wake:
            if not self._line.remove(job):
                return  # it has given way meanwhile
            self._active.append(job)
        job.begin(model, self._hosts.notice_for(job.task))
        self._tally.count_begin(job.num_reused)
        if job.resume():
            self._end(job)

    def _end_warm_ups(self, job: Job, model: LoadedModel) -> None:
        """What was expected has come: warm-ups hand over what they have computed, so that it is not computed twice."""
        user = job.caller.user
        for other in list(self._active):
            if other.is_warm_up and other.model is model and other.task == job.task and other.caller.user == user:
                self._end(other)
