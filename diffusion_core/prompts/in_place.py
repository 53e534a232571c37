"""Models that are denoised as a whole: the middle is filled in where it stands, between the text before and behind.

Nothing marks the middle but the masks themselves. Where a chat format was trained, edits are asked in it.
"""

from __future__ import annotations

from collections.abc import Callable

from diffusion_core.prompts.conversations import chatml_chat, llada_chat
from diffusion_core.prompts.edits import choose_fence, edit_turns
from diffusion_core.prompts.parts import Middle, Part, Prompt, PromptFormat, Special, Text, render_snippets
from diffusion_core.prompts.qwen import chatml_edit
from diffusion_core.requests import CompletionRequest, EditRequest

LAYOUT = "in_place"


def _fill(begin: tuple[Part, ...], end: tuple[Part, ...]) -> Callable[[CompletionRequest, str], Prompt]:
    """Prefix, middle, suffix; without a suffix the answer goes on to an open end."""

    def render(request: CompletionRequest, layout: str) -> Prompt:
        # The first row has to stand somewhere: a text that begins at the cursor begins with a line break.
        before = render_snippets(request.snippets, request.language) + request.prefix
        head = (*begin, Text(before or ("" if begin else "\n")), Middle())
        return (*head, Text(request.suffix), *end) if request.suffix else head

    return render


def _llada_edit(request: EditRequest) -> Prompt:
    """Its conversations know user and assistant: what a system would say stands at the head of the user's turn."""
    turns = edit_turns(request)
    start, end, done = Special("<|start_header_id|>"), Special("<|end_header_id|>"), Special("<|eot_id|>")
    return (
        Special("<|startoftext|>"),
        start, Text("user"), end, Text(f"\n\n{turns.system}\n\n{turns.user}"), done,
        start, Text("assistant"), end, Text(f"\n\n{turns.opening}"),
    )  # fmt: skip


_CHATML_STOPS = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")

DREAM = PromptFormat(
    name="dream/1",
    fim_layouts=(LAYOUT,),
    default_fim_layout=LAYOUT,
    stop_tokens=(*_CHATML_STOPS, "<|beginoftext|>", "<|dlm_pad|>"),
    # DreamOn's order, the one of this family that was trained to fill in.
    render_completion=_fill((Special("<|beginoftext|>"),), (Special("<|endoftext|>"),)),
    render_edit=chatml_edit,
    fence=choose_fence,
    render_chat=chatml_chat,
)

DIFFUCODER = PromptFormat(
    name="diffucoder/1",
    fim_layouts=(LAYOUT,),
    default_fim_layout=LAYOUT,
    stop_tokens=(*_CHATML_STOPS, "<|dlm_pad|>"),
    render_completion=_fill((), ()),
    render_edit=chatml_edit,
    fence=choose_fence,
    render_chat=chatml_chat,
)

LLADA = PromptFormat(
    name="llada/1",
    fim_layouts=(LAYOUT,),
    default_fim_layout=LAYOUT,
    stop_tokens=("<|endoftext|>", "<|eot_id|>", "<|startoftext|>", "<|start_header_id|>"),
    render_completion=_fill((Special("<|startoftext|>"),), ()),
    render_edit=_llada_edit,
    fence=choose_fence,
    render_chat=llada_chat,
)

CHATML = PromptFormat(
    name="chatml-infill/1",
    fim_layouts=(LAYOUT,),
    default_fim_layout=LAYOUT,
    stop_tokens=_CHATML_STOPS,
    render_completion=_fill((), ()),
    render_edit=chatml_edit,
    fence=choose_fence,
    render_chat=chatml_chat,
)

# Trained on code alone: it was never asked anything, so it has no edits.
TEXT_ONLY = PromptFormat(
    name="infill/1",
    fim_layouts=(LAYOUT,),
    default_fim_layout=LAYOUT,
    stop_tokens=_CHATML_STOPS,
    render_completion=_fill((), ()),
    render_edit=None,
)

FORMATS = (DREAM, DIFFUCODER, LLADA, CHATML, TEXT_ONLY)
