"""Answers that are not worth showing."""

from __future__ import annotations

from lsp_server.brackets import is_only_closers
from lsp_server.postprocess.proposal import Drop, Place, Proposal


def drop_worthless(proposal: Proposal, place: Place) -> Proposal | Drop:
    """Drop white space, what stands there already, what the next line says, and unasked-for closers."""
    text = proposal.text.strip()
    if not text:
        return Drop("blank")
    if proposal.text == place.rest[: proposal.num_replaced]:
        return Drop("nothing_new")
    next_line = next((line.strip() for line in place.following if line.strip()), "")
    if text == next_line:
        return Drop("repeats_next_line")
    if is_only_closers(text) and not place.invoked:
        return Drop("only_closers")
    return proposal
