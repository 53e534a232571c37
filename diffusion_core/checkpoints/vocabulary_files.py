"""A folder's tokenizer where it has no ``tokenizer.json``: Qwen2's vocabulary, merges and added tokens.

Fast-dLLM v2 and Dream are published so. Their tokenizer classes are Qwen2's, or cut text as it does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers

from diffusion_core.checkpoints.byte_level import QWEN2_SPLIT, build_byte_level
from diffusion_core.checkpoints.hf_config import read_json
from diffusion_core.checkpoints.tokenizer_file import TOKENIZER_FILE, read_tokenizer
from diffusion_core.errors import CheckpointError

VOCABULARY_FILE, MERGES_FILE, SETTINGS_FILE = "vocab.json", "merges.txt", "tokenizer_config.json"
VOCABULARY_FILES = frozenset({VOCABULARY_FILE, MERGES_FILE, SETTINGS_FILE})
CLASSES = ("Qwen2Tokenizer", "Qwen2TokenizerFast", "DreamTokenizer")


def read_folder_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder, with padding and truncation off.

    Raises:
        CheckpointError: there is none, it is damaged, or it is of a class that is not known here.
    """
    if (folder / TOKENIZER_FILE).exists() or not all((folder / name).exists() for name in VOCABULARY_FILES):
        return read_tokenizer(folder / TOKENIZER_FILE)
    settings_path = folder / SETTINGS_FILE
    settings = read_json(settings_path)
    kind = settings.get("tokenizer_class")
    if kind not in CLASSES:
        raise CheckpointError(
            f"{settings_path}: tokenizer_class {kind!r} without a {TOKENIZER_FILE} is not supported: "
            f"{', '.join(CLASSES)} are; save a fast tokenizer into the folder"
        )
    vocab = read_json(folder / VOCABULARY_FILE)
    merges = _read_merges(folder / MERGES_FILE)
    tokenizer = build_byte_level(folder / VOCABULARY_FILE, vocab, merges, QWEN2_SPLIT)
    tokenizer.normalizer = normalizers.NFC()
    for number, token in _added_tokens(settings_path, settings):
        text, is_special = str(token["content"]), bool(token.get("special"))
        added = AddedToken(text, special=is_special, normalized=bool(token.get("normalized")))
        (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)([added])
        if tokenizer.token_to_id(text) != number:
            raise CheckpointError(
                f"{settings_path}: token {text} has the id {number}, which the vocabulary has not next"
            )
    return tokenizer


def _read_merges(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    merges: list[tuple[str, str]] = []
    for line in lines:
        if line and not line.startswith("#version"):
            left, _, right = line.partition(" ")
            merges.append((left, right))
    return merges


def _added_tokens(path: Path, settings: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Added tokens by their ids, in order."""
    listed = settings.get("added_tokens_decoder")
    if not isinstance(listed, dict):
        raise CheckpointError(f"{path}: key added_tokens_decoder is missing")
    try:
        return sorted((int(number), dict(token)) for number, token in listed.items())
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: added_tokens_decoder cannot be read: {error}") from None
