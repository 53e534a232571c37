"""Byte-level BPE tokenizers (Qwen, Llama 3, GPT-2) from the parts of the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from diffusion_core.errors import CheckpointError

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def build_byte_level(path: Path, vocab: Mapping[str, int], merges: Sequence[tuple[str, str]], split: str) -> Tokenizer:
    """A tokenizer of that vocabulary; ``split`` says how text is cut before merging. ``path`` is for the message.

    Raises:
        CheckpointError: vocabulary and merges do not fit.
    """
    try:
        # Llama 3's merges lack some of its tokens: a whole word of the vocabulary is taken as it is.
        model = models.BPE(vocab=dict(vocab), merges=list(merges), ignore_merges=split == LLAMA3_SPLIT)
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path}: the vocabulary and its merges do not fit: {str(error)[:200]}") from None
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
