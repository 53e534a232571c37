"""The model that a stage trains: random weights of a given shape, or the checkpoint of the stage before."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from diffusion_core.checkpoints.load import load_checkpoint, save_checkpoint
from diffusion_core.checkpoints.store import locate
from diffusion_core.checkpoints.tokenizer_file import (
    TOKENIZER_FILE,
    choose_prompt_format,
    find_stop_ids,
    read_tokenizer,
)
from diffusion_core.errors import ConfigError
from diffusion_core.model.config import AttentionPattern, DiffusionConfig, DrafterKind, LogitAlignment, ModelConfig
from diffusion_core.model.transformer import Transformer
from diffusion_core.prompts import prompt_format
from train.config import TrainConfig
from train.grammar import PROMPT_FORMAT, grammar_tokenizer
from train.objective import Saver, make_generator


@dataclass(frozen=True)
class StartingPoint:
    """A trainable model with its tokenizer and its denoising contract."""

    model: Transformer
    tokenizer: Tokenizer
    contract: DiffusionConfig

    @property
    def mask_id(self) -> int:
        """The mask token: part of every contract made here."""
        assert self.contract.mask_token_id is not None
        return self.contract.mask_token_id

    def saver(self) -> Saver:
        """Writes the checkpoint that the engine serves."""
        return lambda folder: save_checkpoint(folder, self.model, self.tokenizer, self.contract)


def make_starting_point(config: TrainConfig, device: torch.device) -> StartingPoint:
    """The model of ``config.model``: its ``base`` if one is named, else random weights of its ``shape``.

    Raises:
        ConfigError: the base cannot be trained by these objectives, or no tokenizer is named.
        CheckpointError: base or tokenizer cannot be read.
    """
    start = _load_base(config, device) if config.model.base else _make_random(config, device)
    start.model.requires_grad_(True).train()
    return start


def _load_base(config: TrainConfig, device: torch.device) -> StartingPoint:
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.model.dtype]
    checkpoint = load_checkpoint(config.model.base, dtype=dtype, device=device)
    contract = checkpoint.diffusion_config
    if contract.attention is not AttentionPattern.CAUSAL_CONTEXT:
        raise ConfigError(
            f"model.base {config.model.base} has attention {contract.attention.value}; "
            f"objective {config.objective} trains {AttentionPattern.CAUSAL_CONTEXT.value}"
        )
    mask = contract.mask_token_id
    if contract.drafter is not DrafterKind.MODEL or mask is None:
        # An autoregressive base whose full weights go on as a diffusion model: a spare row becomes the mask token.
        mask = _find_spare_row(checkpoint.tokenizer, checkpoint.model_config)
        contract = dataclasses.replace(
            contract,
            drafter=DrafterKind.MODEL,
            mask_token_id=mask,
            banned_token_ids=tuple(t for t in contract.banned_token_ids if t != mask),
        )
    contract = dataclasses.replace(contract, block_size=config.model.block_size)
    # A memory-mapped checkpoint cannot be changed in place: the weights get memory of their own.
    for parameter in checkpoint.model.parameters():
        parameter.data = parameter.data.clone()
    return StartingPoint(checkpoint.model, checkpoint.tokenizer, contract)


def _find_spare_row(tokenizer: Tokenizer, shape: ModelConfig) -> int:
    used = set(tokenizer.get_vocab(with_added_tokens=True).values())
    spare = [token for token in range(shape.vocab_size) if token not in used]
    if not spare:
        raise ConfigError("the base's vocabulary has no unused row that could become the mask token")
    return spare[-1]


def _make_random(config: TrainConfig, device: torch.device) -> StartingPoint:
    tokenizer = _choose_tokenizer(config)
    mask = tokenizer.get_vocab_size(with_added_tokens=True)
    shape = ModelConfig(vocab_size=mask + 1, **dataclasses.asdict(config.model.shape))
    model = Transformer(shape)
    initialise(model, make_generator(config.seed, "weights"))
    name = config.model.prompt_format or choose_prompt_format(tokenizer)
    form = prompt_format(name)
    contract = DiffusionConfig(
        prompt_format=name,
        fim_layout=form.default_fim_layout,
        # As in the paper, a slot's logits speak of the slot itself; shifted is what an autoregressive base brings.
        alignment=LogitAlignment.SAME_POSITION,
        attention=AttentionPattern.CAUSAL_CONTEXT,
        drafter=DrafterKind.MODEL,
        mask_token_id=mask,
        block_size=config.model.block_size,
        stop_token_ids=find_stop_ids(tokenizer, name, ()),
    )
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.model.dtype]
    return StartingPoint(model.to(device, dtype), tokenizer, contract)


def _choose_tokenizer(config: TrainConfig) -> Tokenizer:
    named = config.model.tokenizer
    if not named:
        if config.data.source == "grammar" and config.model.prompt_format in ("", PROMPT_FORMAT):
            return grammar_tokenizer()
        raise ConfigError(
            "a model from random weights needs a tokenizer: --set model.tokenizer=FOLDER (one with tokenizer.json), "
            "or a registry name"
        )
    folder = locate(named)
    return read_tokenizer(folder / TOKENIZER_FILE if folder.is_dir() else Path(folder))


@torch.no_grad()
def initialise(model: Transformer, generator: torch.Generator) -> None:
    """Random weights: normal, of variance 1 / fan-in for the embedding and half of that for the other matrices.

    Embedding rows of norm about 1 matter with a tied head: with smaller ones the first hundred steps of a short run
    only make them grow.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            continue
        scale = parameter.shape[1] ** -0.5
        if "embed" not in name:
            scale *= 0.5**0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
