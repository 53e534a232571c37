"""A model that only continues text: no markers, the suffix is not shown. Also what tiny random models use."""

from __future__ import annotations

from diffusion_core.prompts.parts import Prompt, PromptFormat, Text, render_snippets
from diffusion_core.requests import CompletionRequest, EditRequest


def continuation(request: CompletionRequest) -> Prompt:
    """The text before the cursor behind the snippets. A model cannot continue nothing: then a line break."""
    return (Text(render_snippets(request.snippets, request.language) + request.prefix or "\n"),)


def _render_edit(request: EditRequest) -> Prompt:
    return (Text(f"{request.before}{request.selection}\n{request.instruction}\n"),)


FORMAT = PromptFormat(
    name="plain/1",
    fim_layouts=("prefix_only",),
    default_fim_layout="prefix_only",
    stop_tokens=(),
    render_completion=lambda request, _: continuation(request),
    render_edit=_render_edit,
)
