"""How much memory a model takes, from its shape alone: weights, keys and values, work space. No torch.

Weights are counted tensor by tensor, exactly (tests/checkpoints/test_footprint.py compares them with loaded models and
with the tensors of 8B shapes on the meta device). Work space is an estimate from above.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from diffusion_core.checkpoints.weights import HUGGING_FACE, plan_targets
from diffusion_core.config import MIB
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.quantization import GROUP_BYTES, GROUP_SIZE, Quantization

# Rows of the longest forward (sampling/evaluate.py) and of the largest round (model/kv_cache.py).
_PREFILL_ROWS = 256
_ROUND_ROWS = 96
# What torch, its threads and its kernels take besides.
_FIXED_BYTES = 256 * MIB


@dataclass(frozen=True, kw_only=True)
class WeightForm:
    """In what form weights are served: ``item_bytes`` of a plain one, how linear layers are held, on which device.

    ``packs_head``: the output head is a copy of its own in the order of the CPU's kernels, beside quantised layers in
    8 bits unless ``has_int8_head`` says that the CPU cannot.
    """

    item_bytes: int
    quantization: Quantization = Quantization.NONE
    packs_head: bool = True
    has_int8_head: bool = True


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of memory by what they are for; ``caches`` are keys and values, ``work`` is needed during forwards."""

    weights: int
    caches: int
    work: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.caches + self.work


def weight_bytes(config: ModelConfig, form: WeightForm) -> int:
    """Size of all weights as they are served."""
    total = 0
    for target in plan_targets(config, HUGGING_FACE):
        if target.name == "lm_head.weight" and form.packs_head:
            continue  # the plain form is a mapping that nobody reads
        total += tensor_bytes(target.name, target.shape, form)
    if form.packs_head:
        total += _head_bytes(config, form)
    return total


def tensor_bytes(name: str, shape: tuple[int, ...], form: WeightForm) -> int:
    """Size of one tensor of the Transformer, or of a part of it, in that form."""
    count = prod(shape)
    if not is_linear(name) or form.quantization is Quantization.NONE:
        return count * form.item_bytes
    if form.quantization is Quantization.INT8:
        return count + 4 * shape[0]
    return count // 2 + count // GROUP_SIZE * GROUP_BYTES


def is_linear(name: str) -> bool:
    """Whether a tensor of the Transformer is the weight of a linear layer inside it: these are quantised."""
    return name.endswith("_proj.weight")


def _held_bytes(config: ModelConfig, form: WeightForm) -> int:
    """As :func:`weight_bytes`, less the embedding where it stays mapped: single rows of it are read from the file."""
    mapped = config.vocab_size * config.hidden_size * form.item_bytes if form.packs_head else 0
    return weight_bytes(config, form) - mapped


def _head_bytes(config: ModelConfig, form: WeightForm) -> int:
    count = config.vocab_size * config.hidden_size
    if form.quantization is Quantization.NONE or not form.has_int8_head:
        return count * form.item_bytes
    return count + 4 * config.vocab_size


def cache_bytes_per_token(config: ModelConfig, item_bytes: int) -> int:
    """Size of a token's keys and values in all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * item_bytes


def count_parameters(config: ModelConfig) -> int:
    """Number of parameters; a head that is tied to the embedding counts once."""
    return sum(prod(target.shape) for target in plan_targets(config, HUGGING_FACE))


def estimate(
    config: ModelConfig,
    form: WeightForm,
    *,
    context: int,
    kept_cache_bytes: int = 0,
    num_contexts: int = 1,
    sees_all: bool = False,
) -> Footprint:
    """Memory to serve a model.

    Args:
        config: its shape.
        form: how its weights are held.
        context: positions of the longest sequence, at most what the model was trained for.
        kept_cache_bytes: bound of the caches that are kept between requests.
        num_contexts: caches of full length at a time: two where captured rounds have one of their own.
        sees_all: every forward evaluates all positions (a bidirectional model), not a part of the prompt.
    """
    context = min(context, config.max_position_embeddings)
    caches = num_contexts * context * cache_bytes_per_token(config, form.item_bytes) + kept_cache_bytes
    rows = context if sees_all else min(context, _PREFILL_ROWS)
    group = config.num_heads // config.num_kv_heads
    stream = rows * (6 * config.hidden_size + 4 * config.intermediate_size) * form.item_bytes
    mask = rows * context * group * (1 + form.item_bytes)
    scores = _ROUND_ROWS * config.vocab_size * (4 + form.item_bytes)
    work = _FIXED_BYTES + stream + mask + scores
    return Footprint(weights=_held_bytes(config, form), caches=caches, work=work)
