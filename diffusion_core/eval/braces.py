"""Where the body that a prompt began ends, in languages of braces and in Ruby.

A file of tests that follows the answer tells how many blocks it expects to be closed: prompt, answer and tests
together are balanced. What a model goes on with behind that is not part of its answer.
"""

from __future__ import annotations

import re

# Line comments, block comments, strings with escapes, templates; ``#`` starts a comment in Perl, PHP and Ruby only.
_SKIPPED = "|".join(
    (
        r"//[^\n]*",
        r"/\*.*?(?:\*/|\Z)",
        r"\"(?:\\.|[^\"\\\n])*(?:\"|\n|\Z)",
        r"'(?:\\.|[^'\\\n])*(?:'|\n|\Z)",
        r"`(?:\\.|[^`\\])*(?:`|\Z)",
    )
)
_TOKENS = re.compile(rf"{_SKIPPED}|[{{}}]", re.DOTALL)
_TOKENS_HASH = re.compile(rf"(?<!\$)\#[^\n]*|{_SKIPPED}|[{{}}]", re.DOTALL)
HASH_COMMENTS = frozenset({"perl", "php", "ruby"})


def _braces(text: str, language: str) -> list[tuple[int, int]]:
    """Offsets behind the braces of the code, with +1 or -1; those in strings and comments are left out."""
    tokens = _TOKENS_HASH if language in HASH_COMMENTS else _TOKENS
    return [
        (match.end(), 1 if match.group() == "{" else -1)
        for match in tokens.finditer(text)
        if match.group() in {"{", "}"}
    ]


def balance(text: str, language: str) -> int:
    """Opened less closed braces."""
    return sum(step for _, step in _braces(text, language))


def cut_body(answer: str, prompt: str, tests: str, language: str) -> str:
    """``answer`` up to the brace that closes what ``prompt`` opened and ``tests`` leave to it, or all of it."""
    target = -(balance(prompt, language) + balance(tests, language))
    if target >= 0:
        return answer
    depth = 0
    for end, step in _braces(answer, language):
        depth += step
        if depth == target:
            return answer[:end]
    return answer


def cut_ruby(answer: str) -> str:
    """``answer`` up to the first ``end`` at the left margin, which ends a top-level method."""
    match = re.search(r"^end\b[^\n]*", answer, re.MULTILINE)
    return answer[: match.end()] if match else answer
