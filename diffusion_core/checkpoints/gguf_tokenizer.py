"""The tokenizer that a GGUF file describes, as a fast tokenizer.

Byte-level vocabularies (Qwen, Llama 3) are built here from the ``tokenizers`` library's own parts in a second;
SentencePiece vocabularies (Llama 2) go through the converter of ``transformers``.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, processors

from diffusion_core.checkpoints.byte_level import GPT2_SPLIT, LLAMA3_SPLIT, QWEN2_SPLIT, build_byte_level
from diffusion_core.checkpoints.gguf_file import GGUFFile
from diffusion_core.errors import CheckpointError

_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
# How text is cut before merging, by the name in the file.
_SPLITS = {
    "qwen2": QWEN2_SPLIT,
    "deepseek-r1-qwen": QWEN2_SPLIT,
    "llama3": LLAMA3_SPLIT,
    "llama-v3": LLAMA3_SPLIT,
    "llama-bpe": LLAMA3_SPLIT,
    "smaug-bpe": LLAMA3_SPLIT,
    "gpt-2": GPT2_SPLIT,
}


def build_tokenizer(file: GGUFFile) -> Tokenizer:
    """The tokenizer of the file. Tokens marked as unused (padding of the vocabulary) are left out.

    Raises:
        CheckpointError: no vocabulary, or one of a kind that is not supported.
    """
    kind = file.require("tokenizer.ggml.model", str)
    match kind:
        case "gpt2":
            return _byte_level(file)
        case "llama":
            return _sentencepiece(file)
        case _:
            raise CheckpointError(f"{file.path}: tokenizer {kind!r} is not supported: gpt2 and llama are")


def read_eos_ids(file: GGUFFile) -> tuple[int, ...]:
    """End-of-text and end-of-turn ids that the file names."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return tuple(dict.fromkeys(file.require(key, int) for key in keys if key in file.metadata))


def _byte_level(file: GGUFFile) -> Tokenizer:
    split = file.get("tokenizer.ggml.pre", str, "gpt-2")
    if split not in _SPLITS:
        raise CheckpointError(
            f"{file.path}: pre-tokenizer {split!r} is not supported: {', '.join(sorted(_SPLITS))} are"
        )
    tokens, types = _vocabulary(file)
    vocab = {token: number for number, token in enumerate(tokens) if types[number] != _UNUSED}
    if len(vocab) != len(tokens) - types.count(_UNUSED):
        raise CheckpointError(f"{file.path}: metadata tokenizer.ggml.tokens holds a token twice")
    merges: list[tuple[str, str]] = []
    for merge in file.require("tokenizer.ggml.merges", list):
        left, _, right = str(merge).partition(" ")
        merges.append((left, right))
    tokenizer = build_byte_level(file.path, vocab, merges, _SPLITS[split])
    _add_marked(tokenizer, tokens, types)
    _add_bos(tokenizer, file, tokens)
    return tokenizer


def _vocabulary(file: GGUFFile) -> tuple[list[str], list[int]]:
    tokens: list[str] = file.require("tokenizer.ggml.tokens", list)
    types: list[int] = file.get("tokenizer.ggml.token_type", list, [1] * len(tokens))
    if len(types) != len(tokens):
        raise CheckpointError(f"{file.path}: {len(tokens)} tokens, but {len(types)} token types")
    return tokens, types


def _add_marked(tokenizer: Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Control tokens become special ones, user-defined ones added ones: both stay whole."""
    for kind, is_special in ((_CONTROL, True), (_USER_DEFINED, False)):
        marked = [token for token, found in zip(tokens, types, strict=True) if found == kind]
        added = [AddedToken(token, normalized=False, special=is_special) for token in marked]
        (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)(added)


def _add_bos(tokenizer: Tokenizer, file: GGUFFile, tokens: list[str]) -> None:
    """Begin encoded text with the file's begin-of-text token, where it asks for that and the caller too."""
    if not file.get("tokenizer.ggml.add_bos_token", bool, False):
        return
    number = file.require("tokenizer.ggml.bos_token_id", int)
    if not 0 <= number < len(tokens):
        raise CheckpointError(f"{file.path}: bos_token_id {number} is outside the vocabulary")
    bos = tokens[number]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, number)]
    )


def _sentencepiece(file: GGUFFile) -> Tokenizer:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise CheckpointError(
            f"{file.path}: this kind of tokenizer needs the package transformers: `pip install 'unmask[engine]'`"
        ) from None

    # Alone in a folder: nothing that lies beside the file may change what is read.
    with tempfile.TemporaryDirectory(prefix="unmask-tokenizer-") as name:
        alone = Path(name) / "model.gguf"
        os.symlink(file.path.resolve(), alone)  # noqa: PTH211 - both spellings do the same
        try:
            loaded = AutoTokenizer.from_pretrained(name, gguf_file=alone.name, local_files_only=True)
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise CheckpointError(f"{file.path}: the tokenizer cannot be read: {str(error)[:200]}") from None
        backend: Tokenizer = loaded.backend_tokenizer
    return backend
