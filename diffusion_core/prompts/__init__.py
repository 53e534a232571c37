"""Prompt formats: how a request becomes what a model reads. Versioned, pure, no torch.

A prompt is a sequence of parts: the name of a special token, or ordinary text. Text is always encoded with
special tokens switched off, so that user code which contains the characters ``<|fim_middle|>`` stays code.

Which format a checkpoint was trained for is stored in its DiffusionConfig, never guessed from a name.
"""

from __future__ import annotations

from diffusion_core.errors import CheckpointError
from diffusion_core.prompts import chatml, in_place, plain, qwen, seed
from diffusion_core.prompts.edits import choose_fence
from diffusion_core.prompts.parts import (
    LINE_COMMENTS,
    Middle,
    Opening,
    Part,
    Prompt,
    PromptFormat,
    Special,
    Text,
    render_snippets,
)
from diffusion_core.prompts.qwen import QWEN_STOP_TOKENS

__all__ = [
    "LINE_COMMENTS", "QWEN_STOP_TOKENS", "Middle", "Opening", "Part", "Prompt", "PromptFormat", "Special", "Text",
    "choose_fence",
    "prompt_format", "render_snippets",
]  # fmt: skip

_FORMATS = {each.name: each for each in (qwen.FORMAT, seed.FORMAT, chatml.FORMAT, *in_place.FORMATS, plain.FORMAT)}


def prompt_format(name: str) -> PromptFormat:
    """The format of that name and version.

    Raises:
        CheckpointError: no such format; the message lists the known ones.
    """
    if name not in _FORMATS:
        raise CheckpointError(f"prompt_format {name!r} is unknown: known are {', '.join(sorted(_FORMATS))}")
    return _FORMATS[name]
