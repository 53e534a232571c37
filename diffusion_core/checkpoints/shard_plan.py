"""How a model's tensors would be divided among GPUs: which rows or columns each one holds, and what all of them hold.

The usual split of a Transformer: projections into heads and into the feed-forward by outputs, projections out of them
by inputs, so that a layer needs two sums over all GPUs; embedding and output head by tokens. Key heads that are fewer
than the GPUs are held by several. What cannot be divided evenly is held, and computed, by every GPU. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusion_core.checkpoints.footprint import WeightForm, tensor_bytes
from diffusion_core.checkpoints.weights import HUGGING_FACE, plan_targets
from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.quantization import GROUP_SIZE

Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A GPU's part of a tensor: ``spans`` of ``axis``, one behind the other; all of it where ``axis`` is None."""

    name: str
    whole: tuple[int, ...]
    axis: int | None = None
    spans: tuple[Span, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the part."""
        if self.axis is None:
            return self.whole
        size = sum(stop - start for start, stop in self.spans)
        return (*self.whole[: self.axis], size, *self.whole[self.axis + 1 :])


@dataclass(frozen=True, kw_only=True)
class GpuPlan:
    """What one GPU holds; ``num_heads`` and ``num_kv_heads`` of each layer are its own."""

    shards: tuple[Shard, ...]
    num_heads: int
    num_kv_heads: int

    def weight_bytes(self, form: WeightForm) -> int:
        """Size of its parts of the weights."""
        return sum(tensor_bytes(shard.name, shard.shape, form) for shard in self.shards)

    def cache_bytes(self, config: ModelConfig, tokens: int, item_bytes: int) -> int:
        """Size of the keys and values of that many tokens."""
        return 2 * config.num_layers * self.num_kv_heads * config.head_dim * item_bytes * tokens


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """A model on ``num_gpus`` GPUs. ``notes`` say in words what could not be divided and why."""

    config: ModelConfig
    gpus: tuple[GpuPlan, ...]
    splits_attention: bool
    splits_mlp: bool
    kv_copies: int
    notes: tuple[str, ...]

    @property
    def num_gpus(self) -> int:
        """Number of GPUs."""
        return len(self.gpus)

    @property
    def replicated(self) -> tuple[str, ...]:
        """Tensors that every GPU holds whole."""
        return tuple(shard.name for shard in self.gpus[0].shards if shard.axis is None)

    @property
    def sums_per_forward(self) -> int:
        """Sums over all GPUs that a forward needs: one behind each part of a layer that is divided."""
        return self.config.num_layers * (self.splits_attention + self.splits_mlp) if self.num_gpus > 1 else 0


def plan_shards(config: ModelConfig, num_gpus: int) -> ShardPlan:
    """The plan for that many GPUs.

    Raises:
        CheckpointError: there is no such number of GPUs, or less than a token of the vocabulary for each.
    """
    if not 1 <= num_gpus <= config.vocab_size:
        raise CheckpointError(f"a model cannot be divided among {num_gpus} GPUs")
    heads, kv_heads = config.num_heads, config.num_kv_heads
    splits_attention = heads % num_gpus == 0 and (kv_heads % num_gpus == 0 or num_gpus % kv_heads == 0)
    splits_mlp = config.intermediate_size % (num_gpus * GROUP_SIZE) == 0
    kv_copies = max(1, num_gpus // kv_heads) if splits_attention else num_gpus
    rule = _Rule(config, num_gpus, splits_attention, splits_mlp, kv_copies)
    gpus = tuple(
        GpuPlan(
            shards=tuple(rule.shard(t.name, t.shape, rank) for t in plan_targets(config, HUGGING_FACE)),
            num_heads=heads // num_gpus if splits_attention else heads,
            num_kv_heads=max(1, kv_heads // num_gpus) if splits_attention else kv_heads,
        )
        for rank in range(num_gpus)
    )
    return ShardPlan(
        config=config,
        gpus=gpus,
        splits_attention=splits_attention,
        splits_mlp=splits_mlp,
        kv_copies=kv_copies,
        notes=rule.notes(),
    )


@dataclass(frozen=True)
class _Rule:
    config: ModelConfig
    num_gpus: int
    splits_attention: bool
    splits_mlp: bool
    kv_copies: int

    def shard(self, name: str, shape: tuple[int, ...], rank: int) -> Shard:
        """The part of a tensor that a GPU holds."""
        axis, spans = self._divide(name, shape, rank)
        return Shard(name=name, whole=shape, axis=axis, spans=spans)

    def _divide(self, name: str, shape: tuple[int, ...], rank: int) -> tuple[int | None, tuple[Span, ...]]:
        inner = self.config.intermediate_size
        if self.num_gpus == 1:
            return None, ()
        if name in ("embed_tokens.weight", "lm_head.weight"):
            return 0, (_span(shape[0], rank, self.num_gpus),)
        if self.splits_attention and ".attention.qkv_proj." in name:
            return 0, self._qkv(rank)
        if self.splits_attention and name.endswith(".attention.o_proj.weight"):
            return 1, (_span(shape[1], rank, self.num_gpus),)
        if self.splits_mlp and name.endswith(".mlp.gate_up_proj.weight"):
            start, stop = _span(inner, rank, self.num_gpus)
            return 0, ((start, stop), (inner + start, inner + stop))
        if self.splits_mlp and name.endswith(".mlp.down_proj.weight"):
            return 1, (_span(inner, rank, self.num_gpus),)
        return None, ()

    def _qkv(self, rank: int) -> tuple[Span, ...]:
        """Rows of queries, keys and values of a GPU's heads: query heads stand by the key head that they share."""
        config, size = self.config, self.config.head_dim
        queries, keys = config.num_heads * size, config.num_kv_heads * size
        first, last = _span(config.num_heads, rank, self.num_gpus)
        own, end = _span(config.num_kv_heads, rank // self.kv_copies, self.num_gpus // self.kv_copies)
        return (
            (first * size, last * size),
            (queries + own * size, queries + end * size),
            (queries + keys + own * size, queries + keys + end * size),
        )

    def notes(self) -> tuple[str, ...]:
        config, n, notes = self.config, self.num_gpus, []
        if not self.splits_attention:
            notes.append(
                f"{config.num_heads} heads over {config.num_kv_heads} key heads cannot be divided among {n} GPUs: "
                "each computes the attention of all, with all keys and values"
            )
        elif self.kv_copies > 1:
            notes.append(f"{config.num_kv_heads} key heads on {n} GPUs: each is held by {self.kv_copies}")
        if not self.splits_mlp:
            notes.append(
                f"a feed-forward of {config.intermediate_size} has no {n} parts of whole groups of {GROUP_SIZE}: each "
                "GPU computes all of it"
            )
        return tuple(notes)


def _span(size: int, rank: int, parts: int) -> Span:
    """Part ``rank`` of ``parts``, the first ones larger by one where they do not divide."""
    small, extra = divmod(size, parts)
    start = rank * small + min(rank, extra)
    return start, start + small + (rank < extra)
