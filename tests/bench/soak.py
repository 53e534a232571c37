"""Hours of typing in minutes: an editor that types, cancels and asks anew against a real language-server process.

    python -m bench.soak --seconds 600 [--engine scripted|tiny] [--out OUT.json]

The scripted engine knows the source that is typed, so that much is typed through its suggestions. The tiny engine is
the real one with a tiny random model: its forwards are counted after the user's cancels. What must hold (``failures``):

- every request is answered exactly once;
- the language server stays below 150 MB of resident memory and stops growing;
- after a cancel has reached the engine (``cancel_ms``: at most so long after the user's, with the grace in which a
  next request may join) it does at most one further forward;
- half of the answers that need no engine, and 95 % where there were 200, come within 10 ms more than the server takes
  to say nothing at all (a status request, measured in between: on a busy machine both wait for the processor).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.typist import Report, Typist
from helpers.lsp_client import open_editor
from helpers.lsp_engine import TOKEN, WrittenEngine, serve_engine

from diffusion_core.callers import Caller
from diffusion_core.config import MIB, EngineConfig
from diffusion_core.engine.runner import AsyncEngine
from diffusion_core.requests import CompletionRequest, EngineClient, Result

SOURCE = Path(__file__).with_name("edits.py")
MIN_STOPS = 4
GRACE_S = 0.1  # of the language server: it waits so long for a request that may join


@dataclass
class SourceEngine(WrittenEngine):
    """A scripted engine that continues the source; every fourth time it is wrong after a few characters."""

    source: str = ""
    rng: random.Random = field(default_factory=lambda: random.Random(2))

    async def complete(self, request: CompletionRequest) -> Result:
        at = self.source.find(request.prefix[-40:])
        text = self.source[at + 40 : at + 40 + self.rng.randint(20, 90)] if at >= 0 else "pass"
        if self.rng.random() < 0.25:
            text = text[:6] + "qqq"
        await self._work(text)
        return self._result(request.id, text)


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


async def watch_memory(pid: int, samples: list[float]) -> None:
    """A sample every half second."""
    while True:
        samples.append(resident_mb(pid))
        await asyncio.sleep(0.5)


class CountingEngine(AsyncEngine):
    """The real engine; at every cancel that reaches it, it notes when that was and the forwards so far."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.cancels: list[tuple[float, int]] = []

    def on_behalf_of(self, caller: Caller) -> AsyncEngine:
        """Every caller's requests are counted."""
        return self

    async def complete(self, request: CompletionRequest) -> Result:
        try:
            return await super().complete(request)
        except asyncio.CancelledError:
            self.cancels.append((time.monotonic(), (await self.health()).num_forwards))
            raise

    async def rest(self) -> int:
        """Wait until nothing is under way; the forwards so far."""
        async with asyncio.timeout(20):
            while (health := await self.health()).num_active:  # noqa: ASYNC110 - the engine's thread sets no event
                await asyncio.sleep(0.01)
        return health.num_forwards


async def stop_and_count(typist: Typist, engine: CountingEngine, seconds: float) -> None:
    """Type, ask, cancel in the middle of the work, and count the forwards from the cancel's arrival on.

    A busy machine gets up to five times as long for the first few stops: an answer may be there before its cancel.
    """
    begin, report = time.monotonic(), typist.report
    while (spent := time.monotonic() - begin) < seconds or (report.num_stops < MIN_STOPS and spent < 5 * seconds):
        await typist.type_for(typist.rng.uniform(0.3, 1.0))
        await engine.rest()
        num_cancels = len(engine.cancels)
        typist.ask(invoked=True)
        await asyncio.sleep(0.05)
        cancelled_at = time.monotonic()
        typist.cancel()
        await asyncio.sleep(GRACE_S + 0.25)
        late = (await engine.health()).num_forwards
        num_forwards = await engine.rest()
        # A cancel from before belongs to a request of the typing that the invoked one replaced.
        arrived = [cancel for cancel in engine.cancels[num_cancels:] if cancel[0] >= cancelled_at]
        if arrived:
            at, late = arrived[-1]
            report.num_stops += 1
            report.cancel_ms = max(report.cancel_ms, 1000 * (at - cancelled_at))
        # Without one the answer was there first, and nothing may be under way any more.
        report.max_forwards_after_cancel = max(report.max_forwards_after_cancel, num_forwards - late)


@contextlib.contextmanager
def tiny_engine() -> Iterator[CountingEngine]:
    """The real engine with a tiny random model."""
    from helpers.tiny_models import save_tiny_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = save_tiny_checkpoint(Path(folder) / "model")
        config = EngineConfig(
            model=str(checkpoint), edit_model=str(checkpoint), dtype="float32", device="cpu", num_threads=1,
            prefix_cache_bytes=8 * MIB,
        )  # fmt: skip
        engine = CountingEngine(config)
        engine.start()
        try:
            yield engine
        finally:
            asyncio.run(engine.aclose())


async def soak(engine: EngineClient, url: str, source: str, seconds: float) -> Report:
    """One run; the engine is served at ``url`` already."""
    counts_forwards = isinstance(engine, CountingEngine)
    # Reading ahead of an acceptance is work without a request: here only what requests cause is counted.
    settings: dict[str, Any] = {
        "engine": {"url": url, "token": TOKEN},
        "completion": {"warmAhead": not counts_forwards},
    }
    samples: list[float] = []
    async with open_editor() as editor:
        await editor.initialize(settings)
        await editor.wait_for_status("ready", timeout_s=60)
        typist = Typist(editor, source, seed=1)
        typist.open()
        watcher = asyncio.create_task(watch_memory(editor.process.pid, samples))
        begin = time.monotonic()
        if isinstance(engine, CountingEngine):
            await stop_and_count(typist, engine, seconds)
        else:
            await typist.type_for(seconds)
        watcher.cancel()
        report = await typist.finish()
        report.seconds = time.monotonic() - begin
        if await editor.shut_down() != 0:
            report.errors.append("the language server did not end well")
    quarter = max(1, len(samples) // 4)
    report.rss_peak = max(samples)
    report.rss_growth = median(samples[-quarter:]) - median(samples[quarter : 2 * quarter])
    return report


def run(seconds: float, engine_kind: str) -> Report:
    """A run with its engine."""
    source = SOURCE.read_text()
    with contextlib.ExitStack() as stack:
        engine: EngineClient = (
            stack.enter_context(tiny_engine()) if engine_kind == "tiny" else SourceEngine(source=source)
        )
        if isinstance(engine, SourceEngine):
            engine.edits = {"improve": "x = 1\n" * 40}
        url = stack.enter_context(serve_engine(engine))  # type: ignore[arg-type]
        return asyncio.run(soak(engine, url, source, seconds))


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--engine", choices=["scripted", "tiny"], default="scripted")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report = run(arguments.seconds, arguments.engine)
    figures = json.dumps({**asdict(report), "failures": report.failures}, indent=2)
    print(figures)
    if arguments.out:
        arguments.out.write_text(figures + "\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
