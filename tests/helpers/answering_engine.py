"""A real engine server whose answers come from a file, for tests of the command line and of evaluations.

``python -m helpers.answering_engine FOLDER`` serves on a free port and writes ``FOLDER/engine.json`` (the server's
own state file, with port and token). ``FOLDER/answers.json`` maps a prefix or a selection to the text of the answer,
or to ``{"error": CODE}``; what is not in it gets ``DEFAULT_ANSWER``. Each request is appended to
``FOLDER/requests.jsonl`` when it arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diffusion_core.config import EngineConfig, ServerConfig
from diffusion_core.errors import error_from_code
from diffusion_core.requests import (
    CompletionRequest,
    EditRequest,
    FinishReason,
    Health,
    ModelStatus,
    PreviewFrame,
    Result,
    Timings,
    WarmRequest,
)

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-for-tests"
DEFAULT_ANSWER = "    pass\n"
MODEL = "scripted-model"


class AnsweringEngine:
    """Looks answers up. Ten tokens in four forwards, 20 ms, whatever the text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._num_completed = 0

    def start(self) -> None:
        pass

    async def _answer(self, kind: str, key: str, request: CompletionRequest | EditRequest) -> Result:
        with (self._folder / "requests.jsonl").open("a") as stream:
            stream.write(json.dumps({"kind": kind, **asdict(request)}) + "\n")
        answers = json.loads((self._folder / "answers.json").read_text())
        await asyncio.sleep(answers.get("delay_s", 0.0))
        answer = answers.get(key, DEFAULT_ANSWER)
        if isinstance(answer, dict):
            raise error_from_code(answer["error"], f"scripted {answer['error']}")
        self._num_completed += 1
        return Result(
            id=request.id,
            text=answer,
            finish_reason=FinishReason(answers.get("finish_reason", "stop")),
            num_forwards=4,
            num_tokens=10,
            num_prompt_tokens=30,
            num_reused_tokens=20,
            num_computed_tokens=10,
            timings=Timings(queue_ms=1.0, prefill_ms=4.0, denoise_ms=15.0, total_ms=20.0),
            model=request.model or answers.get("model", MODEL),
            policy="verified" if request.decoding.policy == "auto" else request.decoding.policy.value,
            notice=answers.get("notice", ""),
        )

    async def complete(self, request: CompletionRequest) -> Result:
        return await self._answer("complete", request.prefix, request)

    async def edit(self, request: EditRequest) -> AsyncGenerator[PreviewFrame | Result, None]:
        yield PreviewFrame(id=request.id, settled="", unsettled=request.selection)
        yield await self._answer("edit", request.selection, request)

    async def warm(self, request: WarmRequest) -> None:
        pass

    async def health(self) -> Health:
        return Health(
            status="ready",
            version="1",
            device="cpu",
            dtype="float32",
            models=(ModelStatus(name=MODEL, task="complete", state="ready", memory_bytes=1 << 30),),
            num_completed=self._num_completed,
            notices=("a small model serves both tasks",),
        )

    async def aclose(self) -> None:
        pass


class EngineServer:
    """The server process and the folder that scripts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""

    def script(self, **answers: Any) -> None:
        (self.folder / "answers.json").write_text(json.dumps(answers))

    @property
    def requests(self) -> list[dict[str, Any]]:
        path = self.folder / "requests.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def forget_requests(self) -> None:
        (self.folder / "requests.jsonl").unlink(missing_ok=True)


def command_environment(folder: Path, **extra: str) -> dict[str, str]:
    """An environment without the user's settings and terminal, with all state in ``folder``."""
    shed = {"COLUMNS", "LINES", "FORCE_COLOR"}  # workers of the test run have some
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UNMASK_") and name not in shed}
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    own = {"PYTHONPATH": paths, "UNMASK_CACHE_DIR": str(folder / "cache"), "UNMASK_STATE_DIR": str(folder / "state")}
    return {**kept, **own, **extra}


@contextlib.contextmanager
def run_engine_server(folder: Path) -> Iterator[EngineServer]:
    server = EngineServer(folder)
    server.script()
    state = folder / "engine.json"
    command = [sys.executable, "-m", "helpers.answering_engine", str(folder)]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=command_environment(folder), stderr=log, stdout=log)
    try:
        deadline = time.monotonic() + 20
        while not state.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text())
            time.sleep(0.02)
        server.url = f"http://127.0.0.1:{json.loads(state.read_text())['port']}"
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        yield server
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    from diffusion_core.net.serve import run_server

    own_folder = Path(sys.argv[1])
    run_server(
        EngineConfig(),
        ServerConfig(port=0, token=TOKEN),
        state_file=own_folder / "engine.json",
        make=lambda config: AnsweringEngine(own_folder),
    )
