"""Malformed requests in great number against `unmask serve`: none may crash it, hang it, or make it grow.

::

    cd tests && python -m bench.fuzz --inputs 50000 [--seed 1] [--out fuzz.json]
    cd tests && python -m bench.fuzz --described 200

A quarter each: messages of Unmask's own protocol, JSON bodies, both mutated from valid ones or made up; HTTP itself
broken on raw sockets; and bodies that stop half way. Every answer must come in time, with a status below 500 or 503
(504 where the input itself has a deadline).
``--described``: instead schemathesis makes so many valid and so many invalid requests for each operation of the
server's own OpenAPI description, and checks the answers against it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgpack
from helpers.described_api import try_everything
from helpers.tiny_server import TOKEN, ServeProcess, resident_bytes, serve_tiny

from diffusion_core.net.protocol import CONTENT_TYPE, PROTOCOL_VERSION, encode
from diffusion_core.requests import CompletionRequest, EditRequest, Snippet, WarmRequest

ANSWER_S = 20.0
PATIENCE_S = 0.2  # of a sender that stops half way
NUM_AT_ONCE = 16
NUM_IN_COMPANY = 4000  # valid requests beside each other, before anything else
WARM_UP_SHARE = 0.2  # of the inputs, until memory is looked at
# Little room, so that what is valid by chance is answered quickly.
LIMITS = {
    "UNMASK_ENGINE_MAX_CONTEXT_TOKENS": "128",
    "UNMASK_ENGINE_MAX_EDIT_TOKENS": "16",
    "UNMASK_ENGINE_MAX_COMPLETION_TOKENS": "8",
    "UNMASK_ENGINE_PREFIX_CACHE_BYTES": "1000000",  # full at once: it is to grow, and it is not what is looked for
    "UNMASK_SERVER_MAX_REQUEST_BYTES": "200000",
}
# A prompt that is too long is valid by the description, and refused: room for what is made up by it.
ROOMY = {**LIMITS, "UNMASK_ENGINE_MAX_CONTEXT_TOKENS": "2048"}
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64 - 1, -(2**63), 0.5, float("nan"), float("inf"), 1e308, "", "x",
    "\x00", "\n" * 50, "é" * 99, "<|fim_prefix|>", "x" * 5000, [], {}, [[]], {"": {}}, [None] * 50, {"x": 1},
)  # fmt: skip


@dataclass
class Outcome:
    """What came back. ``statuses`` counts by kind and status; 0: closed without an answer, as broken HTTP deserves."""

    num_inputs: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_ms: float = 0.0
    memory_mib: list[float] = field(default_factory=list)

    @property
    def growth_mib(self) -> float:
        """Memory at the end beyond that after the first part."""
        return self.memory_mib[-1] - self.memory_mib[0]


@dataclass(frozen=True)
class Input:
    """Bytes for a connection; ``may_close`` needs no answer, and without ``holds`` is not waited for either."""

    kind: str
    data: bytes
    holds: bool = False
    may_close: bool = False


class Inputs:
    """Malformed inputs, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        completion = CompletionRequest(
            prefix="def f(", suffix="x", snippets=(Snippet(path="a", text="b"),), max_tokens=3
        )
        edit = EditRequest(selection="x = 1\n", instruction="do", max_tokens=3)
        self._messages = {
            "complete": encode(completion),
            "edit": encode(edit),
            "warm": encode(WarmRequest(completion=completion)),
        }
        words = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "t"}]}]
        self._bodies: dict[str, dict[str, Any]] = {
            "/v1/completions": {
                "model": "", "prompt": "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "max_tokens": 3, "n": 2,
                "temperature": 1.0, "top_p": 0.5, "seed": 1, "stop": ["a"], "stream": True,
                "stream_options": {"include_usage": True}, "logit_bias": {}, "echo": False,
            },
            "/v1/chat/completions": {
                "messages": words, "max_tokens": 3, "stream": False, "tools": [], "n": 1,
                "prediction": {"type": "content", "content": "p"}, "response_format": {"type": "text"},
            },
            "/infill": {
                "input_prefix": "a", "input_suffix": "b", "prompt": "c", "n_predict": 3, "n_indent": 1, "n_cmpl": 1,
                "input_extra": [{"filename": "x", "text": "y"}], "samplers": ["top_k"], "t_max_predict_ms": 5,
                "response_fields": ["content", "timings/prompt_n"], "lora": [], "stop": ["z"],
            },
        }  # fmt: skip

    def next(self) -> Input:
        """One more."""
        kinds: tuple[Callable[[], Input], ...] = (self._message, self._json, self._broken_http, self._stopping)
        return self._random.choice(kinds)()

    def _message(self) -> Input:
        path = self._random.choice(list(self._messages))
        body = self._mutate(self._messages[path], self._pack, msgpack.unpackb)
        return Input("msgpack", self._head(f"/v1/{path}", CONTENT_TYPE, len(body)) + body)

    def _json(self) -> Input:
        path = self._random.choice(list(self._bodies))
        valid = json.dumps(self._bodies[path]).encode()
        body = self._mutate(valid, lambda value: json.dumps(value).encode(), json.loads)
        return Input("json", self._head(path, "application/json", len(body)) + body)

    def _mutate(self, valid: bytes, pack: Callable[[Any], bytes], unpack: Callable[[bytes], Any]) -> bytes:
        draw = self._random
        match draw.randrange(6):
            case 0 | 1 | 2:
                value = unpack(valid)
                for _ in range(draw.randint(1, 3)):
                    value = self._replace_somewhere(value)
                return pack(value)
            case 3:
                return self._damage(valid)
            case 4:
                return draw.randbytes(draw.randint(0, 300))
            case _:
                deep = draw.choice((100, 600, 5000))
                return draw.choice((b"[" * deep, b'{"a":' * deep, b"\x91" * deep, b"\x81\xa1a" * deep, b"9" * deep))

    def _replace_somewhere(self, value: Any) -> Any:
        draw = self._random
        if isinstance(value, dict) and value and draw.random() < 0.9:
            key = draw.choice(list(value))
            match draw.randrange(6):
                case 0:
                    return {other: each for other, each in value.items() if other != key}
                case 1:
                    return {**value, draw.choice(("surprise", "", "é\n", "x" * 300)): draw.choice(ODD)}
                case _:
                    return {**value, key: self._replace_somewhere(value[key])}
        if isinstance(value, list) and value and draw.random() < 0.7:
            at = draw.randrange(len(value))
            return [*value[:at], self._replace_somewhere(value[at]), *value[at + draw.randrange(2) :]]
        return draw.choice(ODD)

    def _pack(self, value: Any) -> bytes:
        if self._random.random() < 0.1 and isinstance(value, dict):
            value = {**value, "v": self._random.choice((PROTOCOL_VERSION + 1, None, "2"))}
        return bytes(msgpack.packb(value))

    def _damage(self, valid: bytes) -> bytes:
        draw, data = self._random, bytearray(valid)
        for _ in range(draw.randint(1, 8)):
            at = draw.randrange(len(data) + 1)
            match draw.randrange(4):
                case 0:
                    data[at : at + 1] = draw.randbytes(1)
                case 1:
                    data[at:at] = draw.randbytes(draw.randint(1, 4))
                case 2:
                    del data[at : at + draw.randint(1, 20)]
                case _:
                    data[at:at] = data[at : at + 40]
        return bytes(data)

    def _head(self, path: str, kind: str, length: object, *more: str) -> bytes:
        token = TOKEN if self._random.random() < 0.97 else "wrong"
        lines = [
            f"POST {path} HTTP/1.1", "host: x", "connection: close", f"authorization: Bearer {token}",
            f"content-type: {kind}", *more, *([] if length is None else [f"content-length: {length}"]),
        ]  # fmt: skip
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    def _broken_http(self) -> Input:
        draw = self._random
        valid = self._json().data
        head, _, body = valid.partition(b"\r\n\r\n")
        chunked = self._head("/v1/completions", "application/json", None, "transfer-encoding: chunked")
        chunks = (
            b"zz\r\nabc\r\n0\r\n\r\n", b"5\r\nabc", b"-1\r\n\r\n", b"ffffffffffffffff\r\nabc\r\n",
            b"3;x=y\r\nabcdef\r\n", b"3\r\nabc\r\n0\r\nx: y\r\n\r\n", b"0\r\n\r\n", b"3\nabc\n0\n\n",
        )  # fmt: skip
        lengths, methods = ("-5", "abc", "1e9", "99999999999", ""), (b"GET", b"PUT", b"OPTIONS", b"\xff\xfe", b"")
        made = (
            lambda: draw.randbytes(draw.randint(1, 400)),
            lambda: self._damage(head) + b"\r\n\r\n" + body,
            lambda: chunked + draw.choice(chunks),
            lambda: b"GET /" + b"a" * draw.choice((10, 70_000)) + b" HTTP/1.1\r\nhost: x\r\n\r\n",
            lambda: head + b"\r\nx: " + b"y" * 70_000 + b"\r\n\r\n" + body,
            lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            lambda: self._head("/infill", "application/json", draw.choice(lengths)) + body,
            lambda: self._head("/infill", "text/plain", len(body)) + body,
            lambda: head.replace(b"POST", draw.choice(methods)) + b"\r\n\r\n" + body,
            lambda: self._head("/v1/models/" + "%00../" * 20, "application/json", 0).replace(b"POST", b"GET"),
            lambda: valid + valid,
            lambda: self._head("/infill", "application/json", 300_000) + b"x" * 300_000,
        )  # fmt: skip
        return Input("http", draw.choice(made)(), holds=True, may_close=True)

    def _stopping(self) -> Input:
        """Bodies that end before their time: closed at once, or after a while of silence."""
        whole = (self._json if self._random.random() < 0.5 else self._message)().data
        end = self._random.randint(1, len(whole))
        return Input("stopping", whole[:end], holds=self._random.random() < 0.1, may_close=True)


