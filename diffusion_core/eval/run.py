"""Runs a benchmark: asks the engine item by item, scores the answers in the sandbox, keeps every fact at once.

Requests go one after the other, so that times mean something; the sandbox runs an answer while the engine works on
the next one.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffusion_core.errors import DeadlineExceeded, EngineError, InvalidRequest, UnmaskError
from diffusion_core.eval.ask import ask
from diffusion_core.eval.sandbox import Limits, Outcome, Verdict, run_program
from diffusion_core.eval.store import ResultStore
from diffusion_core.eval.tasks import Benchmark, EvalTask
from diffusion_core.eval.tries import describe_failure, known_tasks, next_tries
from diffusion_core.requests import EngineClient, Result


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How answers are scored: ``workers`` sandboxes at a time, with ``python`` as interpreter."""

    workers: int = 1
    limits: Limits = field(default_factory=Limits)
    python: str = sys.executable


def describe_conditions(options: RunOptions) -> dict[str, Any]:
    """The conditions under which verdicts are comparable."""
    limits = options.limits
    return {"timeout_s": limits.wall_s, "memory_bytes": limits.memory_bytes, "python": options.python}


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands, for a display."""

    done: int
    total: int
    passed: int
    unsupported: int


Report = Callable[[Progress], None]


async def run_benchmark(
    client: EngineClient, benchmark: Benchmark, store: ResultStore, options: RunOptions, report: Report
) -> None:
    """Answer and score every task that ``store`` does not know yet.

    Raises:
        UnmaskError: the engine is gone or failed; what was found is in the store.
    """
    run = _Run(client, benchmark, store, options, report)
    await run.check_references()
    tasks: Sequence[EvalTask] = benchmark.tasks
    for _ in range(benchmark.num_tries):
        await _work_through(run, tasks)
        tasks = next_tries(tasks, store)


async def _work_through(run: _Run, tasks: Sequence[EvalTask]) -> None:
    scoring: set[asyncio.Task[None]] = set()
    try:
        for task in tasks:
            await run.backlog.acquire()
            run.raise_failure()
            if await run.answer(task):
                scoring.add(asyncio.create_task(run.score(task)))
            else:
                run.backlog.release()
    except UnmaskError:
        await asyncio.gather(*scoring)  # answers that exist are scored, whatever became of the engine
        raise
    except BaseException:
        for job in scoring:
            job.cancel()
        await asyncio.gather(*scoring, return_exceptions=True)
        raise
    await asyncio.gather(*scoring)
    run.raise_failure()


class _Run:
    """One run: the parts that its steps share."""

    def __init__(
        self, client: EngineClient, benchmark: Benchmark, store: ResultStore, options: RunOptions, report: Report
    ) -> None:
        self.client = client
        self.benchmark = benchmark
        self.store = store
        self.options = options
        self.report = report
        # As many answers may wait for a sandbox as are being run, plus the one being made.
        self.backlog = asyncio.Semaphore(2 * options.workers + 1)
        self.sandboxes = asyncio.Semaphore(options.workers)
        self.failure: UnmaskError | None = None

    async def check_references(self) -> None:
        """Find out which items this environment supports, before any timing begins."""
        missing = {
            key: program
            for task in self.benchmark.tasks
            if not task.obstacle
            and (program := task.render_reference()) is not None
            and (key := reference_key(program)) not in self.store.references
        }
        checks = [asyncio.create_task(self._check_reference(key, program)) for key, program in missing.items()]
        try:
            await asyncio.gather(*checks)
        finally:
            for check in checks:
                check.cancel()
            await asyncio.gather(*checks, return_exceptions=True)

    async def _check_reference(self, key: str, program: str) -> None:
        verdict = await self._execute(program)
        self.store.add("references", key, {"outcome": verdict.outcome.value, "output": _last_line(verdict.output)})

    async def answer(self, task: EvalTask) -> bool:
        """Ask the engine unless it has answered already; False when there is nothing to score."""
        self._tell()
        if not is_supported(task, self.store) or task.task_id in self.store.verdicts:
            return False
        if task.task_id in self.store.answers:
            return True
        try:
            result = await ask(self.client, task.make_request)
        except (InvalidRequest, DeadlineExceeded) as error:
            fields = {"completion": "", "nfe": 0, "tokens": 0, "ms": 0.0, "error": f"{error.code}: {error}"}
        else:
            fields = answer_fields(task, result)
            self._check_same_model(fields)
        self.store.add("answers", task.task_id, {"task_id": task.task_id, **fields, **task.facts})
        return True

    def _check_same_model(self, fields: dict[str, Any]) -> None:
        names = {answer["model"] for answer in self.store.answers.values() if answer.get("model")}
        if names and fields["model"] not in names:
            raise EngineError(
                f"the engine answers with {fields['model']}, earlier results came from {', '.join(sorted(names))}: "
                "name the model with --model, or begin anew with --overwrite"
            )

    async def score(self, task: EvalTask) -> None:
        """Run an answer's program and keep the verdict; a failure of the sandbox ends the run."""
        try:
            answer = self.store.answers[task.task_id]
            if "error" in answer:
                fields: dict[str, Any] = {"passed": False, "outcome": "no answer", "isolation": None}
            else:
                verdict = await self._execute(task.render_program(answer["completion"]))
                fields = {
                    "passed": verdict.passed or _ends_like_reference(task, verdict, self.store),
                    "outcome": verdict.outcome.value,
                    "detail": "" if verdict.passed else _last_line(verdict.output),
                    "isolation": [verdict.isolation.network, verdict.isolation.processes, verdict.isolation.files],
                }
                if self.benchmark.num_tries > 1 and not fields["passed"]:
                    fields["output"] = describe_failure(verdict, self.options.limits)  # the next try is shown it
            self.store.add("verdicts", task.task_id, fields)
            self._tell()
        except UnmaskError as error:
            self.failure = error
        finally:
            self.backlog.release()

    async def _execute(self, program: str) -> Verdict:
        async with self.sandboxes:
            return await run_program(program, self.options.limits, python=self.options.python)

    def raise_failure(self) -> None:
        """Raise what made scoring impossible."""
        if self.failure is not None:
            raise self.failure

    def _tell(self) -> None:
        verdicts = self.store.verdicts.values()
        known = known_tasks(self.benchmark, self.store)
        unsupported = sum(not is_supported(task, self.store) for task in self.benchmark.tasks)
        passed = sum(bool(verdict["passed"]) for verdict in verdicts)
        self.report(Progress(len(verdicts) + unsupported, len(known), passed, unsupported))


