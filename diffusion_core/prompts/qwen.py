"""Qwen2.5-Coder: fill-in-the-middle tokens, its repository format, and edits as a ChatML conversation."""

from __future__ import annotations

from diffusion_core.errors import CheckpointError
from diffusion_core.prompts.conversations import qwen_chat
from diffusion_core.prompts.edits import choose_fence, edit_turns
from diffusion_core.prompts.parts import Part, Prompt, PromptFormat, Special, Text
from diffusion_core.requests import CompletionRequest, EditRequest

QWEN_STOP_TOKENS = (
    "<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip


def _qwen_fim(request: CompletionRequest, layout: str) -> Prompt:
    """Qwen2.5-Coder's fill-in-the-middle tokens in one of three layouts (decoding.md section 4).

    ``suffix_first`` starts the middle with the prefix itself: a typed character then costs only its own token.
    Snippets of other files stand before it all, as in the repositories that the model was trained on.
    """
    return (*_qwen_repository(request), *_qwen_file(request, layout))


def _qwen_repository(request: CompletionRequest) -> Prompt:
    """Other files in Qwen2.5-Coder's repository format; nothing at all without snippets.

    In append order, so that a snippet that is added keeps the ones before it in the prefix cache.
    """
    if not request.snippets:
        return ()
    parts: list[Part] = [Special("<|repo_name|>"), Text(f"{request.repository or 'repository'}\n")]
    for snippet in request.snippets:
        parts += [Special("<|file_sep|>"), Text(f"{snippet.path}\n{snippet.text.rstrip()}\n")]
    return (*parts, Special("<|file_sep|>"), Text(f"{request.path}\n"))


def _qwen_file(request: CompletionRequest, layout: str) -> Prompt:
    prefix, suffix = Text(request.prefix), Text(request.suffix)
    before, after, middle = Special("<|fim_prefix|>"), Special("<|fim_suffix|>"), Special("<|fim_middle|>")
    match layout:
        case "prefix_suffix_middle":
            return (before, prefix, after, suffix, middle)
        case "suffix_prefix_middle":
            return (after, suffix, before, prefix, middle)
        case "suffix_first":
            return (before, after, suffix, middle, prefix)
        case _:
            raise CheckpointError(f"fim_layout {layout!r} is unknown to the prompt format qwen2.5-coder/1")


def chatml_edit(request: EditRequest) -> Prompt:
    """An edit as a conversation in ChatML."""
    turns = edit_turns(request)
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    return (
        start, Text(f"system\n{turns.system}"), end, Text("\n"),
        start, Text(f"user\n{turns.user}"), end, Text("\n"),
        start, Text(f"assistant\n{turns.opening}"),
    )  # fmt: skip


FORMAT = PromptFormat(
    name="qwen2.5-coder/1",
    fim_layouts=("prefix_suffix_middle", "suffix_prefix_middle", "suffix_first"),
    default_fim_layout="suffix_first",
    stop_tokens=QWEN_STOP_TOKENS,
    render_completion=_qwen_fim,
    render_edit=chatml_edit,
    fence=choose_fence,
    render_chat=qwen_chat,
)
