"""Prompt formats: how a request becomes what a model reads. Versioned, pure, no torch.

A prompt is a sequence of parts: the name of a special token, or ordinary text. Text is always encoded with
special tokens switched off, so that user code which contains the characters ``<|fim_middle|>`` stays code.

Which format a checkpoint was trained for is stored in its DiffusionConfig, never guessed from a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffusion_core.errors import CheckpointError
from diffusion_core.requests import CompletionRequest, EditRequest, Snippet


@dataclass(frozen=True, slots=True)
class Special:
    """One special token by its name in the tokenizer."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """Ordinary text; never read as special tokens."""

    text: str


Part = Special | Text
Prompt = tuple[Part, ...]

LINE_COMMENTS = {
    "python": "#", "ruby": "#", "shellscript": "#", "yaml": "#", "toml": "#", "r": "#", "perl": "#", "elixir": "#",
    "lua": "--", "sql": "--", "haskell": "--",
    "javascript": "//", "typescript": "//", "javascriptreact": "//", "typescriptreact": "//", "go": "//",
    "rust": "//", "java": "//", "c": "//", "cpp": "//", "csharp": "//", "kotlin": "//", "swift": "//", "php": "//",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How a family of checkpoints wants to be asked.

    ``render_completion(request, layout)`` and ``render_edit(request)`` give prompts; ``stop_tokens`` end an answer;
    ``fence(request)`` is what closes the edited selection inside an answer, at the start of a line.
    """

    name: str
    fim_layouts: tuple[str, ...]
    default_fim_layout: str
    stop_tokens: tuple[str, ...]
    render_completion: Callable[[CompletionRequest, str], Prompt]
    render_edit: Callable[[EditRequest], Prompt] | None
    fence: Callable[[EditRequest], str] | None = None


def render_snippets(snippets: Sequence[Snippet], language: str) -> str:
    """Other files' pieces as comment-headed text; empty when there are none. Append order is kept for the cache."""
    mark = LINE_COMMENTS.get(language, "#")
    return "".join(f"{mark} {snippet.path}\n{snippet.text.rstrip()}\n\n" for snippet in snippets)


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


def choose_fence(request: EditRequest) -> str:
    """Backticks for the code fences of an edit: more of them than stand anywhere in the request."""
    shown = (request.before, request.selection, request.after, request.instruction)
    runs = [len(run) for text in shown for run in re.findall("`+", text)]
    return "`" * max(3, max(runs, default=0) + 1)


EDIT_SYSTEM = "You are a precise code editor."


def _qwen_edit(request: EditRequest) -> Prompt:
    """A chat turn that shows the selection and asks for its edited version in one code fence.

    The text around the selection stands in the system turn: shown in the user's turn, the 1.5B model copied it into
    its answer (EXPERIMENTS.md). What changes last, the instruction, comes last, for the prefix cache. The answer's
    opening fence is part of the prompt, so that the first generated token is already code.
    """
    close = choose_fence(request)
    fence = f"{close}{request.language}\n"
    selection = request.selection if request.selection.endswith("\n") else request.selection + "\n"
    question = (
        f"Code:\n{fence}{selection}{close}\n\n"
        f"Instruction: {request.instruction.strip()}\n\n"
        "Reply with the whole edited code in one code block, nothing else. Keep everything that the instruction "
        "does not ask to change."
    )
    start, end = Special("<|im_start|>"), Special("<|im_end|>")
    return (
        start, Text(f"system\n{EDIT_SYSTEM}{_describe_surroundings(request, fence, close)}"), end, Text("\n"),
        start, Text(f"user\n{question}"), end, Text("\n"),
        start, Text(f"assistant\n{fence}"),
    )  # fmt: skip


def _describe_surroundings(request: EditRequest, fence: str, close: str) -> str:
    """What stands around the selection, told not to be repeated; empty when nothing does."""
    shown = {
        "Other files have": render_snippets(request.snippets, request.language),
        "Before the part": request.before,
        "After the part": request.after,
    }
    pieces = [f"{name}:\n{fence}{text.rstrip()}\n{close}\n" for name, text in shown.items() if text.strip()]
    if not pieces:
        return ""
    told = "Never repeat these; reply with the edited part only."
    return f"\n\nThe user edits one part of a file. {''.join(pieces)}{told}"


QWEN_STOP_TOKENS = (
    "<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
    "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip

_FORMATS = {
    "qwen2.5-coder/1": PromptFormat(
        name="qwen2.5-coder/1",
        fim_layouts=("prefix_suffix_middle", "suffix_prefix_middle", "suffix_first"),
        default_fim_layout="suffix_first",
        stop_tokens=QWEN_STOP_TOKENS,
        render_completion=_qwen_fim,
        render_edit=_qwen_edit,
        fence=choose_fence,
    ),
    # A model that only continues text: no markers, the suffix is not shown. Also what tiny random models use.
    "plain/1": PromptFormat(
        name="plain/1",
        fim_layouts=("prefix_only",),
        default_fim_layout="prefix_only",
        stop_tokens=(),
        render_completion=lambda request, _: (
            # A model cannot continue nothing: an empty document begins with a line break.
            Text(render_snippets(request.snippets, request.language) + request.prefix or "\n"),
        ),
        render_edit=lambda request: (Text(f"{request.before}{request.selection}\n{request.instruction}\n"),),
    ),
}


def prompt_format(name: str) -> PromptFormat:
    """The format of that name and version.

    Raises:
        CheckpointError: no such format; the message lists the known ones.
    """
    if name not in _FORMATS:
        raise CheckpointError(f"prompt_format {name!r} is unknown: known are {', '.join(sorted(_FORMATS))}")
    return _FORMATS[name]
