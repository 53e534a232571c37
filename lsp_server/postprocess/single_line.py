"""In single-line mode an answer ends with its first line."""

from __future__ import annotations

from dataclasses import replace

from lsp_server.postprocess.proposal import Place, Proposal


def keep_one_line(proposal: Proposal, place: Place) -> Proposal:
    """Cut at the first line end, in single-line mode only."""
    return replace(proposal, text=proposal.text.split("\n", 1)[0]) if place.single_line else proposal
