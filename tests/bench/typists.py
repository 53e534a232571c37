"""Many people type at one server: does everybody get an answer, how fast, and does the server stay as it was?

    python -m bench.typists --typists 32 --minutes 3 --load 0.8 [--url URL --token-file FILE --pid PID] [--out OUT.json]

Without --url a real ``unmask serve`` process with a tiny random model and a user for each typist is started. First
the capacity is measured: everybody asks again as soon as there is an answer. Then everybody types a source at a
person's uneven pace, slowed down or sped up so that requests come at ``--load`` of that capacity. As in an editor each
key drops the request before; now and then there is a warm-up, an edit, or a thought in which an answer gets its time.
What must hold
(``failures``):

- no error, no request without an answer, nothing under way in the server when everybody has left;
- the server's memory drifts by at most 5 %, and at rest it has no more files than before, and no more threads than
  asyncio's pool may add, which fills as it is used.

Capacity counts whole answers; dropped requests cost less, so the server is less busy than ``--load`` says.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import httpx
import psutil
from bench.typist import quantile
from bench.typist_trace import Act, Moment, trace
from helpers.tiny_service import serve_tiny_model

from diffusion_core.errors import UnmaskError
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.requests import CompletionRequest, EditRequest, WarmRequest

SOURCE = Path(__file__).with_name("edits.py")
MAX_TOKENS = 16
CAPACITY_S = 10.0
MAX_DRIFT = 0.05
MIN_DRIFT_BYTES = 8 * 1024 * 1024  # of a small process 5 % are what an allocator keeps here and there
MAX_POOL = min(32, (os.cpu_count() or 1) + 4)
REST_S = 3.0  # until closed connections are gone from the server


@dataclass(frozen=True)
class Sample:
    """The server's process at one moment."""

    seconds: float
    rss_bytes: int
    num_files: int
    num_threads: int


@dataclass(kw_only=True)
class Report:
    """What was seen. Times are milliseconds, memory is bytes."""

    typists: int = 0
    load: float = 0.0
    seconds: float = 0.0
    capacity_per_s: float = 0.0
    offered_per_s: float = 0.0
    num_requests: int = 0
    num_answers: int = 0
    num_cancelled: int = 0
    num_unanswered: int = 0
    num_left_in_server: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    queue_p95_ms: float = 0.0
    tokens_per_forward: float = 0.0
    cache_hit_rate: float = 0.0
    rss_before: int = 0
    rss_after: int = 0
    rss_peak: int = 0
    drift: float = 0.0
    files_before: int = 0
    files_after: int = 0
    files_peak: int = 0
    threads_before: int = 0
    threads_after: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def failures(self) -> list[str]:
        """What must hold and did not."""
        grown = self.rss_after - self.rss_before
        checks = {
            f"errors: {self.errors}": not self.errors,
            f"{self.num_unanswered} requests were not answered": not self.num_unanswered,
            f"{self.num_left_in_server} requests are under way after everybody left": not self.num_left_in_server,
            f"the server's memory drifted by {self.drift:.1%}": self.drift <= MAX_DRIFT or grown <= MIN_DRIFT_BYTES,
            f"{self.files_before} files before, {self.files_after} after": self.files_after <= self.files_before,
            f"{self.threads_before} threads before, {self.threads_after} after": (
                self.threads_after <= self.threads_before + MAX_POOL
            ),
        }
        return [text for text, holds in checks.items() if not holds]


class Office:
    """Everybody who types at one server, and how their requests ended."""

    def __init__(self, url: str, tokens: Sequence[str], source: str) -> None:
        self.clients = [HttpEngineClient(url, token) for token in tokens]
        self.source = source
        self.latencies: list[float] = []
        self.queues: list[float] = []
        self.errors: Counter[str] = Counter()
        self.num_requests = self.num_answers = self.num_cancelled = 0
        self.num_tokens = self.num_forwards = self.num_reused = self.num_prompt = 0

    async def ask(self, client: HttpEngineClient, moment: Moment) -> None:
        """One request, from its sending to its end."""
        self.num_requests += 1
        begin = time.perf_counter()
        request = CompletionRequest(
            prefix=moment.prefix, suffix=moment.suffix, language="python", max_tokens=MAX_TOKENS
        )  # fmt: skip
        try:
            if moment.act is Act.WARM:
                await client.warm(WarmRequest(completion=request))
            elif moment.act is Act.EDIT:
                lines = moment.prefix.splitlines(keepends=True)
                edit = EditRequest(
                    selection="".join(lines[-3:]), before="".join(lines[:-3]), after=moment.suffix,
                    instruction="add a docstring", max_tokens=2 * MAX_TOKENS,
                )  # fmt: skip
                async for _ in client.edit(edit):
                    pass
            else:
                result = await client.complete(request)
                self.latencies.append(1000 * (time.perf_counter() - begin))
                self.queues.append(result.timings.queue_ms)
                self.num_tokens += result.num_tokens
                self.num_forwards += result.num_forwards
                self.num_reused += result.num_reused_tokens
                self.num_prompt += result.num_prompt_tokens
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        except UnmaskError as error:
            self.errors[f"{error.code}: {error}"] += 1
        else:
            self.num_answers += 1

    async def hurry(self, client: HttpEngineClient, seed: int, seconds: float) -> None:
        """Ask again as soon as there is an answer."""
        end = time.monotonic() + seconds
        for moment in trace(self.source, seed):
            if time.monotonic() >= end:
                return
            await self.ask(client, moment)

    async def type(self, client: HttpEngineClient, seed: int, seconds: float, slowness: float) -> None:
        """Keys at a person's pace, times ``slowness``; each drops the request before."""
        end = time.monotonic() + seconds
        running: asyncio.Task[None] | None = None
        for moment in trace(self.source, seed):
            await asyncio.sleep(min(moment.pause_s * slowness, max(0.0, end - time.monotonic())))
            if time.monotonic() >= end:
                break
            if moment.act is Act.THINK:
                continue
            if running is not None and not running.done():
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            running = asyncio.create_task(self.ask(client, moment))
        if running is not None:
            await running

    async def close(self) -> None:
        """Everybody leaves."""
        for client in self.clients:
            await client.aclose()


