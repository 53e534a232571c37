"""From the tensors of a foreign checkpoint to the fused tensors of our Transformer: names, shapes, checks.

A plan lists every tensor of the Transformer with the pieces it is made of, stacked by rows. Checking a source against
the plan names each missing, unexpected or misshapen tensor; reading streams rows, so that no more than a few
megabytes are in flight at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from diffusion_core.errors import CheckpointError
from diffusion_core.model.config import ModelConfig

if TYPE_CHECKING:
    import torch

CHUNK_ELEMENTS = 8 * 1024 * 1024
MAX_LAYERS = 1024

Shape = tuple[int, ...]


class WeightSource(Protocol):
    """The tensors of a checkpoint, whatever its format."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Name -> shape, the first dimension being rows."""

    def where(self, name: str) -> str:
        """The file that holds (or should hold) this tensor, for messages."""

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` in a floating-point dtype."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How a format calls the tensors; ``{i}`` stands for the layer. Suffixes ``.weight`` and ``.bias`` are added."""

    embedding: str
    final_norm: str
    head: str
    attention_norm: str
    query: str
    key: str
    value: str
    output: str
    query_norm: str
    key_norm: str
    mlp_norm: str
    gate: str
    up: str
    down: str


HUGGING_FACE = Naming(
    embedding="model.embed_tokens",
    final_norm="model.norm",
    head="lm_head",
    attention_norm="model.layers.{i}.input_layernorm",
    query="model.layers.{i}.self_attn.q_proj",
    key="model.layers.{i}.self_attn.k_proj",
    value="model.layers.{i}.self_attn.v_proj",
    output="model.layers.{i}.self_attn.o_proj",
    query_norm="model.layers.{i}.self_attn.q_norm",
    key_norm="model.layers.{i}.self_attn.k_norm",
    mlp_norm="model.layers.{i}.post_attention_layernorm",
    gate="model.layers.{i}.mlp.gate_proj",
    up="model.layers.{i}.mlp.up_proj",
    down="model.layers.{i}.mlp.down_proj",
)

GGUF = Naming(
    embedding="token_embd",
    final_norm="output_norm",
    head="output",
    attention_norm="blk.{i}.attn_norm",
    query="blk.{i}.attn_q",
    key="blk.{i}.attn_k",
    value="blk.{i}.attn_v",
    output="blk.{i}.attn_output",
    query_norm="blk.{i}.attn_q_norm",
    key_norm="blk.{i}.attn_k_norm",
    mlp_norm="blk.{i}.ffn_norm",
    gate="blk.{i}.ffn_gate",
    up="blk.{i}.ffn_up",
    down="blk.{i}.ffn_down",
)


@dataclass(frozen=True)
class Piece:
    """A tensor of the source. ``interleaved_head`` is the head size when rotary halves are interleaved row by row."""

    name: str
    shape: Shape
    interleaved_head: int | None = None


@dataclass(frozen=True)
class Target:
    """A tensor of the Transformer: its pieces stacked along the first dimension."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def shape(self) -> Shape:
        """The stacked shape."""
        first = self.pieces[0].shape
        return (sum(piece.shape[0] for piece in self.pieces), *first[1:])


def plan_targets(config: ModelConfig, naming: Naming, *, interleaved: bool = False) -> list[Target]:
    """Every tensor of ``Transformer(config)`` and what it is made of.

    ``interleaved``: query and key rows are stored with the rotary halves interleaved (GGUF files of Llama shape).

    Raises:
        CheckpointError: the number of layers is none that a model has.
    """
    if not 1 <= config.num_layers <= MAX_LAYERS:
        raise CheckpointError(f"the configuration asks for {config.num_layers} layers: 1 to {MAX_LAYERS} are possible")
    width = config.hidden_size
    targets = [Target("embed_tokens.weight", (Piece(f"{naming.embedding}.weight", (config.vocab_size, width)),))]
    for i in range(config.num_layers):
        targets += _plan_layer(config, naming, i, config.head_dim if interleaved else None)
    targets.append(Target("norm.weight", (Piece(f"{naming.final_norm}.weight", (width,)),)))
    if not config.tie_word_embeddings:
        targets.append(Target("lm_head.weight", (Piece(f"{naming.head}.weight", (config.vocab_size, width)),)))
    return targets


def _plan_layer(config: ModelConfig, naming: Naming, i: int, interleaved_head: int | None) -> list[Target]:
    width, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer = f"layers.{i}"

    def piece(template: str, *shape: int, head: int | None = None, kind: str = "weight") -> Piece:
        return Piece(f"{template.format(i=i)}.{kind}", shape, head)

    def qkv(kind: str, *columns: int) -> Target:
        pieces = (
            piece(naming.query, queries, *columns, head=interleaved_head, kind=kind),
            piece(naming.key, keys, *columns, head=interleaved_head, kind=kind),
            piece(naming.value, keys, *columns, kind=kind),
        )
        return Target(f"{layer}.attention.qkv_proj.{kind}", pieces)

    targets = [Target(f"{layer}.attention_norm.weight", (piece(naming.attention_norm, width),)), qkv("weight", width)]
    if config.qkv_bias:
        targets.append(qkv("bias"))
    if config.qk_norm:
        targets.append(Target(f"{layer}.attention.q_norm.weight", (piece(naming.query_norm, config.head_dim),)))
        targets.append(Target(f"{layer}.attention.k_norm.weight", (piece(naming.key_norm, config.head_dim),)))
    return [
        *targets,
        Target(f"{layer}.attention.o_proj.weight", (piece(naming.output, width, queries),)),
        Target(f"{layer}.mlp_norm.weight", (piece(naming.mlp_norm, width),)),
        Target(
            f"{layer}.mlp.gate_up_proj.weight",
            (piece(naming.gate, inner, width), piece(naming.up, inner, width)),
        ),
        Target(f"{layer}.mlp.down_proj.weight", (piece(naming.down, width, inner),)),
    ]


def check_source(source: WeightSource, targets: list[Target], ignored: frozenset[str] = frozenset()) -> None:
    """Raise :class:`CheckpointError` for the first missing, misshapen or unexpected tensor; file and tensor are named.

    ``ignored`` names tensors that may be there without being used.
    """
    wanted = {piece.name: piece.shape for target in targets for piece in target.pieces}
    check_shapes(source.shapes, wanted, source.where, ignored)


def check_shapes(
    found: Mapping[str, Shape],
    wanted: Mapping[str, Shape],
    where: WeightSourceWhere,
    ignored: frozenset[str] = frozenset(),
) -> None:
    """The comparison of :func:`check_source` on plain mappings of name to shape."""
    for name, shape in wanted.items():
        if name not in found:
            raise CheckpointError(f"{where(name)}: tensor {name} is missing, {list(shape)} expected")
        if found[name] != shape:
            raise CheckpointError(
                f"{where(name)}: tensor {name} has shape {list(found[name])}, "
                f"{list(shape)} expected by the configuration"
            )
    for name in found:
        if name not in wanted and name not in ignored:
            raise CheckpointError(f"{where(name)}: tensor {name} is unexpected, the configuration has no place for it")


class WeightSourceWhere(Protocol):
    """Gives the file of a tensor."""

    def __call__(self, name: str) -> str:
        """The file that holds this tensor."""


def read_target(source: WeightSource, target: Target, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """The rows of a target tensor in order and in ``dtype``, a few megabytes at a time.

    Raises:
        CheckpointError: a value is not finite, or does not fit ``dtype``.
    """
    for piece in target.pieces:
        row_elements = 1
        for size in piece.shape[1:]:
            row_elements *= size
        step = max(1, CHUNK_ELEMENTS // row_elements)
        if piece.interleaved_head is not None:  # a head's rows must come together
            step = max(1, step // piece.interleaved_head) * piece.interleaved_head
        for start in range(0, piece.shape[0], step):
            stop = min(start + step, piece.shape[0])
            rows = source.read_rows(piece.name, start, stop)
            if piece.interleaved_head is not None:
                rows = undo_interleaving(rows, piece.interleaved_head)
            converted = rows.to(dtype)
            # A sum is many times faster than a look at each value, and is finite only if all of them are.
            if not bool(converted.sum().isfinite()) and not bool(converted.isfinite().all()):
                raise CheckpointError(
                    f"{source.where(piece.name)}: tensor {piece.name} has values that are not finite"
                    f"{'' if not bool(rows.isfinite().all()) else f' in {dtype}: choose another dtype'}"
                )
            yield converted


def undo_interleaving(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows (0, h/2, 1, h/2+1, ...) of each head back to (0, 1, 2, ...): GGUF's order of Llama's queries and keys."""
    heads = rows.shape[0] // head_dim
    halves = rows.reshape(heads, head_dim // 2, 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)
