"""Where an answer ends: rules over the text, checked after every committed token, whatever the policy.

Because they see one token at a time, a policy that commits eight at once stops at the same place as one that commits
one. A rule returns the length of the text to keep, or None to go on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from diffusion_core.requests import FinishReason
from diffusion_core.sampling.long_strings import open_string, scan_strings
from diffusion_core.scope import IndentedScope, may_become_clause


@dataclass(frozen=True, slots=True)
class Stop:
    """The answer is the first ``keep`` characters of the text."""

    keep: int
    reason: FinishReason


class StopRule(Protocol):
    """Looks at the whole text so far and at how many of its characters are new."""

    def check(self, text: str, num_new: int) -> Stop | None:
        """Whether the text ends, and where."""
        ...

    def settled(self, text: str) -> int:
        """How many of the characters of a text that goes on cannot be cut off any more."""
        ...

    def check_end(self, text: str) -> Stop | None:
        """As :meth:`check`, of a text behind which nothing comes any more; rules that wait for more decide here."""
        return None


class LineRule(StopRule):
    """Single-line mode: the first line is the answer."""

    def check(self, text: str, num_new: int) -> Stop | None:
        """Stop at the first line break."""
        ends = [i for i in (text.find("\n", len(text) - num_new), text.find("\r", len(text) - num_new)) if i >= 0]
        return Stop(min(ends), FinishReason.LINE) if ends else None

    def settled(self, text: str) -> int:
        """All of it."""
        return len(text)


class FenceRule(StopRule):
    """An edited selection ends where its closing fence stands alone on a line.

    A fence with a word behind it (a Markdown text has such lines) opens a block inside the answer, which the next fence
    that stands alone closes. So a line counts when it is complete, or when the model ends there.
    """

    def __init__(self, fence: str) -> None:
        self._fence = fence
        # What stands behind a fence has no backticks: those would be inline code.
        self._opening = re.compile(rf"({fence}`*)[ \t]*[^`\s][^`]*")
        self._closing = re.compile(rf"({fence}`*)\s*")
        self._nested_closing = re.compile(rf" {{0,3}}({fence}`*)\s*")
        self._unfinished = re.compile(rf"`+|{fence}`*[ \t\r]*")

    def check(self, text: str, num_new: int) -> Stop | None:
        """Stop before the fence; the line break before it belongs to the answer."""
        if "\n" not in text[len(text) - num_new :]:
            return None
        return self._find(text[: text.rfind("\n")])

    def check_end(self, text: str) -> Stop | None:
        """Its last line is complete."""
        return self._find(text)

    def _find(self, text: str) -> Stop | None:
        if self._fence not in text:
            return None
        start, opened = 0, ""
        for line in text.split("\n"):
            if opened:
                closing = self._nested_closing.fullmatch(line)
                opened = "" if closing and len(closing[1]) >= len(opened) else opened
            elif self._closing.fullmatch(line):
                return Stop(start, FinishReason.STOP)
            elif opening := self._opening.fullmatch(line):
                opened = opening[1]
            start += len(line) + 1
        return None

    def settled(self, text: str) -> int:
        """All but a line at the end that may become the fence."""
        start = text.rfind("\n") + 1
        return start if self._unfinished.fullmatch(text, start) else len(text)


class SuffixRule(StopRule):
    """The answer begins to repeat the text after the cursor: two whole lines of it, or its only line."""

    _NUM_LINES = 2
    _MIN_CHARACTERS = 3

    def __init__(self, suffix: str, *, starts_line: bool = False) -> None:
        lines = suffix.split("\n")
        # The rest of the cursor's line is no whole line, unless the cursor stands at the start of one.
        self._first = 0 if starts_line else 1
        self._lines = [line.rstrip() for line in lines[self._first :] if line.strip()][: self._NUM_LINES]

    def check(self, text: str, num_new: int) -> Stop | None:
        """Stop before the first repeated line, once enough lines are repeated."""
        if not self._lines or "\n" not in text[len(text) - num_new :]:
            return None
        if sum(c.isalnum() for line in self._lines for c in line) < self._MIN_CHARACTERS:
            return None
        done = text[: text.rfind("\n") + 1]
        lines = done.splitlines(keepends=True)
        whole = [i for i, line in enumerate(lines) if line.strip() and i >= self._first]
        last = whole[-len(self._lines) :]
        if len(last) < len(self._lines) or [lines[i].rstrip() for i in last] != self._lines:
            return None
        return Stop(len("".join(lines[: last[0]])), FinishReason.SUFFIX)

    def settled(self, text: str) -> int:
        """All but lines at the end that may be the first of the repeated ones."""
        lines = text.splitlines(keepends=True)
        shown = [i for i, line in enumerate(lines) if i >= self._first and (line.strip() or not line.endswith("\n"))]
        for count in range(min(len(self._lines), len(shown)), 0, -1):
            *whole, last = shown[-count:]
            expected = self._lines[count - 1]
            end = lines[last]
            is_alike = end.rstrip() == expected if end.endswith("\n") else expected.startswith(end.rstrip())
            if is_alike and all(lines[i].rstrip() == self._lines[n] for n, i in enumerate(whole)):
                return len("".join(lines[: shown[-count]]))
        return len(text)


class ScopeRule(StopRule):
    """Languages of significant indentation: stop before the first line that leaves the cursor's place."""

    def __init__(self, prefix: str, suffix: str = "", *, has_clauses: bool = True) -> None:
        self._scope = IndentedScope(prefix, suffix, has_clauses=has_clauses)
        self._head = prefix[prefix.rfind("\n") + 1 :]
        # YAML, which has no clauses, has no such strings either.
        self._has_strings = has_clauses
        self._open = open_string(prefix) if has_clauses else ""
        # A text that stays inside until a line below its last one begins: most tokens are in the middle of a line.
        self._inside = ""

    def check(self, text: str, num_new: int) -> Stop | None:
        """Stop before the first line outside; its first character decides."""
        known = self._inside
        if not num_new or (text.startswith(known) and not text[len(known) :].partition("\n")[2].strip()):
            return None
        lines = text.split("\n")
        inside = scan_strings(self._head + text, self._open)[1] if self._has_strings else ()
        outside, is_decided = self._scope.judge(lines, inside)
        if outside is not None:
            return Stop(sum(len(line) + 1 for line in lines[:outside]), FinishReason.SCOPE)
        if is_decided:
            self._inside = text
        return None

    def settled(self, text: str) -> int:
        """All but a line at the end of which too little is known."""
        start = text.rfind("\n") + 1
        return start if start and may_become_clause(text[start:].strip()) else len(text)


