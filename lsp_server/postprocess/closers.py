"""Closers that the editor added right of the cursor, and that the answer brings along.

Typing ``foo(`` leaves ``foo(|)``. An answer ``a):`` must replace that ``)``, else a stray one remains; an answer ``a``
must leave it. The range that is replaced begins at the cursor and stays on its line.
"""

from __future__ import annotations

from dataclasses import replace

from lsp_server.brackets import CLOSING, QUOTES, TRAILING, balance_of
from lsp_server.postprocess.proposal import Place, Proposal

_SKIPPED = "".join(sorted(CLOSING | TRAILING)) + " \t"


def replace_closers(proposal: Proposal, place: Place) -> Proposal:
    """Take the closers right of the cursor that the answer closes itself into the replaced range.

    Openers that the answer leaves open use up closers at the right, so only the difference is replaced.
    """
    num_leading = len(place.rest) - len(place.rest.lstrip(_SKIPPED))
    # A quote before further text begins a string there; it closes one only where nothing but closers follows.
    closers = CLOSING if num_leading == len(place.rest) else CLOSING - QUOTES
    leading = [index for index in range(num_leading) if place.rest[index] in closers]
    if not leading:
        return proposal
    balance = balance_of(proposal.text, "".join(place.rest[index] for index in leading))
    num_matched = 0
    for index, at in zip(leading, balance.closed, strict=False):
        if place.rest[index] != proposal.text[at]:
            break
        num_matched += 1
    num_taken = num_matched - balance.num_open
    if num_taken <= 0:
        return proposal
    if not place.may_replace:
        return replace(proposal, text=proposal.text[: balance.closed[0]])
    end, at = leading[num_taken - 1] + 1, balance.closed[num_taken - 1] + 1
    while place.rest[end : end + 1] in TRAILING and place.rest[end : end + 1] == proposal.text[at : at + 1]:
        end, at = end + 1, at + 1
    return replace(proposal, num_replaced=end)
