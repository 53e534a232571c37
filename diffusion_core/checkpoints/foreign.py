"""Checkpoints of other layouts, opened for conversion: a GGUF file, or a folder in Hugging Face layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

from diffusion_core.checkpoints import gguf_tokenizer, hf_config
from diffusion_core.checkpoints.families.contract import read_contract
from diffusion_core.checkpoints.families.family import Family
from diffusion_core.checkpoints.families.recognise import AUTO, recognise
from diffusion_core.checkpoints.gguf_rope import ROPE_FACTORS
from diffusion_core.checkpoints.gguf_source import has_interleaved_rotary, open_gguf, read_model_config
from diffusion_core.checkpoints.hf_source import HFSource
from diffusion_core.checkpoints.path_source import check_checkpoint_path
from diffusion_core.checkpoints.tokenizer_file import (
    choose_prompt_format,
    find_stop_ids,
    find_unused_ids,
    mark_special,
)
from diffusion_core.checkpoints.vocabulary_files import read_folder_tokenizer
from diffusion_core.checkpoints.weights import (
    CHUNK_ELEMENTS,
    GGUF,
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
    family: Family


@contextmanager
def open_foreign(path: Path, family: str = AUTO) -> Iterator[ForeignCheckpoint]:
    """Open a ``.gguf`` file or a folder in Hugging Face layout; ``family`` names what cannot be told from it.

    Raises:
        CheckpointError: of another kind, damaged, or of an unsupported architecture; the message says what and where.
    """
    check_checkpoint_path(path)
    if path.is_file():
        yield _open_gguf(path, family)
    else:
        with HFSource(path) as source:
            yield _open_hf(path, source, family)


def _open_gguf(path: Path, wanted: str) -> ForeignCheckpoint:
    file, source = open_gguf(path)
    config = read_model_config(file)
    targets = plan_targets(config, GGUF, interleaved=has_interleaved_rotary(file))
    check_source(source, targets, frozenset({ROPE_FACTORS}))
    tokenizer = gguf_tokenizer.build_tokenizer(file)
    # A file of this kind names no class: a diffusion model in it looks like its base, but for the mask token.
    arch, vocabulary = str(file.metadata["general.architecture"]), tokenizer.get_vocab(with_added_tokens=True)
    values = {"model_type": arch, "architectures": [f"{arch.capitalize()}ForCausalLM"]}
    family = recognise(path, values, vocabulary, wanted=wanted)
    contract = read_contract(family, path, values, vocabulary)
    eos_ids = gguf_tokenizer.read_eos_ids(file)
    diffusion = complete_diffusion_config(contract, tokenizer, eos_ids, config.vocab_size)
    return ForeignCheckpoint(
        source=source,
        targets=targets,
        model_config=config,
        diffusion_config=diffusion,
        tokenizer=tokenizer,
        family=family,
    )


def _open_hf(folder: Path, source: HFSource, wanted: str) -> ForeignCheckpoint:
    own = folder / DIFFUSION_CONFIG_FILE
    given = read_diffusion_config(own) if own.exists() else None
    tokenizer = read_folder_tokenizer(folder)
    path = folder / hf_config.CONFIG_FILE
    values, vocabulary = hf_config.read_json(path), tokenizer.get_vocab(with_added_tokens=True)
    family = recognise(path, values, vocabulary, wanted=wanted, is_described=given is not None)
    config = hf_config.read_hf_config(path, values, family)
    targets = plan_targets(config, family.naming)
    check_source(source, targets, _ignored_names(config, family))
    if config.tie_word_embeddings:
        _check_tied(source, family)
    contract = given or read_contract(family, path, values, vocabulary)
    diffusion = complete_diffusion_config(contract, tokenizer, hf_config.read_eos_ids(folder), config.vocab_size)
    tokenizer = mark_special(tokenizer, prompt_format(diffusion.prompt_format).stop_tokens)
    return ForeignCheckpoint(
        source=source,
        targets=targets,
        model_config=config,
        diffusion_config=diffusion,
        tokenizer=tokenizer,
        family=family,
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


def _ignored_names(config: ModelConfig, family: Family) -> frozenset[str]:
    """Tensors that the model does not use: rotary tables of older files, and the head's copy of a tied embedding."""
    tables = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(config.num_layers)}
    copies = {f"{family.naming.head}.weight"} if config.tie_word_embeddings else set()
    return frozenset(tables | copies | set(family.ignored_tensors))


def _check_tied(source: HFSource, family: Family) -> None:
    """A head that is stored beside a tied embedding must be a copy of it."""
    embedding, head = f"{family.naming.embedding}.weight", f"{family.naming.head}.weight"
    if head not in source.shapes:
        return
    rows, columns = source.shapes[embedding]
    step = max(1, CHUNK_ELEMENTS // columns)
    is_same = source.shapes[head] == source.shapes[embedding] and all(
        bool((source.read_rows(embedding, start, start + step) == source.read_rows(head, start, start + step)).all())
        for start in range(0, rows, step)
    )
    if not is_same:
        raise CheckpointError(
            f"{source.where(head)}: tensor {head} differs from {embedding}, but config.json says "
            "that they are tied: one of the two is wrong"
        )
