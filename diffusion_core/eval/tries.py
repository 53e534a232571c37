"""Further tries at items that failed, made from what is known so far: the same after a stop as without one."""

from __future__ import annotations

from collections.abc import Iterable

from diffusion_core.eval.sandbox import Limits, Outcome, Verdict
from diffusion_core.eval.store import ResultStore
from diffusion_core.eval.tasks import Benchmark, EvalTask


def next_tries(tasks: Iterable[EvalTask], store: ResultStore) -> list[EvalTask]:
    """The tries that follow failed ones, as far as the failures are known."""
    tries = []
    for task in tasks:
        verdict = store.verdicts.get(task.task_id)
        if verdict is None or verdict["passed"] or "output" not in verdict:
            continue
        again = task.retry(store.answers[task.task_id]["completion"], verdict["output"])
        if again is not None:
            tries.append(again)
    return tries


def known_tasks(benchmark: Benchmark, store: ResultStore) -> list[EvalTask]:
    """The benchmark's tasks, and the further tries that are known by now."""
    tasks: list[EvalTask] = list(benchmark.tasks)
    latest = tasks
    for _ in range(1, benchmark.num_tries):
        latest = next_tries(latest, store)
        tasks = tasks + latest
    return tasks


def describe_failure(verdict: Verdict, limits: Limits) -> str:
    """What a programmer would see of a failed run."""
    if verdict.outcome is Outcome.TIMEOUT:
        return f"{verdict.output}\nThe tests were stopped after {limits.wall_s:g} seconds.".strip()
    return verdict.output.strip() or f"The tests ended with: {verdict.outcome.value}."
