"""What a prompt format is made of: special tokens by name, ordinary text, and who renders them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffusion_core.chat import Turn
from diffusion_core.requests import CompletionRequest, EditRequest, Snippet


@dataclass(frozen=True, slots=True)
class Special:
    """One special token by its name in the tokenizer."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """Ordinary text; never read as special tokens."""

    text: str


@dataclass(frozen=True, slots=True)
class Middle:
    """The place that is filled in: the text behind it stays where it is, and the model reads both sides."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What the tokenizer itself puts before a text: a begin-of-text token, or nothing."""


Part = Special | Text | Opening | Middle
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
    ``render_chat(turns)`` asks for the assistant's next turn, or for the rest of it where the last turn is its own;
    None where the model was trained for no conversation.
    """

    name: str
    fim_layouts: tuple[str, ...]
    default_fim_layout: str
    stop_tokens: tuple[str, ...]
    render_completion: Callable[[CompletionRequest, str], Prompt]
    render_edit: Callable[[EditRequest], Prompt] | None
    fence: Callable[[EditRequest], str] | None = None
    render_chat: Callable[[Sequence[Turn]], Prompt] | None = None


def render_snippets(snippets: Sequence[Snippet], language: str) -> str:
    """Other files' pieces as comment-headed text; empty when there are none. Append order is kept for the cache."""
    mark = LINE_COMMENTS.get(language, "#")
    return "".join(f"{mark} {snippet.path}\n{snippet.text.rstrip()}\n\n" for snippet in snippets)