async def watch(process: psutil.Process, samples: list[Sample], step_s: float) -> None:
    """Look at the server's process now and then."""
    begin = time.monotonic()
    while True:
        samples.append(look(process, time.monotonic() - begin))
        await asyncio.sleep(step_s)


def look(process: psutil.Process, seconds: float = 0.0) -> Sample:
    """The process now."""
    with process.oneshot():
        return Sample(seconds, process.memory_info().rss, process.num_fds(), process.num_threads())


async def run_office(office: Office, kind: str, seconds: float, slowness: float = 1.0) -> None:
    """Everybody at once."""
    works = [
        office.hurry(client, seed, seconds) if kind == "hurry" else office.type(client, seed, seconds, slowness)
        for seed, client in enumerate(office.clients)
    ]
    await asyncio.gather(*works)


async def measure(
    url: str, tokens: Sequence[str], pid: int, *, seconds: float, load: float,
    capacity_s: float = CAPACITY_S, rest_s: float = REST_S,
) -> Report:  # fmt: skip
    """The whole run against a server that is there, a typist for each token; the first is an administrator's."""
    source = SOURCE.read_text()
    process = psutil.Process(pid)
    warming = Office(url, tokens, source)
    await run_office(warming, "hurry", capacity_s)
    await warming.close()
    capacity = max(warming.num_answers / capacity_s, 0.1)
    # A person's mean pause, as the traces draw it.
    pauses = [moment.pause_s for moment, _ in zip(trace(source, 0), range(2000), strict=False)]
    slowness = len(tokens) / (load * capacity) / (sum(pauses) / len(pauses))
    await asyncio.sleep(rest_s)
    before, samples = look(process), list[Sample]()
    office = Office(url, tokens, source)
    watcher = asyncio.create_task(watch(process, samples, max(0.2, seconds / 600)))
    begin = time.monotonic()
    await run_office(office, "type", seconds, slowness)
    spent = time.monotonic() - begin
    watcher.cancel()
    await office.close()
    await asyncio.sleep(rest_s)
    after = look(process)
    settled = [sample for sample in samples if sample.seconds >= spent / 4] or samples
    half = max(1, len(settled) // 3)
    early, late = (median(s.rss_bytes for s in part) for part in (settled[:half], settled[-half:]))
    return Report(
        typists=len(tokens), load=load, seconds=spent, capacity_per_s=capacity,
        offered_per_s=office.num_requests / spent,
        num_requests=office.num_requests, num_answers=office.num_answers, num_cancelled=office.num_cancelled,
        num_unanswered=office.num_requests - office.num_answers - office.num_cancelled - office.errors.total(),
        num_left_in_server=await count_left(url, tokens[0]),
        p50_ms=quantile(office.latencies, 0.5), p95_ms=quantile(office.latencies, 0.95),
        p99_ms=quantile(office.latencies, 0.99), queue_p95_ms=quantile(office.queues, 0.95),
        tokens_per_forward=office.num_tokens / max(1, office.num_forwards),
        cache_hit_rate=office.num_reused / max(1, office.num_prompt),
        rss_before=int(early), rss_after=int(late), rss_peak=max(sample.rss_bytes for sample in samples),
        drift=(late - early) / early,
        files_before=before.num_files, files_after=after.num_files,
        files_peak=max(sample.num_files for sample in samples),
        threads_before=before.num_threads, threads_after=after.num_threads,
        errors=dict((warming.errors + office.errors).most_common(10)),
    )  # fmt: skip


async def count_left(url: str, token: str) -> int:
    """Requests that the server still has under way."""
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}, trust_env=False) as http:
        current = (await http.get(f"{url}/v1/load")).json()["current"]
    return int(current["active"] + current["queued"])


@contextlib.contextmanager
def find_server(arguments: argparse.Namespace) -> Iterator[tuple[str, Sequence[str], int]]:
    """Address, tokens and process of the server that was named, or of one that is started for this run."""
    if arguments.url:
        yield arguments.url, [arguments.token_file.read_text().strip()] * arguments.typists, arguments.pid
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        serve_tiny_model(Path(folder), num_users=arguments.typists) as service,
    ):
        yield service.url, service.tokens, service.process.pid


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--typists", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--url", default="")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--pid", type=int, help="the server's process, on this machine")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.url and not (arguments.token_file and arguments.pid):
        parser.error("--url needs --token-file and --pid")
    with find_server(arguments) as (url, tokens, pid):
        report = asyncio.run(measure(url, tokens, pid, seconds=60 * arguments.minutes, load=arguments.load))
    figures = json.dumps({**asdict(report), "failures": report.failures}, indent=2)
    print(figures)
    if arguments.out:
        arguments.out.write_text(figures + "\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
