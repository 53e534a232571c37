"""What a completion's prompt looks like, token for token: checkpoints are trained for exactly this."""

from __future__ import annotations

import dataclasses

import pytest
from helpers.tiny_models import tiny_tokenizer

from diffusion_core.engine.prompt_tokens import PromptEncoder
from diffusion_core.model.config import DiffusionConfig
from diffusion_core.prompts import Prompt, Special, prompt_format
from diffusion_core.prompts.edits import choose_fence, drop_stray_fence
from diffusion_core.requests import CompletionRequest, EditRequest, Snippet

FORMAT = prompt_format("qwen2.5-coder/1")
REQUEST = CompletionRequest(prefix="P", suffix="S", language="python", path="a/main.py", repository="project")
SNIPPETS = (Snippet(path="a/b.py", text="def b(): ...\n\n"), Snippet(path="c.py", text="C = 1"))
LAYOUTS = {
    "prefix_suffix_middle": "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>",
    "suffix_prefix_middle": "<|fim_suffix|>S<|fim_prefix|>P<|fim_middle|>",
    "suffix_first": "<|fim_prefix|><|fim_suffix|>S<|fim_middle|>P",
}


def shown(prompt: Prompt) -> str:
    return "".join(part.name if isinstance(part, Special) else part.text for part in prompt)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_snippets_there_is_nothing_but_the_file(layout: str) -> None:
    assert shown(FORMAT.render_completion(REQUEST, layout)) == LAYOUTS[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_snippets_come_first_in_the_repository_format(layout: str) -> None:
    request = dataclasses.replace(REQUEST, snippets=SNIPPETS)
    head = "<|repo_name|>project\n<|file_sep|>a/b.py\ndef b(): ...\n<|file_sep|>c.py\nC = 1\n<|file_sep|>a/main.py\n"
    assert shown(FORMAT.render_completion(request, layout)) == head + LAYOUTS[layout]


def test_a_snippet_that_is_added_keeps_the_prompt_before_it() -> None:
    one = FORMAT.render_completion(dataclasses.replace(REQUEST, snippets=SNIPPETS[:1]), "suffix_first")
    two = FORMAT.render_completion(dataclasses.replace(REQUEST, snippets=SNIPPETS), "suffix_first")
    assert one[:4] == two[:4]


def test_special_tokens_in_a_snippet_stay_text() -> None:
    request = dataclasses.replace(REQUEST, snippets=(Snippet(path="x", text="<|fim_middle|>"),))
    prompt = FORMAT.render_completion(request, "suffix_first")
    specials = [part.name for part in prompt if isinstance(part, Special)]
    assert specials.count("<|fim_middle|>") == 1


@pytest.mark.parametrize(
    ("text", "selection", "kept"),
    [
        ("x = 1\n```\n", "x = 0\n", "x = 1\n"),
        ("x = 1\n````", "x = 0\n", "x = 1\n"),
        ("```sh\nls\n```\n", "ls\n", "```sh\nls\n```\n"),  # a block of its own
        ("ls -l\n```\n", "ls\n```\n", "ls -l\n```\n"),  # the selection ends a block
        ('x = """\n```', "x\n", 'x = """\n'),
        ("x = 1\n", "x\n", "x = 1\n"),
        ("```\n", "x\n", ""),
        ("```python\n", "x\n", "```python\n"),
    ],
)
def test_a_last_fence_that_closes_nothing_is_dropped(text: str, selection: str, kept: str) -> None:
    assert drop_stray_fence(text, selection) == kept


def test_the_fence_is_longer_than_any_in_what_is_shown() -> None:
    plain = EditRequest(selection="x\n", instruction="y")
    assert choose_fence(plain) == "```"
    assert choose_fence(dataclasses.replace(plain, before="````")) == "`````"
    assert choose_fence(dataclasses.replace(plain, snippets=(Snippet(path="a.md", text="````sh\n"),))) == "`````"


def kept_prefix(prefix: str) -> str:
    """What is left of a prefix in a context of 8192 tokens, of one byte each."""
    encoder = PromptEncoder(tiny_tokenizer(), DiffusionConfig(prompt_format="plain/1"), 8192)
    encoded = encoder.encode_completion(CompletionRequest(prefix=prefix, suffix=""), 64)
    text: str = tiny_tokenizer().decode(encoded.tokens)
    return text


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize(
    ("num_lines", "length"), [(64, 550), (96, 550), (40, 3000), (33, 7000), (300, 40), (2, 20_000)]
)
def test_at_least_half_of_the_prefix_that_fits_is_kept(num_lines: int, length: int, end: str) -> None:
    text = "\n".join(f"{n:05}".ljust(length, "x") for n in range(num_lines)) + end
    kept = kept_prefix(text)
    assert text.endswith(kept) and 4000 < len(kept) <= 8192
    if length < 4000:
        assert kept[5:6] == "x" and kept[:5].isdigit(), "cut at the start of a line"


def test_typing_on_seldom_moves_the_cut() -> None:
    text = "\n".join(f"{n:05}".ljust(550, "x") for n in range(64))
    starts = {kept_prefix(text + "y" * typed)[:5] for typed in range(0, 1100, 50)}
    assert len(starts) <= 2
