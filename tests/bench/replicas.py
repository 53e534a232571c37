"""Replicas that are killed again and again while a team works: is a request lost, and how long does anybody wait?

    python -m bench.replicas [--kills 20] [--users 8] [--every 4] [--out OUT.json]

Two replicas of a tiny random model behind `unmask serve --ray`; whenever both answer, one of them is killed (SIGKILL).
Users complete in files of their own, one of them edits. What must hold (``failures``): no request fails within its
deadline, every answer is that of the engine before the first kill, and no edit mixes two answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from helpers.ray_server import RayServer, run_ray_server
from helpers.tiny_models import save_tiny_checkpoint

from diffusion_core.errors import UnmaskError
from diffusion_core.net.remote import RemoteEngine
from diffusion_core.requests import CompletionRequest, EditRequest, Result

PREFIX = "def add(a, b):\n    return a + b\n\n" * 4


@dataclass
class Seen:
    """What the users saw."""

    waits_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    num_edits: int = 0
    num_resets: int = 0
    num_reused: int = 0
    num_prompt: int = 0


async def complete_for(client: RemoteEngine, user: int, stop: asyncio.Event, seen: Seen) -> None:
    """One user: the same few places of one file, whose answers must not change."""
    answers: dict[str, str] = {}
    while not stop.is_set():
        tail = "y" * random.randrange(8)
        request = CompletionRequest(
            prefix=f"# {user}\n{PREFIX}{tail}", path=f"f{user}.py", max_tokens=8, stop_at_scope=False,
            deadline_ms=30_000,
        )  # fmt: skip
        began = time.monotonic()
        try:
            result = await client.complete(request)
        except UnmaskError as error:
            seen.failures.append(f"{type(error).__name__}: {error}")
            continue
        seen.waits_s.append(time.monotonic() - began)
        seen.num_prompt += result.num_prompt_tokens
        seen.num_reused += result.num_reused_tokens
        if answers.setdefault(tail, result.text) != result.text:
            seen.failures.append("an answer changed")
        await asyncio.sleep(0.02)


async def edit_for(client: RemoteEngine, stop: asyncio.Event, seen: Seen) -> None:
    """One user who edits all the time."""
    expected = ""
    while not stop.is_set():
        request = EditRequest(selection="abc\n", instruction="go", max_tokens=64, path="e.py", deadline_ms=60_000)
        try:
            items = [item async for item in client.edit(request)]
        except UnmaskError as error:
            seen.failures.append(f"edit: {type(error).__name__}: {error}")
            continue
        assert isinstance(items[-1], Result)
        frames = [item for item in items[:-1] if not isinstance(item, Result)]
        resets = [n for n, frame in enumerate(frames) if n and (frame.settled, frame.unsettled) == ("", "abc\n")]
        seen.num_resets += len(resets)
        seen.num_edits += 1
        expected = expected or items[-1].text
        if items[-1].text != expected:
            seen.failures.append("the text of an edit changed")
        settled = ""
        for number, frame in enumerate(frames):
            if not frame.settled.startswith(settled) and number not in resets:
                seen.failures.append("an edit mixed two answers")
            settled = frame.settled


async def wait_ready(client: RemoteEngine, server: RayServer) -> None:
    while True:
        if server.process.poll() is not None:
            raise SystemExit(f"the server has ended:\n{server.log.read_text()[-2000:]}")
        with suppress(UnmaskError):
            if (await client.health()).status == "ready":
                return
        await asyncio.sleep(0.2)


async def run(server: RayServer, num_kills: int, num_users: int, every_s: float) -> dict[str, object]:
    clients = [RemoteEngine(server.config()) for _ in range(num_users + 1)]
    await wait_ready(clients[0], server)
    seen, stop = Seen(), asyncio.Event()
    work = [asyncio.create_task(complete_for(client, n, stop, seen)) for n, client in enumerate(clients[1:])]
    work.append(asyncio.create_task(edit_for(clients[0], stop, seen)))
    await asyncio.sleep(3)
    killed = 0
    while killed < num_kills:
        # The one before is back and has loaded its model; otherwise nobody would be left.
        if (await clients[0].health()).device.startswith("2 x"):
            random.choice(server.replicas()).kill()
            killed += 1
            print(f"kill {killed}: {len(seen.waits_s)} answers, {len(seen.failures)} failures", flush=True)
        await asyncio.sleep(every_s)
    await asyncio.sleep(3)
    stop.set()
    await asyncio.gather(*work)
    for client in clients:
        await client.aclose()
    waits = sorted(seen.waits_s)
    return {
        "kills": killed,
        "completions": len(waits),
        "edits": seen.num_edits,
        "edits_begun_anew": seen.num_resets,
        "wait_p50_ms": round(1000 * median(waits)),
        "wait_p99_ms": round(1000 * waits[int(0.99 * len(waits))]),
        "wait_max_ms": round(1000 * waits[-1]),
        "reused_share": round(seen.num_reused / max(1, seen.num_prompt), 3),
        "failures": seen.failures[:20],
        "num_failures": len(seen.failures),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--every", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = save_tiny_checkpoint(Path(name) / "model")
        with run_ray_server(Path(name), model) as server:
            report = asyncio.run(run(server, options.kills, options.users, options.every))
    text = json.dumps(report, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")
    raise SystemExit(1 if report["num_failures"] else 0)


if __name__ == "__main__":
    main()
