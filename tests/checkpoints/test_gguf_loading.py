"""GGUF files load into the Transformer: every storage type, every architecture, the same logits as transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Q
from helpers.tiny_checkpoints import (
    FAMILIES,
    LLAMA3_ROPE,
    VOCAB_SIZE,
    our_logits,
    random_ids,
    reference_logits,
    save_gguf,
    tiny_model,
)

from diffusion_core.checkpoints.load import Checkpoint, load_checkpoint
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import DrafterKind

KINDS = (Q.F32, Q.F16, Q.Q8_0, Q.Q5_0, Q.Q4_K, Q.Q6_K)


def load(path: Path, dtype: torch.dtype = torch.float32) -> Checkpoint:
    return load_checkpoint(str(path), dtype=dtype, device=torch.device("cpu"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_logits_equal_those_of_transformers(tmp_path: Path, family: str, kind: Q) -> None:
    example = save_gguf(tmp_path / "model.gguf", family, kind)
    checkpoint = load(example.path)
    ids = random_ids()
    torch.testing.assert_close(
        our_logits(checkpoint.model, ids), reference_logits(example.model, ids), rtol=1e-4, atol=2e-4
    )


def test_a_file_without_a_head_ties_it_to_the_embedding(tmp_path: Path) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2", model=tiny_model("qwen2", tie_word_embeddings=True))
    checkpoint = load(example.path)
    assert checkpoint.model_config.tie_word_embeddings
    ids = random_ids()
    torch.testing.assert_close(
        our_logits(checkpoint.model, ids), reference_logits(example.model, ids), rtol=1e-4, atol=1e-4
    )


def test_llama3_scaling_is_recovered_from_the_stored_divisors(tmp_path: Path) -> None:
    model = tiny_model("llama", hidden_size=256, rope_parameters={"rope_theta": 10_000.0, **LLAMA3_ROPE})
    divisors = llama3_divisors(head_dim=64, theta=10_000.0)
    example = save_gguf(tmp_path / "model.gguf", "llama", model=model, extra={"rope_freqs.weight": divisors})
    checkpoint = load(example.path)
    scaling = checkpoint.model_config.rope_scaling
    assert scaling is not None
    assert scaling["rope_type"] == "llama3"
    ids = random_ids(400)  # far beyond the original 64 positions
    torch.testing.assert_close(
        our_logits(checkpoint.model, ids), reference_logits(example.model, ids), rtol=1e-3, atol=1e-3
    )


def llama3_divisors(head_dim: int, theta: float) -> np.ndarray:
    """What llama.cpp's converter stores for ``LLAMA3_ROPE``."""
    original, factor = LLAMA3_ROPE["original_max_position_embeddings"], LLAMA3_ROPE["factor"]
    low, high = LLAMA3_ROPE["low_freq_factor"], LLAMA3_ROPE["high_freq_factor"]
    divisors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (i / head_dim)
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def test_divisors_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    wild = np.random.default_rng(0).uniform(1, 9, 8).astype(np.float32)
    example = save_gguf(tmp_path / "model.gguf", "llama", extra={"rope_freqs.weight": wild})
    with pytest.raises(CheckpointError, match=r"rope_freqs\.weight holds no scaling of a known kind"):
        load(example.path)


def test_the_converted_copy_keeps_bfloat16_and_is_used_again(tmp_path: Path) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen2")
    first = load(example.path, torch.bfloat16)
    (copy,) = (tmp_path / "cache" / "converted").iterdir()
    written = (copy / "model.safetensors").stat().st_mtime_ns
    second = load(example.path, torch.bfloat16)
    assert (copy / "model.safetensors").stat().st_mtime_ns == written
    for (name, a), b in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert a.dtype == torch.bfloat16
        assert torch.equal(a, b), name
    source = example.model.state_dict()["model.layers.1.mlp.down_proj.weight"]
    assert torch.equal(first.model.state_dict()["layers.1.mlp.down_proj.weight"], source.to(torch.bfloat16))


def test_a_bare_file_is_an_autoregressive_base_asked_by_its_vocabulary(tmp_path: Path) -> None:
    checkpoint = load(save_gguf(tmp_path / "any-name.gguf", "qwen2").path)
    config = checkpoint.diffusion_config
    assert config.prompt_format == "qwen2.5-coder/1"
    assert config.drafter is DrafterKind.NONE
    assert config.has_causal_clean_path
    assert config.stop_token_ids == tuple(range(256, 263))
    assert config.banned_token_ids == tuple(range(266, VOCAB_SIZE))


