"""Tokenizers: read ``tokenizer.json``, look up special tokens, and settle how specials in ordinary text are treated."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from diffusion_core.errors import CheckpointError
from diffusion_core.prompts import prompt_format

TOKENIZER_FILE = "tokenizer.json"
FIM_TOKENS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|im_start|>", "<|im_end|>")
FIM_FORMAT, PLAIN_FORMAT = "qwen2.5-coder/1", "plain/1"


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer out of its file, with padding and truncation off.

    Raises:
        CheckpointError: missing or no such file.
    """
    if not path.exists():
        raise CheckpointError(f"{path} is missing")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every kind of damage
        raise CheckpointError(f"{path} cannot be read as a tokenizer: {str(error)[:200]}") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def mark_special(tokenizer: Tokenizer, names: Iterable[str]) -> Tokenizer:
    """The tokenizer with these added tokens flagged as special.

    Some published files flag the fill-in-the-middle markers as ordinary added tokens. They would then be recognised
    inside user code even where special tokens are switched off.
    """
    content = json.loads(tokenizer.to_str())
    wanted = set(names)
    changed = False
    for token in content.get("added_tokens") or ():
        if token["content"] in wanted and not token["special"]:
            token["special"] = changed = True
    return Tokenizer.from_str(json.dumps(content, ensure_ascii=False)) if changed else tokenizer


def choose_prompt_format(tokenizer: Tokenizer) -> str:
    """The fill-in-the-middle format if the vocabulary has all its markers, else plain continuation."""
    has_markers = all(tokenizer.token_to_id(name) is not None for name in FIM_TOKENS)
    return FIM_FORMAT if has_markers else PLAIN_FORMAT


def find_stop_ids(tokenizer: Tokenizer, format_name: str, eos_ids: Iterable[int]) -> tuple[int, ...]:
    """Ids that end an answer: the prompt format's stop tokens that the vocabulary has, and the end-of-text ids."""
    named = (tokenizer.token_to_id(name) for name in prompt_format(format_name).stop_tokens)
    return tuple(sorted({*(token for token in named if token is not None), *eos_ids}))


def find_unused_ids(tokenizer: Tokenizer, vocab_size: int) -> tuple[int, ...]:
    """Rows of the output head that stand for no token (padding of the vocabulary): they must never be produced.

    Raises:
        CheckpointError: the tokenizer has ids that the model has not.
    """
    used = set(tokenizer.get_vocab(with_added_tokens=True).values())
    if used and max(used) >= vocab_size:
        raise CheckpointError(f"the tokenizer has the id {max(used)}, the model's vocabulary ends at {vocab_size - 1}")
    return tuple(token for token in range(vocab_size) if token not in used)
