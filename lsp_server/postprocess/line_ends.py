"""An answer takes the line ends of the document around it."""

from __future__ import annotations

from dataclasses import replace

from lsp_server.postprocess.proposal import Place, Proposal
from lsp_server.snapshot import Snapshot


def line_end_near(snapshot: Snapshot, line: int) -> str:
    r"""The terminator of a line, else of the one before it, else ``\n``."""
    for nearby in (line, line - 1):
        if nearby >= 0:
            terminator = snapshot.lines[nearby][len(snapshot.content(nearby)) :]
            if terminator:
                return terminator
    return "\n"


def use_line_ends(proposal: Proposal, place: Place) -> Proposal:
    r"""Replace the engine's ``\n``."""
    return proposal if place.line_end == "\n" else replace(proposal, text=proposal.text.replace("\n", place.line_end))
