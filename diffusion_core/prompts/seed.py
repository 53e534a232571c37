"""Seed-Coder and Stable-DiffCoder: the suffix stands first (SPM), and turns are sentences of their own."""

from __future__ import annotations

from diffusion_core.errors import CheckpointError
from diffusion_core.prompts.conversations import seed_chat
from diffusion_core.prompts.edits import choose_fence, edit_turns
from diffusion_core.prompts.parts import Opening, Prompt, PromptFormat, Special, Text, render_snippets
from diffusion_core.requests import CompletionRequest, EditRequest

BEGIN, END = Special("<[begin▁of▁sentence]>"), Special("<[end▁of▁sentence]>")
SEED_STOP_TOKENS = (
    END.name, BEGIN.name, "<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>",
    "<[PAD▁TOKEN]>", "<[SEP▁TOKEN]>",
)  # fmt: skip


def _render_fim(request: CompletionRequest, layout: str) -> Prompt:
    """Suffix, prefix, middle: the one order of the training; what other files add stands before the prefix."""
    if layout != "suffix_prefix_middle":
        raise CheckpointError(f"fim_layout {layout!r} is unknown to the prompt format seed-coder/1")
    others = render_snippets(request.snippets, request.language)
    return (
        Opening(), Special("<[fim-suffix]>"), Text(request.suffix),
        Special("<[fim-prefix]>"), Text(others + request.prefix),
        Special("<[fim-middle]>"),
    )  # fmt: skip


def _render_edit(request: EditRequest) -> Prompt:
    turns = edit_turns(request)
    return (
        BEGIN, Text(f"system\n{turns.system}\n\n"), END,
        BEGIN, Text(f"user\n{turns.user}"), END,
        BEGIN, Text(f"assistant\n{turns.opening}"),
    )  # fmt: skip


FORMAT = PromptFormat(
    name="seed-coder/1",
    fim_layouts=("suffix_prefix_middle",),
    default_fim_layout="suffix_prefix_middle",
    stop_tokens=SEED_STOP_TOKENS,
    render_completion=_render_fim,
    render_edit=_render_edit,
    fence=choose_fence,
    render_chat=seed_chat,
)
