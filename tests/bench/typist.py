"""An editor's user for the soak: types a source at a person's pace and notes how every request ended."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from helpers.lsp_client import URI, EditorClient, LspError

KEY_S = (0.03, 0.15)
MAX_RSS_MB = 150
MAX_GROWTH_MB = 6
MAX_ANSWER_MS = 10
MIN_FOR_P95 = 200  # of fewer, two that met a busy moment are the 95th percentile
CANCELLED = -32800


@dataclass(kw_only=True)
class Report:
    """What was seen. Times are milliseconds, memory is megabytes."""

    seconds: float = 0.0
    num_keys: int = 0
    num_requests: int = 0
    num_answers: int = 0
    num_answered_twice: int = 0
    num_cancelled: int = 0
    num_typed_through: int = 0
    typed_through_p50: float = 0.0
    typed_through_p95: float = 0.0
    status_p50: float = 0.0
    status_p95: float = 0.0
    rss_peak: float = 0.0
    rss_growth: float = 0.0
    num_stops: int = 0
    cancel_ms: float = 0.0
    max_forwards_after_cancel: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """What must hold and did not."""
        checks = {
            f"{self.num_requests} requests, {self.num_answers} answers": self.num_requests == self.num_answers,
            f"{self.num_answered_twice} requests were answered twice": not self.num_answered_twice,
            f"the language server took {self.rss_peak:.0f} MB": self.rss_peak <= MAX_RSS_MB,
            f"it grew by {self.rss_growth:.1f} MB": self.rss_growth <= MAX_GROWTH_MB,
            f"{self.max_forwards_after_cancel} forwards after a cancel": self.max_forwards_after_cancel <= 1,
            self._compare("p50"): self.typed_through_p50 <= self.status_p50 + MAX_ANSWER_MS,
        }
        if self.num_typed_through >= MIN_FOR_P95:
            checks[self._compare("p95")] = self.typed_through_p95 <= self.status_p95 + MAX_ANSWER_MS
        return [*(text for text, holds in checks.items() if not holds), *self.errors]

    def _compare(self, quantile: str) -> str:
        through, nothing = getattr(self, f"typed_through_{quantile}"), getattr(self, f"status_{quantile}")
        return f"{quantile} of what needs no engine is {through:.1f} ms, of nothing {nothing:.1f} ms"


def quantile(values: list[float], share: float) -> float:
    """The value that ``share`` of all do not exceed; 0 of none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


