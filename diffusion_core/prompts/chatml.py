"""Chat models in ChatML that were not trained to fill in the middle: edits, and continuation at the end of a text."""

from __future__ import annotations

from diffusion_core.errors import CheckpointError
from diffusion_core.prompts.conversations import chatml_chat
from diffusion_core.prompts.edits import choose_fence
from diffusion_core.prompts.parts import Prompt, PromptFormat
from diffusion_core.prompts.plain import continuation
from diffusion_core.prompts.qwen import chatml_edit
from diffusion_core.requests import CompletionRequest


def _continue_at_the_end(request: CompletionRequest, layout: str) -> Prompt:
    """Text that ends at the cursor is continued; text behind it could only be ignored, and that would be a lie."""
    if request.suffix.strip():
        raise CheckpointError(
            "filling in the middle is not supported by this model: it was trained to chat and to continue text only. "
            "Complete at the end of a text, ask for an edit, or choose a model with fill-in-the-middle (unmask models)"
        )
    return continuation(request)


FORMAT = PromptFormat(
    name="chatml/1",
    fim_layouts=("prefix_only",),
    default_fim_layout="prefix_only",
    stop_tokens=("<|endoftext|>", "<|im_end|>", "<|im_start|>"),
    render_completion=_continue_at_the_end,
    render_edit=chatml_edit,
    fence=choose_fence,
    render_chat=chatml_chat,
)
