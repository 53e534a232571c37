"""A folder with vocabulary and merges instead of ``tokenizer.json`` gives the tokens that transformers gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.family_fixtures import fixture_folder
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer

from diffusion_core.checkpoints.foreign import open_foreign
from diffusion_core.checkpoints.vocabulary_files import read_folder_tokenizer
from diffusion_core.errors import CheckpointError

SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "|<MASK>|",
)  # fmt: skip
TEXTS = ("def f(x):\n    return 12\r\n", "cafe\u0301 \u00e9\t\u6f22", "<|im_start|>x|<MASK>|", "it's  two   spaces\n\n")


def write_vocabulary(folder: Path, **changes: Any) -> Path:
    """Bytes, two merges, and the specials behind them."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {name: i for i, name in enumerate([*letters, "de", "def"])}
    added = {
        str(len(vocab) + i): {
            "content": name, "special": True, "normalized": False, "lstrip": False, "rstrip": False,
            "single_word": False,
        }
        for i, name in enumerate(SPECIALS)
    }  # fmt: skip
    settings = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added} | changes
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\nd e\nde f\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_tokens_equal_those_of_transformers(tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "m")
    tokenizer, reference = read_folder_tokenizer(folder), Qwen2Tokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False).ids == reference(text)["input_ids"]
    assert tokenizer.token_to_id("|<MASK>|") == 264


def test_what_is_wrong_with_the_files_is_named(tmp_path: Path) -> None:
    folder = write_vocabulary(tmp_path / "a", tokenizer_class="LlamaTokenizer")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: tokenizer_class 'LlamaTokenizer'"):
        read_folder_tokenizer(folder)
    folder = write_vocabulary(tmp_path / "b", added_tokens_decoder={"900": {"content": "<x>", "special": True}})
    with pytest.raises(CheckpointError, match="token <x> has the id 900"):
        read_folder_tokenizer(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        read_folder_tokenizer(folder)


def test_a_checkpoint_without_tokenizer_json_opens(tmp_path: Path) -> None:
    """The way Fast-dLLM v2 is published."""
    folder, original = write_vocabulary(tmp_path / "m"), fixture_folder("fast-dllm-v2")
    tensors = load_file(original / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat((tensors[name], tensors[name][:2]))  # this vocabulary has two tokens more
    save_file(tensors, folder / "model.safetensors")
    values = json.loads((original / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"vocab_size": 256 + 2 + len(SPECIALS)}))
    with open_foreign(folder) as foreign:
        assert foreign.diffusion_config.mask_token_id == 264
        assert foreign.tokenizer.encode("def").ids == [257]
