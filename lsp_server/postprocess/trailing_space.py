"""White space at the end of an answer is invisible in ghost text and unwanted in the file."""

from __future__ import annotations

from dataclasses import replace

from lsp_server.postprocess.proposal import Place, Proposal


def trim_trailing_space(proposal: Proposal, place: Place) -> Proposal:
    """Cut white space and empty lines at the end; before further text on the line a space is kept."""
    trimmed = proposal.text.rstrip()
    if place.rest[proposal.num_replaced :].strip() and proposal.text[len(trimmed) :].startswith(" "):
        trimmed += " "
    return replace(proposal, text=trimmed)
