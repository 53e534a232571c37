"""Recent answers of the engine, and reuse of them while the user types along.

An answer is kept under the text around the place it was made for. Text typed since then that agrees with the answer
is peeled off its front; what remains is served without asking the engine.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lsp_server.brackets import CLOSING, OPENER_OF

MAX_SUGGESTIONS = 250
MAX_TYPED = 128  # characters that are looked back for
PREFIX_KEY_CHARS = 1000
SUFFIX_KEY_CHARS = 400
MAX_AUTO_CLOSERS = 3


@dataclass(frozen=True, kw_only=True)
class Query:
    """What an answer depends on: the document, the model, the mode, and the text around the cursor."""

    uri: str
    language: str
    model: str
    single_line: bool
    prefix: str
    suffix: str


@dataclass(frozen=True)
class Advance:
    """What remains of an earlier answer after ``typed`` was typed.

    ``alternatives`` are other texts that fit as well, the best first; the engine was asked for ``num_asked`` texts.
    """

    text: str
    typed: str
    alternatives: tuple[str, ...] = ()
    num_asked: int = 1


@dataclass(frozen=True)
class _Answer:
    texts: tuple[str, ...]
    num_asked: int


Key = tuple[str, str, str, bool, str, str]


def _key(query: Query, prefix: str, suffix: str) -> Key:
    tail, head = prefix[-PREFIX_KEY_CHARS:], suffix[:SUFFIX_KEY_CHARS]
    return (query.uri, query.language, query.model, query.single_line, tail, head)


def earlier_suffixes(typed: str, suffix: str) -> Iterator[str]:
    """What may have stood after the cursor before ``typed`` was.

    The same; or it without the closers that the editor added for the openers typed; or it with the closer that was
    typed over.
    """
    yield suffix
    for count in range(1, MAX_AUTO_CLOSERS + 1):
        closer = suffix[count - 1 : count]
        if closer not in CLOSING or OPENER_OF[closer] not in typed:
            break
        yield suffix[count:]
    for closer in sorted(CLOSING.intersection(typed)):
        yield closer + suffix


def typed_since(old: Query, new: Query, limit: int) -> str | None:
    """The text typed between two queries, at most ``limit`` characters; None if they differ in anything else."""
    if (old.uri, old.language, old.model, old.single_line) != (new.uri, new.language, new.model, new.single_line):
        return None
    tail = old.prefix[-PREFIX_KEY_CHARS:]
    for count in range(min(limit, len(new.prefix)) + 1):
        split = len(new.prefix) - count
        # Near the beginning of the document the whole prefix is compared, so lengths must agree too.
        if new.prefix[:split][-PREFIX_KEY_CHARS:] != tail:
            continue
        typed = new.prefix[split:]
        head = old.suffix[:SUFFIX_KEY_CHARS]
        if any(suffix[:SUFFIX_KEY_CHARS] == head for suffix in earlier_suffixes(typed, new.suffix)):
            return typed
    return None


class SuggestionStore:
    """The latest answers, oldest dropped first."""

    def __init__(self, capacity: int = MAX_SUGGESTIONS) -> None:
        self._capacity = capacity
        self._answers: OrderedDict[Key, _Answer] = OrderedDict()
        self._last: tuple[Query, str] | None = None

    def __len__(self) -> int:
        return len(self._answers)

    def clear(self) -> None:
        """Forget everything: another engine or model may answer differently."""
        self._answers.clear()
        self._last = None

    def add(self, query: Query, text: str, alternatives: Sequence[str] = (), *, num_asked: int = 1) -> None:
        """Keep an answer; an empty one too, it saves asking again at the same place."""
        key = _key(query, query.prefix, query.suffix)
        self._answers[key] = _Answer((text, *alternatives), num_asked)
        self._answers.move_to_end(key)
        if text:
            self._last = (query, text)
        while len(self._answers) > self._capacity:
            self._answers.popitem(last=False)

    def advance(self, query: Query) -> Advance | None:
        """What remains of an answer that agrees with everything typed since it was made; None asks the engine.

        An answer that was typed to its end counts as none: the engine must say how it goes on.
        """
        for count in range(min(MAX_TYPED, len(query.prefix)) + 1):
            split = len(query.prefix) - count
            typed = query.prefix[split:]
            for suffix in earlier_suffixes(typed, query.suffix):
                key = _key(query, query.prefix[:split], suffix)
                answer = self._answers.get(key)
                if answer is None:
                    continue
                fitting = [t for t in answer.texts if t.startswith(typed) and not (count and len(t) == count)]
                if not fitting:
                    continue
                self._answers.move_to_end(key)
                text, *others = (t[count:] for t in fitting)
                return Advance(text, typed, tuple(others), answer.num_asked)
        return None

    def draft_for(self, query: Query) -> str:
        """A guess at the answer from the last one that no longer fits exactly; the engine only tries it."""
        if self._last is None:
            return ""
        last, text = self._last
        typed = typed_since(last, query, MAX_TYPED)
        return text[len(typed) :] if typed is not None else ""
