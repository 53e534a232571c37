"""Where an answer ends because its request says so: at given texts, at a shallow line, or when time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from diffusion_core.requests import FinishReason
from diffusion_core.sampling.stop import Stop, StopRule


class TextRule(StopRule):
    """Stop before the first of some texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = tuple(texts)
        self._longest = max(map(len, self._texts), default=0)

    def check(self, text: str, num_new: int) -> Stop | None:
        """Stop where the earliest of the texts begins."""
        start = max(0, len(text) - num_new - self._longest + 1)
        found = [at for each in self._texts if (at := text.find(each, start)) >= 0]
        return Stop(min(found), FinishReason.TEXT) if found else None

    def settled(self, text: str) -> int:
        """All but what may be the beginning of one of the texts."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if any(each.startswith(text[start:]) for each in self._texts):
                return start
        return len(text)


class IndentRule(StopRule):
    """Stop before a line that is indented less than it should be; blank lines and the cursor's line do not count."""

    def __init__(self, least: int) -> None:
        self._least = least

    def check(self, text: str, num_new: int) -> Stop | None:
        """Stop before the first such line; its first character decides."""
        start = 0
        for number, line in enumerate(text.split("\n")):
            if number and line.strip() and len(line) - len(line.lstrip(" \t")) < self._least:
                return Stop(start, FinishReason.SCOPE)
            start += len(line) + 1
        return None

    def settled(self, text: str) -> int:
        """All but a line at the end that is blank so far."""
        start = text.rfind("\n") + 1
        return start if start and not text[start:].strip() else len(text)


class TimeRule(StopRule):
    """Stop when ``limit_ms`` milliseconds have passed since the first text, once there is a whole line."""

    def __init__(self, limit_ms: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._limit_ms, self._clock = limit_ms, clock
        self._began = 0.0

    def check(self, text: str, num_new: int) -> Stop | None:
        """Stop behind what is there."""
        now = self._clock()
        self._began = self._began or now
        is_late = (now - self._began) * 1000 >= self._limit_ms
        return Stop(len(text), FinishReason.DEADLINE) if is_late and "\n" in text else None

    def settled(self, text: str) -> int:
        """All of it."""
        return len(text)
