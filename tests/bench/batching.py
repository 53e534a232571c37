"""Requests that share forwards against the same ones one after another, and a user beside one with many requests.

    python -m bench.batching --data FILE.jsonl.gz --at-once 1 2 4 8 16 --each 4 --repeats 3 --out OUT.json
    python -m bench.batching --data FILE.jsonl.gz --fairness --repeats 5
    python -m bench.batching --tiny --at-once 8 --fairness

One engine in this process, and nothing kept between runs: each has a space of its own. ``--typed`` computes the prompts
before the clock starts, as the language server's warm-ups do while somebody types. At once: so many users, each of whom
sends the next request when the last one is answered, ``--each`` of them. The same requests one after another alternate
with that; the ratio is the median of theirs. All answers to a prompt must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from bench.typist import quantile
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.callers import OWNER, Caller
from diffusion_core.config import DEFAULT_MODEL, EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.eval.dataset import Dataset, read_dataset
from diffusion_core.requests import CompletionRequest, Result, WarmRequest, new_request_id

NUM_WAITING, NUM_NEWCOMERS = 50, 6


def read_requests(path: Path | None, number: int, max_tokens: int) -> list[CompletionRequest]:
    """Completions from a file of infilling tasks, from all over it; without one from this folder's sources."""
    if path is not None:
        dataset: Dataset = read_dataset(path)
        step = max(1, len(dataset.rows) // number)
        pairs = [(row.text("prompt"), row.text("suffix")) for row in dataset.rows[::step]]
    else:
        texts = [source.read_text(encoding="utf-8") for source in sorted(Path(__file__).parent.glob("*.py"))]
        pairs = [(text[: len(text) // 2][-300:], text[len(text) // 2 :][:200]) for text in texts]
    return [
        CompletionRequest(prefix=before, suffix=behind, language="python", max_tokens=max_tokens)
        for before, behind in pairs[:number]
    ]


class Bench:
    """An engine, and what its answers were."""

    def __init__(self, engine: Engine, *, is_typed: bool) -> None:
        self._engine, self._is_typed = engine, is_typed
        self._runs = count()
        self.texts: dict[str, str] = {}
        self.num_different = 0

    def callers(self, number: int, users: int) -> list[Caller]:
        """Callers of a run, by turns of ``users`` users, in a space that no run had before."""
        run = next(self._runs)
        return [replace(OWNER, user=f"user {n % users}", space=f"run {run}") for n in range(number)]

    def compute_prompts(self, requests: Sequence[CompletionRequest], callers: Sequence[Caller]) -> None:
        """What warm-ups do before the request comes, if asked for."""
        if self._is_typed:
            for request, caller in zip(requests, callers, strict=True):
                self._engine.submit(WarmRequest(completion=request), caller=caller).future.result()

    def one_by_one(self, requests: Sequence[CompletionRequest]) -> tuple[float, list[Result]]:
        """Seconds, and the results."""
        callers = self.callers(len(requests), 1)
        self.compute_prompts(requests, callers)
        begin = time.perf_counter()
        results = [self._ask(request, caller).result() for request, caller in zip(requests, callers, strict=True)]
        return time.perf_counter() - begin, self._check(requests, results)

    def at_once(self, requests: Sequence[CompletionRequest], users: int) -> tuple[float, list[Result]]:
        """Seconds, and the results, in any order of time: each of ``users`` asks when it has its last answer."""
        callers = self.callers(len(requests), users)
        self.compute_prompts(requests, callers)

        def ask_in_turn(user: int) -> list[Result]:
            own = zip(requests[user::users], callers[user::users], strict=True)
            return [self._ask(request, caller).result() for request, caller in own]

        with ThreadPoolExecutor(users) as pool:
            begin = time.perf_counter()
            answered = list(pool.map(ask_in_turn, range(users)))
            seconds = time.perf_counter() - begin
        return seconds, self._check(requests, [answered[n % users][n // users] for n in range(len(requests))])

    def beside_many(
        self, request: CompletionRequest, others: Sequence[CompletionRequest], wait_s: float
    ) -> tuple[float, float]:
        """Milliseconds of a request without others, and of the same beside many of another user."""
        alone = self._ask_of(request, self._newcomer(request))  # another user: this one has used nothing of late
        newcomer = self._newcomer(request)
        busy = [
            self._engine.submit(replace(others[n % len(others)], id=new_request_id()), caller=caller)
            for n, caller in enumerate(self.callers(NUM_WAITING, 1))
        ]
        time.sleep(wait_s)
        beside = self._ask_of(request, newcomer)
        assert sum(not job.future.done() for job in busy) >= NUM_WAITING // 2, "the others ended too early"
        for job in busy:
            self._engine.cancel(job)
        wait([job.future for job in busy])
        return alone, beside

    def _newcomer(self, request: CompletionRequest) -> Caller:
        caller = self.callers(1, 1)[0]
        newcomer = replace(caller, user=f"newcomer of {caller.space}")
        self.compute_prompts([request], [newcomer])
        return newcomer

    def _ask_of(self, request: CompletionRequest, caller: Caller) -> float:
        result = self._ask(request, caller).result()
        self._check([request], [result])
        return float(result.timings.total_ms)

    def _ask(self, request: CompletionRequest, caller: Caller) -> Any:
        return self._engine.submit(replace(request, id=new_request_id()), caller=caller).future

    def _check(self, requests: Sequence[CompletionRequest], results: list[Result]) -> list[Result]:
        for request, result in zip(requests, results, strict=True):
            key = f"{request.prefix}\0{request.suffix}"
            self.num_different += self.texts.setdefault(key, result.text) != result.text
        return results


def compare(bench: Bench, requests: Sequence[CompletionRequest], users: int, repeats: int) -> dict[str, Any]:
    """The figures of one number at once."""
    ratios, seconds, results = [], [], []
    for number in range(repeats):
        times = {}
        for way in ("one_by_one", "at_once") if number % 2 == 0 else ("at_once", "one_by_one"):
            if way == "one_by_one":
                times[way], _ = bench.one_by_one(requests)
            else:
                times[way], answered = bench.at_once(requests, users)
                results += answered
        ratios.append(times["one_by_one"] / times["at_once"])
        seconds.append(times)
    together = median(times["at_once"] for times in seconds)
    latencies = [result.timings.total_ms for result in results]
    return {
        "at_once": users,
        "requests": len(requests),
        "times_faster": round(median(ratios), 2),
        "all_ratios": [round(ratio, 2) for ratio in ratios],
        "one_by_one_s": round(median(times["one_by_one"] for times in seconds), 2),
        "at_once_s": round(together, 2),
        "requests_per_s": round(len(requests) / together, 2),
        "tokens_per_s": round(sum(result.num_tokens for result in results) / repeats / together, 1),
        "p50_ms": round(quantile(latencies, 0.5)),
        "p95_ms": round(quantile(latencies, 0.95)),
    }


def compare_newcomers(
    bench: Bench, requests: Sequence[CompletionRequest], wait_s: float, repeats: int
) -> dict[str, Any]:
    """What a newcomer's requests take beside another user's many, over what they take alone."""
    newcomers = requests[:NUM_NEWCOMERS]
    pairs = {
        number: [bench.beside_many(request, requests[NUM_NEWCOMERS:], wait_s + 0.07 * n) for n in range(repeats)]
        for number, request in enumerate(newcomers)
    }
    alone = [median(alone for alone, _ in each) for each in pairs.values()]
    beside = [median(beside for _, beside in each) for each in pairs.values()]
    ratios = [after / before for before, after in zip(alone, beside, strict=True)]
    return {
        "alone_ms": [round(ms) for ms in alone],
        f"beside_{NUM_WAITING}_ms": [round(ms) for ms in beside],
        "ratios": [round(ratio, 2) for ratio in ratios],
        "median_ratio": round(median(ratios), 2),
        "ratio_of_sums": round(sum(beside) / sum(alone), 2),
    }


def wait_for_costs(engine: Engine, requests: Sequence[CompletionRequest]) -> None:
    """Load the model, let the engine measure it, and let it learn about drafts."""
    engine.submit(requests[0]).future.result()
    deadline = time.monotonic() + 120
    while engine.loaded_models()[0].rounds.costs is None and time.monotonic() < deadline:
        time.sleep(0.1)
    for request in requests[:4]:
        engine.submit(replace(request, id=new_request_id())).future.result()


def run(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All that was asked for."""
    model = args.model
    if args.tiny:
        model = str(save_tiny_checkpoint(folder / "model", num_layers=4, hidden_size=128, num_heads=8, head_dim=16))
    config = EngineConfig(
        model=model, edit_model=model, num_threads=args.threads, max_queued=2 * NUM_WAITING, max_active=args.max_active,
        prefix_cache_bytes=2**31,  # no prompt that was computed before is dropped again
    )  # fmt: skip
    engine = Engine(config, costs_file=args.costs)
    requests = read_requests(args.data, max([args.each * number for number in args.at_once] + [16]), args.max_tokens)
    engine.start()
    wait_for_costs(engine, requests)
    bench = Bench(engine, is_typed=args.typed)
    report: dict[str, Any] = {"model": args.model if not args.tiny else "tiny", "threads": torch.get_num_threads()}
    report["typed"] = args.typed
    report["prompt_tokens"] = median(result.num_prompt_tokens for result in bench.at_once(requests[:4], 4)[1])
    report["batching"] = []
    for number in args.at_once:
        report["batching"].append(compare(bench, requests[: args.each * number], number, args.repeats))
        print(json.dumps(report["batching"][-1]), flush=True)
    if args.fairness:
        report["fairness"] = compare_newcomers(bench, requests, args.wait, args.repeats)
    counters = engine.counters()
    report["rows_per_forward"] = round(counters.num_rows / counters.num_forwards, 1)
    report["batch_sizes"] = {size: number for size, number in enumerate(counters.batch_sizes) if number}
    report["answers_that_differ"] = bench.num_different
    engine.close()
    return report


def main() -> None:
    """Run and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--tiny", action="store_true", help="a random model of a few layers instead")
    parser.add_argument("--at-once", type=int, nargs="*", default=[])
    parser.add_argument("--each", type=int, default=4, help="requests of each user who is at it")
    parser.add_argument("--fairness", action="store_true")
    parser.add_argument("--typed", action="store_true", help="prompts are computed before the clock starts")
    parser.add_argument("--max-tokens", type=int, default=48)
    parser.add_argument("--max-active", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--wait", type=float, default=1.0, help="seconds between the many requests and the other one")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--costs", type=Path, help="where measured costs are kept between runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(args, Path(folder))
    text = json.dumps(report, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
