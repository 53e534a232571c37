"""Runs a forward for the jobs that share it, and takes each of them to what it wants next."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from traceback import extract_tb
from typing import Any

import torch

from diffusion_core.engine.job import Job
from diffusion_core.engine.turns import Batch
from diffusion_core.errors import EngineError, OutOfMemory, UnmaskError
from diffusion_core.sampling.asking import RowsWanted, Want
from diffusion_core.sampling.together import answer_readings, answer_rows

logger = logging.getLogger(__name__)


class JobFailures:
    """What became of jobs: complete (None) or failed."""

    def __init__(self) -> None:
        self.ended: list[tuple[Job, Exception | None]] = []

    def resume(self, job: Job, outcome: Any) -> None:
        """Take ``job`` on with the outcome of its want; whatever fails, fails that job only."""
        try:
            if job.resume(outcome):
                self.ended.append((job, None))
        except Exception as error:
            self.fail(job, error)

    def fail(self, job: Job, error: Exception) -> None:
        """End ``job`` with what a user is told of ``error``."""
        self.ended.append((job, explain(job, error)))


def explain(job: Job, error: Exception) -> Exception:
    """What a user is told; what is no fault of the request is logged, without any of its text."""
    if isinstance(error, UnmaskError):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return OutOfMemory("the request does not fit the memory: shorten the context or the answer")
    logger.error("request %s failed with %s", job.request.id, locate_fault(error))
    return EngineError(f"the engine failed ({type(error).__name__}); its log has the details")


def locate_fault(error: Exception) -> str:
    """What happened where, and no more: messages of foreign errors may quote what was asked."""
    where = " < ".join(f"{place.filename}:{place.lineno}" for place in reversed(extract_tb(error.__traceback__)[-6:]))
    return f"{type(error).__name__} at {where}"


def run_forward(batch: Batch) -> list[tuple[Job, Exception | None]]:
    """One forward, and the readings that follow it; the jobs that ended, with their errors (None: complete)."""
    found = JobFailures()
    jobs = [job for job, _ in batch]
    for job, outcome in _answer_rows(batch, found):
        found.resume(job, outcome)
    while reading := [job for job in jobs if job.want is not None and not isinstance(job.want, RowsWanted)]:
        for job, outcome in _answer_readings(reading, found):
            found.resume(job, outcome)
    return found.ended


def _answer_rows(batch: Batch, found: JobFailures) -> Iterable[tuple[Job, Any]]:
    try:
        outcomes = answer_rows([want for _, want in batch])
    except Exception as error:
        if len(batch) == 1:
            found.fail(batch[0][0], error)
            batch[0][0].want = None
            return []
        # One of them may be at fault, or all together too much: each by itself.
        return [pair for part in batch for pair in _answer_rows([part], found)]
    return zip((job for job, _ in batch), outcomes, strict=True)


def _answer_readings(jobs: Sequence[Job], found: JobFailures) -> Iterable[tuple[Job, Any]]:
    wants: list[Want] = [job.want for job in jobs if job.want is not None]
    try:
        outcomes = answer_readings(wants)
    except Exception as error:
        if len(jobs) == 1:
            found.fail(jobs[0], error)
            jobs[0].want = None
            return []
        return [pair for job in jobs for pair in _answer_readings([job], found)]
    return zip(jobs, outcomes, strict=True)
