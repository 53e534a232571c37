"""Small models sometimes begin an answer with what stands above the selection, or end it with what stands below."""

from __future__ import annotations

from lsp_server.text_sync import split_lines

MIN_CHARACTERS = 10  # of an echo; less may be a coincidence


def strip_echo(before: str, selection: str, after: str, answer: str) -> str:
    r"""The answer without the whole text above it at its beginning, or the whole text below it at its end.

    Only what was shown to the model in full counts, line by line and blank lines aside, and only where the selection
    itself does not begin or end like that. All texts have ``\n`` line ends.
    """
    lines = split_lines(answer)
    head, tail = _contents(before), _contents(after)
    own = _contents(selection)
    start, end = 0, len(lines)
    if _is_telling(head) and own[: len(head)] != head:
        start = _length_of(head, lines)
    if _is_telling(tail) and own[-len(tail) :] != tail:
        end -= _length_of(tail[::-1], lines[start:][::-1])
    if start == 0 and end == len(lines):
        return answer
    kept = "".join(lines[start:end]).strip("\n")
    return kept + "\n" if kept and answer.endswith("\n") else kept


def _contents(text: str) -> list[str]:
    return [line.rstrip() for line in text.split("\n") if line.strip()]


def _is_telling(contents: list[str]) -> bool:
    return sum(map(len, contents)) >= MIN_CHARACTERS


def _length_of(wanted: list[str], lines: list[str]) -> int:
    """How many of the lines say what is wanted, blank ones among them; 0 if they say something else."""
    matched = 0
    for number, line in enumerate(lines):
        if matched == len(wanted):
            return number
        if not line.strip():
            continue
        if line.rstrip() != wanted[matched]:
            return 0
        matched += 1
    return len(lines) if matched == len(wanted) else 0