def test_the_tokenizer_knows_merges_and_markers(tmp_path: Path) -> None:
    tokenizer = load(save_gguf(tmp_path / "model.gguf", "qwen2").path).tokenizer
    assert tokenizer.encode("<|fim_prefix|>def", add_special_tokens=False).tokens == ["<|fim_prefix|>", "def"]
    assert tokenizer.token_to_id("<|fim_middle|>") == 260
    text = "def größe():\n\treturn '🙂\u2028'\r\n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    tokenizer.encode_special_tokens = True
    assert 259 not in tokenizer.encode("x = '<|fim_prefix|>'", add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tokenizer.ggml.pre": "command-r"}, "pre-tokenizer 'command-r' is not supported"),
        ({"general.architecture": "gemma3"}, "architecture 'gemma3' is not supported: llama, qwen2, qwen3 are"),
        ({"qwen2.rope.scaling.type": "yarn"}, "rope scaling 'yarn' is not supported"),
        ({"qwen2.attention.head_count_kv": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"qwen2.expert_count": 8}, "mixtures of experts are not supported"),
        ({"split.count": 2}, "one of several split files"),
        ({"qwen2.feed_forward_length": 128}, r"blk\.0\.ffn_gate\.weight has shape \[96, 64\], \[128, 64\] expected"),
        ({"qwen2.block_count": 3}, r"tensor blk\.2\.attn_norm\.weight is missing"),
        ({"qwen2.block_count": 1}, r"tensor blk\.1\..* is unexpected"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path: Path, metadata: dict[str, str | int], message: str) -> None:
    path = tmp_path / "model.gguf"
    save_gguf(path, "qwen2")
    rewrite_metadata(path, metadata)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(path)
    if "num_kv_heads" not in message:
        assert str(path) in str(caught.value)


def rewrite_metadata(path: Path, changes: dict[str, str | int]) -> None:
    """Write the tiny file again with other metadata."""
    import gguf
    from gguf import GGUFReader

    reader = GGUFReader(path)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    values = {name: field.contents() for name, field in fields.items()} | changes
    tensors = [(tensor.name, np.array(tensor.data)) for tensor in reader.tensors]
    writer = gguf.GGUFWriter(path.with_suffix(".new"), str(values.pop("general.architecture")))
    for name, value in values.items():
        kind = {str: gguf.GGUFValueType.STRING, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32}
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, kind[type(value)])
    for name, array in tensors:
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").replace(path)


def test_a_tensor_that_is_missing_is_named(tmp_path: Path) -> None:
    example = save_gguf(tmp_path / "model.gguf", "qwen3", leave_out=("blk.1.attn_k_norm.weight",))
    with pytest.raises(
        CheckpointError, match=r"model\.gguf: tensor blk\.1\.attn_k_norm\.weight is missing, \[32\] expected"
    ):
        load(example.path)


def test_values_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 5] = float("nan")
    example = save_gguf(tmp_path / "model.gguf", "llama", model=model)
    with pytest.raises(CheckpointError, match=r"tensor blk\.0\.ffn_up\.weight has values that are not finite"):
        load(example.path)
    assert not list((tmp_path / "cache" / "converted").iterdir()), "nothing half-made may stay"


def test_a_value_beyond_float16_is_refused_for_that_dtype_only(tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = 1e6
    example = save_gguf(tmp_path / "model.gguf", "llama", model=model)
    with pytest.raises(CheckpointError, match=r"output_norm\.weight has values that are not finite in torch\.float16"):
        load(example.path, torch.float16)
    assert load(example.path, torch.bfloat16).model.dtype == torch.bfloat16


def test_the_copy_holds_plain_json_records(tmp_path: Path) -> None:
    load(save_gguf(tmp_path / "model.gguf", "qwen2").path)
    (copy,) = (tmp_path / "cache" / "converted").iterdir()
    assert json.loads((copy / "model_config.json").read_text())["qkv_bias"] is True
    names = {path.name for path in copy.iterdir()}
    assert names == {"model.safetensors", "model_config.json", "diffusion_config.json", "tokenizer.json"}


def test_a_sentencepiece_vocabulary_becomes_a_fast_tokenizer(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    from diffusion_core.checkpoints.gguf_file import read_gguf
    from diffusion_core.checkpoints.gguf_tokenizer import build_tokenizer

    pieces = ["▁", "a", "b", "c", "ab", "▁a", "▁ab", "bc", "(", ")", "x"]
    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    writer.add_token_scores([0.0] * 259 + [-float(rank) for rank in range(len(pieces))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tmp_path / "tokenizer.json").write_text("what lies beside the file must not be read")
    tokenizer = build_tokenizer(read_gguf(tmp_path / "model.gguf"))
    assert tokenizer.encode("abc (x)", add_special_tokens=False).tokens == ["▁ab", "c", "▁", "(", "x", ")"]
    for text in ("abc (x)", "é\n\tab"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    assert tokenizer.encode("</s>", add_special_tokens=False).ids == [2]
