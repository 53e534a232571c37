"""llama.cpp as a peer: a Node process with node-llama-cpp's prebuilt binaries, on the GGUF file that was pulled."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench.peers.items import AnswerReader, Item
from bench.peers.peer import Answer, Unavailable

from diffusion_core.checkpoints.store import RECEIPT_FILE, locate, read_receipt
from diffusion_core.engine.loaded_model import LoadedModel

FOLDER = Path(__file__).parent
INSTALL = "(cd tests/bench/peers && npm install --ignore-scripts)"


class PeerProcessError(Exception):
    """The process of a peer ended or said something that makes no sense."""


def find_gguf(model: str) -> Path:
    """The GGUF file of a pulled checkpoint, or the one that is named."""
    path = locate(model)
    if path.is_dir() and (path / RECEIPT_FILE).exists():
        path /= read_receipt(path).file
    if path.suffix != ".gguf":
        raise Unavailable(f"{model} is no GGUF file, and llama.cpp reads nothing else")
    return path


def parse_message(line: str) -> dict[str, Any]:
    """One line of the process: an object with ``ready``, ``prefillMs``, ``token`` or ``done``.

    Raises:
        PeerProcessError: the process ended, reported an error, or wrote something else.
    """
    if not line:
        raise PeerProcessError("the process ended")
    try:
        message = json.loads(line)
    except ValueError:
        raise PeerProcessError(f"no JSON: {line.strip()[:200]!r}") from None
    if not isinstance(message, dict):
        raise PeerProcessError(f"no object: {line.strip()[:200]!r}")
    if "error" in message:
        raise PeerProcessError(str(message["error"]))
    if not message.keys() & {"ready", "prefillMs", "token", "done"}:
        raise PeerProcessError(f"unknown message: {line.strip()[:200]!r}")
    return message


class LlamaCppPeer:
    """One process with one model and one context. ``uses_lookup`` drafts from the prompt."""

    def __init__(
        self, name: str, model: str, base: LoadedModel, *, threads: int, context: int, uses_lookup: bool
    ) -> None:
        """Start it.

        Raises:
            Unavailable: Node or node-llama-cpp is not installed, or there is no binary for this machine.
        """
        self.name, self._base = name, base
        node = shutil.which("node")
        if node is None:
            raise Unavailable("Node is not installed (20 or newer)")
        if not (FOLDER / "node_modules" / "node-llama-cpp").is_dir():
            raise Unavailable(f"node-llama-cpp is not installed: {INSTALL}")
        mode = "lookup" if uses_lookup else "plain"
        command = [node, "llama_cpp.mjs", str(find_gguf(model)), str(threads), str(context), mode]
        self._process = subprocess.Popen(
            command, cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        try:
            self._about = self._read()
        except PeerProcessError as error:
            self.close()
            raise Unavailable(f"node-llama-cpp does not start here: {error}") from None

    def describe(self) -> str:
        return f"llama.cpp {self._about.get('version')}, {self._about.get('threads')} threads"

    def answer(self, item: Item) -> Answer:
        reader = AnswerReader(item, self._base)
        self._say({"tokens": item.tokens, "maxTokens": item.request.max_tokens})
        prefill_ms = self._read()["prefillMs"]
        decode_ms = 0.0
        while "done" not in (message := self._read()):
            if reader.is_complete:
                continue  # made before the stop arrived
            decode_ms = message["ms"]
            if reader.feed(message["token"]):
                self._say({"stop": True})
        return Answer(
            text=reader.text, prefill_s=prefill_ms / 1000, decode_s=decode_ms / 1000,
            total_s=(prefill_ms + decode_ms) / 1000,
        )  # fmt: skip

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return parse_message(self._process.stdout.readline())