async def send(port: int, given: Input) -> int:
    """The status of the answer; 0 when the connection was closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(given.data)
        await writer.drain()
        answer = asyncio.ensure_future(reader.readline())
        if given.may_close:
            # Nothing may come, as long as more might follow: then we end it.
            await asyncio.wait({answer}, timeout=PATIENCE_S if given.holds else 0)
            if not answer.done():
                writer.write_eof()
        line = await answer
        # The rest of the answer; where the server keeps the connection, as it may, our end of it is what ends it.
        if writer.can_write_eof():
            writer.write_eof()
        while await reader.read(65536):
            pass
        return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0
    except OSError:
        return 0
    finally:
        writer.close()


async def meet_all_lengths(server: ServeProcess, seed: int) -> None:
    """Valid prompts of every length, alone and then in company: kernels are made for each number of rows that a forward
    has, once, and stay (DECISIONS 69)."""
    longest, draw = int(LIMITS["UNMASK_ENGINE_MAX_CONTEXT_TOKENS"]) - 8, random.Random(seed)
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, trust_env=False) as client:

        async def ask(length: int) -> None:
            # No prompt begins like one before it: all of it is computed.
            prompt = "".join(draw.choices("abcdefgh", k=length))
            body = {"prompt": prompt, "max_tokens": draw.randint(1, 8), "n": draw.choice((1, 1, 2))}
            (await client.post("/v1/completions", json=body, timeout=60)).raise_for_status()

        for length in range(1, longest):
            await ask(length)
        lengths = iter([draw.randint(1, longest) for _ in range(NUM_IN_COMPANY)])

        async def go_on() -> None:
            for length in lengths:
                await ask(length)

        await asyncio.gather(*(go_on() for _ in range(NUM_AT_ONCE // 2)))


async def fuzz(server: ServeProcess, num_inputs: int, seed: int) -> Outcome:
    """Send the inputs, many at once, and look at the server now and then."""
    outcome, inputs, port = Outcome(), Inputs(seed), int(server.url.rpartition(":")[2])
    began = time.perf_counter()

    async def work() -> None:
        while outcome.num_inputs < num_inputs:
            outcome.num_inputs += 1
            number, given = outcome.num_inputs, inputs.next()
            sent = time.perf_counter()
            try:
                async with asyncio.timeout(ANSWER_S):
                    status = await send(port, given)
            except TimeoutError:
                outcome.failures.append(
                    f"input {number} ({given.kind}): no answer in {ANSWER_S:.0f} s: {given.data[:300]!r}"
                )
                continue
            outcome.slowest_ms = max(outcome.slowest_ms, 1000 * (time.perf_counter() - sent))
            outcome.statuses[f"{given.kind} {status}"] += 1
            is_late = status == 504 and b"deadline_ms" in given.data  # a deadline that was made up, and has passed
            if (status >= 500 and status != 503 and not is_late) or (status == 0 and not given.may_close):
                outcome.failures.append(f"input {number} ({given.kind}): status {status}: {given.data[:300]!r}")
            if number >= WARM_UP_SHARE * num_inputs and number % max(1, num_inputs // 10) == 0:
                outcome.memory_mib.append(resident_bytes(server.pid) / 2**20)

    await asyncio.gather(*(work() for _ in range(NUM_AT_ONCE)))
    outcome.seconds = time.perf_counter() - began
    return outcome


def look_after(server: ServeProcess, outcome: Outcome) -> None:
    """The server must be idle and well afterwards, and its log without surprises and without the token."""
    give_up = time.monotonic() + ANSWER_S
    while (answer := server.post("/v1/completions", prompt="x", max_tokens=2)).status_code == 503:
        assert time.monotonic() < give_up
        time.sleep(0.2)
    if answer.status_code != 200:
        outcome.failures.append(f"afterwards a valid request gets {answer.status_code}: {answer.text}")
    log = server.log.read_text(errors="replace")
    outcome.failures += [
        f"in the log: {line}" for line in log.splitlines() if "unexpected" in line or "Traceback" in line
    ]
    if TOKEN in log:
        outcome.failures.append("the token is in the log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--described", type=int, default=0, metavar="EXAMPLES")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.described:
        with tempfile.TemporaryDirectory() as folder, serve_tiny(Path(folder), **ROOMY) as server:
            seen = try_everything(server, options.described, options.seed)
            look_after(server, outcome := Outcome())
        print(json.dumps({"answers": dict(sorted(seen.items())), "failures": outcome.failures}, indent=2))
        return
    with tempfile.TemporaryDirectory() as folder, serve_tiny(Path(folder), **LIMITS) as server:
        asyncio.run(meet_all_lengths(server, options.seed))
        outcome = asyncio.run(fuzz(server, options.inputs, options.seed))
        look_after(server, outcome)
    report = {**asdict(outcome), "statuses": dict(sorted(outcome.statuses.items())), "growth_mib": outcome.growth_mib}
    print(json.dumps(report, indent=2))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
