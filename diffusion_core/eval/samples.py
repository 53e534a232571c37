"""Several samples of each item, and the unbiased estimate of pass@k from them.

Source of the estimator: Chen et al., Evaluating Large Language Models Trained on Code (2021), equation 1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusion_core.errors import InvalidRequest
from diffusion_core.eval.tasks import Benchmark, EvalTask
from diffusion_core.requests import CompletionRequest, EditRequest, SamplingParams

PASS_AT = (1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledTask(EvalTask):
    """One of several samples of an item: the same question, drawn with a seed of its own."""

    task_id: str
    task: EvalTask
    sample: int
    sampling: SamplingParams

    @property
    def facts(self) -> dict[str, Any]:
        """The item's own facts, and which of its samples this is."""
        return {**self.task.facts, "problem": self.task.task_id, "sample": self.sample, "seed": self.sampling.seed}

    @property
    def obstacle(self) -> str:
        """As the item's."""
        return self.task.obstacle

    def make_request(self) -> CompletionRequest | EditRequest:
        """The item's request with this sample's seed."""
        return dataclasses.replace(self.task.make_request(), sampling=self.sampling)

    def read_answer(self, text: str) -> str:
        """As the item's."""
        return self.task.read_answer(text)

    def render_program(self, answer: str) -> str:
        """As the item's."""
        return self.task.render_program(answer)

    def render_reference(self) -> str | None:
        """As the item's."""
        return self.task.render_reference()

    def retry(self, answer: str, output: str) -> EvalTask | None:
        """The item's next try, drawn with this sample's seed."""
        again = self.task.retry(answer, output)
        if again is None:
            return None
        task_id = f"{again.task_id}#{self.sample}"
        return SampledTask(task_id=task_id, task=again, sample=self.sample, sampling=self.sampling)


def sample_benchmark(benchmark: Benchmark, num_samples: int, sampling: SamplingParams) -> Benchmark:
    """The benchmark with ``num_samples`` samples of each item; unchanged for one greedy sample.

    Raises:
        InvalidRequest: several samples at temperature 0, which would all be the same.
    """
    if num_samples == 1 and sampling.temperature == 0.0:
        return benchmark
    if sampling.temperature == 0.0:
        raise InvalidRequest(f"{num_samples} samples at temperature 0 are all the same: raise --temperature")
    tasks = tuple(
        SampledTask(
            task_id=task.task_id if num_samples == 1 else f"{task.task_id}#{number}",
            task=task,
            sample=number,
            sampling=dataclasses.replace(sampling, seed=derive_seed(sampling.seed, task.task_id, number)),
        )
        for task in benchmark.tasks
        for number in range(num_samples)
    )
    settings = {
        **benchmark.settings, "samples": num_samples, "temperature": sampling.temperature, "top_p": sampling.top_p,
        "sample_seed": sampling.seed,
    }  # fmt: skip
    return dataclasses.replace(benchmark, tasks=tasks, settings=settings)


def derive_seed(seed: int, task_id: str, number: int) -> int:
    """A seed for one sample that depends on nothing but these: not on the order of items, nor on what ran before."""
    digest = hashlib.sha256(f"{seed}/{task_id}/{number}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """The probability that one of ``k`` samples passes: ``1 - C(n - c, k) / C(n, k)``, in ``[0, 1]``."""
    assert 0 <= num_passed <= num_samples
    assert 1 <= k <= num_samples
    return 1.0 - math.comb(num_samples - num_passed, k) / math.comb(num_samples, k)


def estimate_pass_at(items: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The mean pass@k over problems, for the usual ``k`` up to the number of samples each problem has."""
    passes: dict[str, list[bool]] = {}
    for item in items:
        passes.setdefault(item.get("problem", item["task_id"]), []).append(bool(item["passed"]))
    if not passes:
        return {}
    fewest = min(len(samples) for samples in passes.values())
    return {
        str(k): round(math.fsum(pass_at_k(len(s), sum(s), k) for s in passes.values()) / len(passes), 4)
        for k in PASS_AT
        if k <= fewest
    }
