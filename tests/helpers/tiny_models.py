"""Tiny random models of each shape, and a byte-level tokenizer: real parts in miniature, made in milliseconds."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import (
    DIFFUSION_CONFIG_FILE,
    MODEL_CONFIG_FILE,
    AttentionPattern,
    DiffusionConfig,
    DrafterKind,
    LogitAlignment,
    ModelConfig,
    write_config,
)
from diffusion_core.model.draft_head import DraftHead
from diffusion_core.model.transformer import Transformer
from diffusion_core.prompts import QWEN_STOP_TOKENS
from diffusion_core.sampling.evaluate import Denoiser

SHAPES = ("llama", "qwen2", "qwen3")
VOCAB_SIZE = 272  # 256 bytes, the special tokens, and a few padded rows


def tiny_config(shape: str = "qwen2", **changes: object) -> ModelConfig:
    """A two-layer model of that family's shape."""
    values: dict[str, object] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "qkv_bias": shape == "qwen2",
        "qk_norm": shape == "qwen3",
        "tie_word_embeddings": shape != "llama",
        "max_position_embeddings": 4096,
    }
    return ModelConfig(**(values | changes))  # type: ignore[arg-type]


def tiny_transformer(shape: str = "qwen2", seed: int = 0, **changes: object) -> Transformer:
    """A random model whose output is peaked and context-dependent, so that greedy text is not one repeated token."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(tiny_config(shape, **changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.1 * torch.randn(parameter.shape, generator=generator))
            else:
                scale = 0.4 if "embed" in name or "lm_head" in name else 0.25
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval().requires_grad_(False)


def tiny_adapter(config: ModelConfig, seed: int = 1, mask_token_id: int | None = None) -> GatedAdapter:
    """A random gated adapter, strong enough to change every slot row."""
    adapter = GatedAdapter(config, rank=4, alpha=4.0, mask_token_id=mask_token_id)
    adapter.randomise(torch.Generator().manual_seed(seed), scale=0.2)
    return adapter.eval().requires_grad_(False)


def tiny_draft_head(base: Transformer, seed: int = 2, num_steps: int = 2) -> DraftHead:
    """A random draft head of one layer that taps the first layer's input and the last layer's output."""
    config = base.config
    head = DraftHead(config, num_layers=1, tap_layers=(0, config.num_layers), vocabulary_size=200, num_steps=num_steps)
    head.randomise(torch.Generator().manual_seed(seed), scale=0.2)
    head.bind(base)
    return head.eval().requires_grad_(False)


def tiny_denoiser(
    shape: str = "qwen2",
    *,
    drafter: DrafterKind = DrafterKind.NONE,
    attention: AttentionPattern = AttentionPattern.CAUSAL_CONTEXT,
    alignment: LogitAlignment = LogitAlignment.SHIFTED,
    block_size: int = 4,
    seed: int = 0,
    num_positions: int = 4096,
) -> Denoiser:
    """A tiny model with its contract and drafter."""
    model = tiny_transformer(shape, seed, max_position_embeddings=num_positions)
    contract = DiffusionConfig(
        prompt_format="plain/1",
        attention=attention,
        alignment=alignment,
        drafter=drafter,
        mask_token_id=None if drafter is DrafterKind.NONE else VOCAB_SIZE - 1,
        block_size=block_size,
    )
    return Denoiser(
        model,
        contract,
        adapter=tiny_adapter(model.config) if drafter is DrafterKind.GATED_ADAPTER else None,
        draft_head=tiny_draft_head(model) if drafter is DrafterKind.DRAFT_HEAD else None,
    )


def tiny_tokenizer() -> Tokenizer:
    """One token per byte, plus the special tokens of the default prompt format."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in QWEN_STOP_TOKENS])
    return tokenizer


def save_tiny_checkpoint(
    folder: Path, *, shape: str = "qwen2", seed: int = 0, prompt_format: str = "qwen2.5-coder/1", **changes: object
) -> Path:
    """Write a tiny checkpoint in the project's own folder layout; the engine loads it like any other."""
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = tiny_transformer(shape, seed, **changes), tiny_tokenizer()
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    write_config(model.config, folder / MODEL_CONFIG_FILE)
    # No stop tokens: a random model would end its answer at random.
    contract = DiffusionConfig(prompt_format=prompt_format, fim_layout="suffix_first")
    write_config(contract, folder / DIFFUSION_CONFIG_FILE)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