class Typist:
    """Types the source as VS Code tells it: cancel, change, request at every key."""

    def __init__(self, editor: EditorClient, source: str, seed: int) -> None:
        self.editor, self.source = editor, source
        self.rng = random.Random(seed)
        self.report = Report()
        self.through: list[float] = []
        self.nothing: list[float] = []
        self.shown: dict[str, Any] | None = None
        self._asked = 0
        self._pending: tuple[int, asyncio.Future[Any]] | None = None
        self._futures: list[asyncio.Future[Any]] = []
        self._at = 0  # how much of the source is in the document
        self._place = (0, 0)

    def open(self) -> None:
        """A new document with the first lines of the source."""
        self._at = self.rng.randint(200, len(self.source) // 2)
        text = self.source[: self._at]
        self.editor.open(text)
        self._place = (text.count("\n"), len(text) - text.rfind("\n") - 1)

    async def type_for(self, seconds: float) -> None:
        """Keys, now and then something else."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._at >= len(self.source) - 10:
                self.editor.notify("textDocument/didClose", {"textDocument": {"uri": URI}})
                self.open()
            self.key()
            await asyncio.sleep(self.rng.uniform(*KEY_S))
            dice = self.rng.random()
            if dice < 0.02:
                await self.think_and_accept()
            elif dice < 0.04:
                self.erase()
            elif dice < 0.05:
                self.ask(invoked=True)
            elif dice < 0.055:
                await self.edit_and_cancel()
            elif dice < 0.15:
                await self.say_nothing()

    def key(self) -> None:
        """The next character of the source."""
        character = self.source[self._at]
        self.insert(character)
        self.ask(through=self.shown is not None and len(self.shown["insertText"]) > 1 and
                 self.shown["insertText"].startswith(character))  # fmt: skip
        self.report.num_keys += 1

    def insert(self, text: str) -> None:
        self.cancel()
        self.editor.change(self._place, self._place, text)
        self._at += len(text)
        line, column = self._place
        self._place = (line + text.count("\n"), len(text) - text.rfind("\n") - 1 + (0 if "\n" in text else column))

    def erase(self) -> None:
        """One character back."""
        line, column = self._place
        if column:
            self.cancel()
            self.editor.change((line, column - 1), (line, column), "")
            self._at, self._place = self._at - 1, (line, column - 1)
            self.ask()

    def ask(self, *, invoked: bool = False, through: bool = False) -> None:
        """A request; its answer is what is shown unless a newer one was made."""
        self.cancel()
        self.shown = None
        self._asked += 1
        number, begin = self._asked, time.perf_counter()
        self._pending = self.editor.begin_inline(*self._place, invoked=invoked)
        future = self._pending[1]

        def take(done: asyncio.Future[Any]) -> None:
            if self._note(done) and number == self._asked:
                items = done.result()["items"]
                self.shown = items[0] if items else None
                if through and items:
                    self.through.append(1000 * (time.perf_counter() - begin))

        future.add_done_callback(take)
        self._futures.append(future)

    def cancel(self) -> None:
        """What VS Code does at every key with the request before."""
        if self._pending is not None and not self._pending[1].done():
            self.editor.cancel(self._pending[0])
        self._pending = None

    async def think_and_accept(self) -> None:
        """Look at the suggestion; take it if it is right."""
        await asyncio.sleep(self.rng.uniform(0.2, 0.5))
        item = self.shown
        if item is not None and self.source.startswith(item["insertText"], self._at):
            self.insert(item["insertText"])
            await self.editor.execute(item["command"]["command"], *item["command"]["arguments"])
            self.ask()

    async def edit_and_cancel(self) -> None:
        """An instruction that the user thinks better of."""
        spot = {"line": self._place[0], "character": 0}
        argument = {"uri": URI, "range": {"start": spot, "end": spot}, "instruction": "improve", "apply": False}
        params = {"command": "unmask.edit", "arguments": [argument]}
        request_id, future = self.editor.begin("workspace/executeCommand", params)
        future.add_done_callback(self._note)
        self._futures.append(future)
        await asyncio.sleep(0.05)
        self.editor.cancel(request_id)

    async def say_nothing(self) -> None:
        """How long the shortest request takes now."""
        begin = time.perf_counter()
        await self.editor.execute("unmask.status")
        self.nothing.append(1000 * (time.perf_counter() - begin))

    async def finish(self) -> Report:
        """Wait for what is under way and count."""
        await asyncio.wait(self._futures, timeout=20)
        report, answers = self.report, self.editor.answers
        report.num_requests, report.num_answers = self.editor._next_id, len(answers)
        report.num_answered_twice = sum(count > 1 for count in answers.values())
        report.num_typed_through = len(self.through)
        report.typed_through_p50 = median(self.through) if self.through else 0.0
        report.typed_through_p95 = quantile(self.through, 0.95)
        report.status_p50 = median(self.nothing) if self.nothing else 0.0
        report.status_p95 = quantile(self.nothing, 0.95)
        return report

    def _note(self, done: asyncio.Future[Any]) -> bool:
        """Whether it is an answer; anything but one or a cancel is an error of the run."""
        error = done.exception()
        if error is None:
            return True
        if isinstance(error, LspError) and error.code == CANCELLED:
            self.report.num_cancelled += 1
        else:
            self.report.errors.append(f"{type(error).__name__}: {error}")
        return False