def answer_fields(task: EvalTask, result: Result) -> dict[str, Any]:
    """What is kept of a result."""
    timings = result.timings
    return {
        "completion": task.read_answer(result.text),
        "nfe": result.num_forwards,
        "tokens": result.num_tokens,
        "ms": round(timings.total_ms, 3),
        "prefill_ms": round(timings.prefill_ms, 3),
        "denoise_ms": round(timings.denoise_ms, 3),
        "prompt_tokens": result.num_prompt_tokens,
        "reused_tokens": result.num_reused_tokens,
        "finish_reason": result.finish_reason.value,
        "model": result.model,
        "policy": result.policy,
    }


def reference_key(program: str) -> str:
    """The name under which a reference's verdict is kept; the kinds of one item share it."""
    return hashlib.sha256(program.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_supported(task: EvalTask, store: ResultStore) -> bool:
    """Whether the item can be run here and its known right answer passes, as far as there is one."""
    if task.obstacle:
        return False
    program = task.render_reference()
    if program is None:
        return True
    outcome = store.references[reference_key(program)]["outcome"]
    return outcome in {Outcome.PASSED, Outcome.EXITED_EARLY}


def _ends_like_reference(task: EvalTask, verdict: Verdict, store: ResultStore) -> bool:
    """Tests that end the interpreter themselves (``unittest.main()``) never reach the program's last line."""
    program = task.render_reference()
    if program is None or verdict.outcome is not Outcome.EXITED_EARLY:
        return False
    return bool(store.references[reference_key(program)]["outcome"] == Outcome.EXITED_EARLY)


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1][:200] if lines else ""
