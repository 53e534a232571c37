"""Models that do not know how to go on repeat: themselves, or the lines above."""

from __future__ import annotations

from dataclasses import replace

from lsp_server.postprocess.proposal import Drop, Place, Proposal

MAX_PERIOD = 8  # lines of a loop
MIN_ROUNDS = 3  # that make it one
MIN_LETTERS = 4  # of a line that may not be said again


def cut_repetition(proposal: Proposal, place: Place) -> Proposal | Drop:
    """Drop an answer that says the lines above again; keep one round of a loop of lines."""
    lines = proposal.text.split("\n")
    if _repeats_above(lines, place):
        return Drop("repeats_lines_above")
    return replace(proposal, text="\n".join(_without_loop(lines, place.head)))


def _repeats_above(lines: list[str], place: Place) -> bool:
    """Whether the whole answer is what stands right above it."""
    whole = [(place.head + lines[0]).strip(), *(line.strip() for line in lines[1:])]
    said = [line for line in whole if line]
    above = [line.strip() for line in place.preceding if line.strip()][-len(said) :] if said else []
    return said == above and sum(character.isalpha() for line in said for character in line) >= MIN_LETTERS


def _without_loop(lines: list[str], head: str) -> list[str]:
    """The lines up to the end of the first round of a loop that goes on to the end of the answer.

    The last round may be cut short, because the budget ended there.
    """
    whole = [head + lines[0], *lines[1:]]
    while len(whole) > 1 and not whole[-1].strip():
        whole.pop()
    for period in range(1, MAX_PERIOD + 1):
        begin = len(whole) - 1
        # A line that agrees with the one a period before it, from the end backwards; the last one may be unfinished.
        while begin >= period and (
            whole[begin] == whole[begin - period]
            or (begin == len(whole) - 1 and whole[begin] and whole[begin - period].startswith(whole[begin]))
        ):
            begin -= 1
        round_start = begin + 1 - period
        num_lines = len(whole) - round_start
        one_round = whole[max(round_start, 0) : begin + 1]
        if num_lines >= MIN_ROUNDS * period and any(character.isalnum() for line in one_round for character in line):
            return lines[: begin + 1]
    return lines
