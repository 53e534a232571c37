"""An engine that is killed under load, again and again: how soon clients have answers again, and whose answers.

    python -m bench.recovery [--kills 20] [--clients 4] [--supervisor service|launcher] [--pause-s 0.3] [--out OUT.json]

The engine is the real one with a tiny random model. ``service``: `unmask serve` on a fixed port, started again at once
by a supervisor, as systemd does; ``launcher``: the shared local engine of this user, started again by its clients. They
wait longer and longer with an engine that keeps dying, so there ``--pause-s 61`` between two kills shows single ones.
Every client sends one request after the other; each has one right answer, known from an engine of its own. What must
hold (``failures``): every answer is the right one under the right id, and after every kill each client has an answer
within five seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from helpers.answering_engine import command_environment
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.config import ClientConfig, EngineConfig
from diffusion_core.engine.engine import Engine
from diffusion_core.errors import UnmaskError
from diffusion_core.net.client import HttpEngineClient
from diffusion_core.net.launcher import LocalEngine
from diffusion_core.requests import CompletionRequest, EngineClient, new_request_id

LIMIT_S = 5.0
TOKEN = "a-token-for-the-bench"
NUM_PROMPTS = 12
PAUSE_S = 0.1  # between two attempts of a client that is refused
_PREFIXES = ("def add(a, b):\n", "x = [1, 2, 3]\n", "class Thing:\n    ", "for i in range(10):\n    ")


@dataclass
class Recovery:
    """What came of it. ``recoveries_s`` has an entry per kill: the seconds until the slowest client had an answer."""

    supervisor: str
    num_clients: int
    num_answers: int = 0
    num_refused: int = 0
    num_wrong: int = 0
    recoveries_s: list[float] = field(default_factory=list)

    def failures(self, limit_s: float = LIMIT_S) -> list[str]:
        found = [f"{self.num_wrong} answers were wrong"] if self.num_wrong else []
        slow = [round(seconds, 2) for seconds in self.recoveries_s if seconds > limit_s]
        return found + ([f"clients waited longer than {limit_s} s: {slow}"] if slow else [])


def make_requests() -> list[CompletionRequest]:
    """Requests that differ in prefix, suffix and length."""
    return [
        CompletionRequest(
            prefix=f"value_{index} = {index}\n" + _PREFIXES[index % len(_PREFIXES)],
            suffix=f"\nend_{index}\n",
            stop_at_scope=False,
            max_tokens=8 + 2 * index,
        )
        for index in range(NUM_PROMPTS)
    ]


def answer_all(model: Path, requests: Sequence[CompletionRequest]) -> list[str]:
    """The right answers."""
    engine = Engine(EngineConfig(model=str(model), dtype="float32"))
    engine.start()
    jobs = [engine.submit(request) for request in requests]
    texts = [job.future.result(60).text for job in jobs]
    engine.close()
    return texts


class Service:
    """`unmask serve`, started again whenever it ends, with the pause that the systemd unit has."""

    def __init__(self, folder: Path, model: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._command = [sys.executable, "-m", "diffusion_core.commands", "serve", "--port", str(self.port)]
        self._command += ["--model", str(model), "--dtype", "float32"]
        self._environment = command_environment(folder, UNMASK_SERVER_TOKEN=TOKEN)
        self._log = (folder / "serve.log").open("wb")
        self._is_stopped = False
        self._process = self._start()
        self._thread = threading.Thread(target=self._supervise)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, env=self._environment, stderr=self._log, stdin=subprocess.DEVNULL)

    def _supervise(self) -> None:
        while True:
            self._process.wait()
            if self._is_stopped:
                return
            time.sleep(0.1)
            self._process = self._start()

    def stop(self) -> None:
        self._is_stopped = True
        self._process.terminate()
        self._thread.join()
        self._log.close()


class Client:
    """Sends the requests in turn and keeps asking until it is answered, as an editor's next key strokes do."""

    def __init__(
        self, engine: EngineClient, requests: Sequence[CompletionRequest], answers: Sequence[str], result: Recovery
    ) -> None:
        self._engine, self._known, self._result = engine, list(zip(requests, answers, strict=True)), result
        self.answered_at = 0.0

    async def run(self, first: int) -> None:
        turn = first
        while True:
            request, answer = self._known[turn % len(self._known)]
            turn += 1
            request = replace(request, id=new_request_id())
            began = time.monotonic()
            try:
                got = await self._engine.complete(request)
            except UnmaskError as error:
                if not error.retryable:
                    raise
                self._result.num_refused += 1
                await asyncio.sleep(PAUSE_S)
                continue
            self._result.num_answers += 1
            self._result.num_wrong += (got.id, got.text) != (request.id, answer)
            # An answer that was asked for before the kill says nothing about the new engine.
            self.answered_at = began


