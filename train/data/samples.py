"""A sample: the tokens of one example as the trainer gets them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sample:
    """Prompt and answer of one example.

    ``tokens`` int64 [T]: the prompt's ``num_prompt`` tokens, which are context only, then the answer with its stop
    token; without ``is_finished`` (a window out of a longer document) it breaks off instead, and nothing is known of
    what follows. ``answer_changed`` bool [T - num_prompt]: for edits the tokens that differ from the original, the
    first token after a deletion among them; else all. ``original`` int64 [*]: for edits the draft that serving starts
    from (the selection and its closing fence), else empty. ``id`` names the example in its corpus.
    """

    tokens: torch.Tensor
    num_prompt: int
    kind: str
    answer_changed: torch.Tensor
    original: torch.Tensor
    id: str = ""
    is_finished: bool = True
