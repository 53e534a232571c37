"""Tiny random checkpoints in every format: Hugging Face folders by transformers, GGUF files by the gguf package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Q
from gguf import GGUFWriter
from helpers.ggml_blocks import encode
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from diffusion_core.model.masks import causal
from diffusion_core.model.transformer import Transformer

FAMILIES = ("llama", "qwen2", "qwen3")
SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
)  # fmt: skip
VOCAB_SIZE = 288
LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


def tiny_model(family: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of the family, with norms and biases that are not their trivial initial values."""
    shape: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False, "bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256,
    } | changes  # fmt: skip
    if family == "qwen3":
        shape.setdefault("head_dim", 32)  # not hidden_size / heads
    classes: dict[str, tuple[Callable[..., Any], Callable[[Any], PreTrainedModel]]] = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    }
    config, model_class = classes[family]
    torch.manual_seed(seed)
    model = model_class(config(**shape)).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.2)
            else:
                parameter.normal_(0, 0.15)
    return model


def tiny_tokenizer(specials: tuple[str, ...] = SPECIALS, special: bool = True) -> Tokenizer:
    """Bytes, a few merges, and marker tokens from id 256 on."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=special) for token in specials])
    return tokenizer


def save_hf_folder(
    folder: Path, model: PreTrainedModel, *, num_shards: int = 1, tokenizer: Tokenizer | None = None
) -> Path:
    """The model in Hugging Face layout, in one file or at least ``num_shards`` ones."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    limit = "5GB" if num_shards == 1 else size // num_shards
    model.save_pretrained(folder, max_shard_size=limit)
    (tokenizer or tiny_tokenizer()).save(str(folder / "tokenizer.json"))
    return folder


@dataclass(frozen=True)
class GGUFExample:
    """A GGUF file and a transformers model with exactly its dequantised weights."""

    path: Path
    model: PreTrainedModel


def save_gguf(
    path: Path,
    family: str,
    kind: Q = Q.F32,
    *,
    seed: int = 0,
    model: PreTrainedModel | None = None,
    metadata: Mapping[str, Any] | None = None,
    leave_out: tuple[str, ...] = (),
    extra: Mapping[str, np.ndarray] | None = None,
    specials: tuple[str, ...] = SPECIALS,
) -> GGUFExample:
    """Write a GGUF file whose matrices are stored as ``kind``; vectors are F32, as llama.cpp writes them."""
    wide: dict[str, int] = {}
    if kind in (Q.Q4_K, Q.Q6_K):  # their blocks hold 256 values
        wide = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64, "num_hidden_layers": 1}
    model = model or tiny_model(family, seed, **wide)
    writer = GGUFWriter(path, family)
    _add_shape(writer, model.config, family)
    _add_vocabulary(writer, specials)
    for key, value in (metadata or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)  # type: ignore[operator]
    state = model.state_dict()
    generator = np.random.default_rng(seed)
    for name, tensor in state.items():
        stored = gguf_name(name)
        values = tensor.numpy()
        if model.config.tie_word_embeddings and name == "lm_head.weight":
            continue
        heads = _permuted_heads(name, model.config) if family == "llama" else None
        rows = permute(values, heads) if heads else values
        if rows.ndim == 2:
            raw, rows = encode(rows, kind, generator)
        else:
            raw = rows
        state[name] = torch.from_numpy(np.ascontiguousarray(unpermute(rows, heads) if heads else rows))
        if stored not in leave_out:
            writer.add_tensor(stored, raw, raw_dtype=kind if rows.ndim == 2 else None)
    for name, array in (extra or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.load_state_dict(state)
    if model.config.tie_word_embeddings:
        model.tie_weights()
    return GGUFExample(path, model)


def _add_shape(writer: GGUFWriter, config: Any, family: str) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if family == "qwen3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)


def _add_vocabulary(writer: GGUFWriter, specials: tuple[str, ...]) -> None:
    merged = ("de", "def", "ĠĠ")
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *specials, *merged]
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(specials)
    kinds += [gguf.TokenType.NORMAL] * len(merged)
    for number in range(len(tokens), VOCAB_SIZE):
        tokens.append(f"[PAD{number}]")
        kinds.append(gguf.TokenType.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["d e", "de f", "Ġ Ġ"])
    writer.add_eos_token_id(256)


def gguf_name(name: str) -> str:
    """The name that llama.cpp gives to a tensor of transformers."""
    fixed = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
    if name in fixed:
        return f"{fixed[name]}.weight"
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    short = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }[module]  # fmt: skip
    return f"blk.{layer}.{short}.{kind}"


def _permuted_heads(name: str, config: Any) -> int | None:
    if ".q_proj." in name:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if ".k_proj." in name else None


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of Llama's query and key rows."""
    shape = (heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of :func:`permute`."""
    shape = (heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return rows.reshape(shape).swapaxes(1, 2).reshape(rows.shape)


def reference_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] of transformers."""
    with torch.no_grad():
        return model(ids).logits  # type: ignore[no-any-return]


def our_logits(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] of our Transformer, causal, without a cache."""
    rows = ids.shape[1]
    with torch.no_grad():
        return model.logits(model(ids, torch.arange(rows).expand(ids.shape), causal(rows)))


def random_ids(num_tokens: int = 40, seed: int = 1) -> torch.Tensor:
    """Token ids [2, num_tokens]."""
    return torch.randint(0, 256, (2, num_tokens), generator=torch.Generator().manual_seed(seed))