async def kill_often(
    clients: Sequence[Client], kills: int, find_pid: Any, result: Recovery, *, pause_s: float, wait_s: float = 60.0
) -> None:
    running = [asyncio.create_task(client.run(index)) for index, client in enumerate(clients)]
    try:
        await _wait_for_answers(clients, running, 0.0, wait_s)
        for _ in range(kills):
            await asyncio.sleep(pause_s)
            killed_at = time.monotonic()
            os.kill(find_pid(), signal.SIGKILL)
            result.recoveries_s.append(await _wait_for_answers(clients, running, killed_at, wait_s) - killed_at)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _wait_for_answers(
    clients: Sequence[Client], running: Sequence[asyncio.Task[None]], since: float, wait_s: float
) -> float:
    """When every client has been answered a request that it sent after ``since``."""
    give_up = time.monotonic() + wait_s
    while any(client.answered_at <= since for client in clients):
        for task in running:
            if task.done():
                task.result()
        if time.monotonic() > give_up:
            raise TimeoutError(f"clients have no answer after {wait_s} s")
        await asyncio.sleep(0.005)
    return time.monotonic()


@contextlib.asynccontextmanager
async def run_service(folder: Path, model: Path, count: int) -> AsyncIterator[tuple[list[EngineClient], Any]]:
    service = Service(folder, model)
    engines = [HttpEngineClient(f"http://127.0.0.1:{service.port}", TOKEN) for _ in range(count)]
    try:
        yield list(engines), lambda: service.pid
    finally:
        for engine in engines:
            await engine.aclose()
        await asyncio.to_thread(service.stop)


@contextlib.asynccontextmanager
async def run_launcher(folder: Path, model: Path, count: int) -> AsyncIterator[tuple[list[EngineClient], Any]]:
    os.environ.update(command_environment(folder))
    config = ClientConfig(engine=EngineConfig(model=str(model), dtype="float32"), engine_idle_exit_s=120)
    engines = [LocalEngine(config) for _ in range(count)]

    def find_pid() -> int:
        state = engines[0].files.read_state()
        assert state is not None
        return state.pid

    try:
        yield list(engines), find_pid
    finally:
        await engines[0].stop()
        for engine in engines:
            await engine.aclose()


async def measure(folder: Path, *, supervisor: str, kills: int, num_clients: int, pause_s: float = 0.3) -> Recovery:
    model = save_tiny_checkpoint(folder / "model")
    requests = make_requests()
    answers = await asyncio.to_thread(answer_all, model, requests)
    result = Recovery(supervisor, num_clients)
    run = {"service": run_service, "launcher": run_launcher}[supervisor]
    async with run(folder, model, num_clients) as (engines, find_pid):
        clients = [Client(engine, requests, answers, result) for engine in engines]
        await kill_often(clients, kills, find_pid, result, pause_s=pause_s)
    return result


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="recovery-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--supervisor", choices=("service", "launcher"), default="service")
    parser.add_argument("--pause-s", type=float, default=0.3, help="of normal work before each kill")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with work_folder() as folder:
        result = asyncio.run(
            measure(
                folder,
                supervisor=options.supervisor,
                kills=options.kills,
                num_clients=options.clients,
                pause_s=options.pause_s,
            )
        )
    slowest = max(result.recoveries_s)
    middle = sorted(result.recoveries_s)[len(result.recoveries_s) // 2]
    print(f"{result.supervisor}: {len(result.recoveries_s)} kills, {result.num_clients} clients")
    print(f"{result.num_answers} answers, {result.num_wrong} wrong; {result.num_refused} attempts refused meanwhile")
    print(f"until the slowest client had an answer: median {middle:.2f} s, longest {slowest:.2f} s")
    failures = result.failures()
    if options.out:
        options.out.write_text(json.dumps(asdict(result) | {"failures": failures}, indent=2) + "\n")
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
