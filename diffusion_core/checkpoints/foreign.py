"""Checkpoints of other layouts, opened for conversion: a GGUF file, or a folder in Hugging Face layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

from diffusion_core.checkpoints import gguf_tokenizer, hf_config
from diffusion_core.checkpoints.gguf_rope import ROPE_FACTORS
from diffusion_core.checkpoints.gguf_source import has_interleaved_rotary, open_gguf, read_model_config
from diffusion_core.checkpoints.hf_source import HFSource
from diffusion_core.checkpoints.path_source import check_checkpoint_path
from diffusion_core.checkpoints.tokenizer_file import (
    TOKENIZER_FILE,
    choose_prompt_format,
    find_stop_ids,
    find_unused_ids,
    mark_special,
    read_tokenizer,
)
from diffusion_core.checkpoints.weights import (
    CHUNK_ELEMENTS,
    GGUF,
    HUGGING_FACE,
    Target,
    WeightSource,
    check_source,
    plan_targets,
)
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import DIFFUSION_CONFIG_FILE, DiffusionConfig, ModelConfig, read_diffusion_config
from diffusion_core.prompts import prompt_format


@dataclass(frozen=True, kw_only=True)
class ForeignCheckpoint:
    """Everything that a conversion needs; the tensors are checked against ``targets`` and not read yet."""

    source: WeightSource
    targets: list[Target]
    model_config: ModelConfig
    diffusion_config: DiffusionConfig
    tokenizer: Tokenizer


@contextmanager
def open_foreign(path: Path) -> Iterator[ForeignCheckpoint]:
    """Open a ``.gguf`` file or a folder in Hugging Face layout.

    Raises:
        CheckpointError: of another kind, damaged, or of an unsupported architecture; the message says what and where.
    """
    check_checkpoint_path(path)
    if path.is_file():
        yield _open_gguf(path)
    else:
        with HFSource(path) as source:
            yield _open_hf(path, source)


def _open_gguf(path: Path) -> ForeignCheckpoint:
    file, source = open_gguf(path)
    config = read_model_config(file)
    targets = plan_targets(config, GGUF, interleaved=has_interleaved_rotary(file))
    check_source(source, targets, frozenset({ROPE_FACTORS}))
    tokenizer = gguf_tokenizer.build_tokenizer(file)
    eos_ids = gguf_tokenizer.read_eos_ids(file)
    diffusion = complete_diffusion_config(None, tokenizer, eos_ids, config.vocab_size)
    return ForeignCheckpoint(
        source=source, targets=targets, model_config=config, diffusion_config=diffusion, tokenizer=tokenizer
    )


def _open_hf(folder: Path, source: HFSource) -> ForeignCheckpoint:
    own = folder / DIFFUSION_CONFIG_FILE
    given = read_diffusion_config(own) if own.exists() else None
    config = hf_config.read_hf_config(folder, has_diffusion_config=given is not None)
    targets = plan_targets(config, HUGGING_FACE)
    check_source(source, targets, _ignored_names(config))
    if config.tie_word_embeddings and "lm_head.weight" in source.shapes:
        _check_tied(source, config)
    tokenizer = read_tokenizer(folder / TOKENIZER_FILE)
    diffusion = complete_diffusion_config(given, tokenizer, hf_config.read_eos_ids(folder), config.vocab_size)
    tokenizer = mark_special(tokenizer, prompt_format(diffusion.prompt_format).stop_tokens)
    return ForeignCheckpoint(
        source=source, targets=targets, model_config=config, diffusion_config=diffusion, tokenizer=tokenizer
    )


def complete_diffusion_config(
    given: DiffusionConfig | None, tokenizer: Tokenizer, eos_ids: tuple[int, ...], vocab_size: int
) -> DiffusionConfig:
    """The given configuration with token ids filled in where it has none; without one, an autoregressive base's.

    Whether such a base is asked in the fill-in-the-middle format follows from its vocabulary alone.

    Raises:
        CheckpointError: the prompt format is unknown, or the tokenizer does not fit the model.
    """
    config = given or DiffusionConfig(prompt_format=choose_prompt_format(tokenizer))
    stops = config.stop_token_ids or find_stop_ids(tokenizer, config.prompt_format, eos_ids)
    banned = config.banned_token_ids or find_unused_ids(tokenizer, vocab_size)
    if config.mask_token_id is not None and config.mask_token_id not in banned:
        banned = (*banned, config.mask_token_id)  # a mask is never an answer
    for token in (*stops, *banned):
        if not 0 <= token < vocab_size:
            raise CheckpointError(f"token id {token} is outside the vocabulary of {vocab_size}")
    return replace(config, stop_token_ids=stops, banned_token_ids=banned)


def _ignored_names(config: ModelConfig) -> frozenset[str]:
    """Tensors of older files that the model does not use: rotary tables, and the head's copy of a tied embedding."""
    tables = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(config.num_layers)}
    return frozenset(tables | ({"lm_head.weight"} if config.tie_word_embeddings else set()))


def _check_tied(source: HFSource, config: ModelConfig) -> None:
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    step = max(1, CHUNK_ELEMENTS // config.hidden_size)
    is_same = source.shapes[head] == source.shapes[embedding] and all(
        bool((source.read_rows(embedding, start, start + step) == source.read_rows(head, start, start + step)).all())
        for start in range(0, config.vocab_size, step)
    )
    if not is_same:
        raise CheckpointError(
            f"{source.where(head)}: tensor {head} differs from {embedding}, but config.json says "
            "tie_word_embeddings true: one of the two is wrong"
        )