class BraceScopeRule(StopRule):
    """Languages of braces: stop behind the line that closes the block of the cursor.

    That is a line which begins with a closing brace, is less deep than the line of the cursor, and opens nothing anew
    (``} else {`` goes on). On a line that leaves a bracket open it is one as deep as that line itself.
    """

    def __init__(self, prefix: str) -> None:
        line = prefix[prefix.rfind("\n") + 1 :]
        body = line.lstrip(" \t")
        is_open = sum(body.count(mark) for mark in "({[") > sum(body.count(mark) for mark in ")}]")
        self._least = len(line) - len(body) + is_open

    def check(self, text: str, num_new: int) -> Stop | None:
        """Stop once the closing line is complete; its line break is not part of the answer."""
        if self._least == 0 or "\n" not in text[len(text) - num_new :]:
            return None
        start = max(text.rfind("\n", 0, len(text) - num_new), 0)
        while (start := text.find("\n", start)) >= 0:
            start += 1
            end = text.find("\n", start)
            if end < 0:
                return None
            line = text[start:end]
            body = line.strip()
            depth = len(line) - len(line.lstrip(" \t"))
            if body.startswith("}") and depth < self._least and not body.endswith(("{", "(", "[")):
                return Stop(end, FinishReason.SCOPE)
        return None

    def settled(self, text: str) -> int:
        """All of it: the closing line belongs to the answer."""
        return len(text)


BRACE_LANGUAGES = frozenset(
    {"javascript", "javascriptreact", "typescript", "typescriptreact", "go", "rust", "java", "c", "cpp", "csharp",
     "kotlin", "swift", "php", "scala", "dart", "zig"}
)  # fmt: skip
INDENTED_LANGUAGES = frozenset({"python", "yaml", "coffeescript", "nim"})


_MOST_PERIOD = 32
LEAST_LOOP = 96  # tokens: fewer make no loop


def _loop_span(period: int) -> int:
    """Tokens that make a loop: at least six equal pieces, and 96. Tables and long literals repeat too: that is high."""
    return max(6 * period, LEAST_LOOP)


# No more tokens than these decide whether a text ends in a loop.
LONGEST_LOOP = _loop_span(_MOST_PERIOD)


def find_repetition(tokens: Sequence[int]) -> int | None:
    """The period of a loop at the end of ``tokens``, or None. It is asked for at each token."""
    if len(tokens) < LEAST_LOOP:
        return None
    last = tokens[-1]
    for period, token in enumerate(tokens[-2 : -2 - _MOST_PERIOD : -1], start=1):
        if token != last or len(tokens) < (span := _loop_span(period)):
            continue
        tail = tokens[-span:]
        if tail[period:] == tail[:-period]:
            return period
    return None


def has_loop(tokens: Sequence[int], period: int) -> bool:
    """Whether a loop of that period stands anywhere in ``tokens``."""
    num_equal = 0
    for at in range(period, len(tokens)):
        num_equal = num_equal + 1 if tokens[at] == tokens[at - period] else 0
        if num_equal >= _loop_span(period) - period:
            return True
    return False
