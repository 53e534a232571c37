"""A decoding round as one kernel, from the embeddings to the last norm (``kernels/cuda/round.cu``).

Its weights are a copy of the model's, in the order in which a warp's lanes read them: the ordinary forward, which
computes prompts, keeps its own. A row's bits follow from the row alone, whatever rows ride along and however many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.kernel_shape import PARTS, Arguments, KernelShape
from diffusion_core.model.layers import AdaptedLinear, TransformerLayer
from diffusion_core.model.transformer import Transformer
from diffusion_core.model.whole_inputs import WholeInputs

# Launches a compiled round on the device where the arguments point to.
Launch = Callable[[Arguments], None]
# Compiles one.
Build = Callable[[KernelShape], Launch]


def pack_tiles(matrix: torch.Tensor) -> torch.Tensor:
    """``matrix`` [T * 16, S * 16] as tiles of 16 by 16: [T, S, 32 lanes, 8 values] in the order of a warp's registers.

    Lane 4 g + t has, for rows g and g + 8 in turn, values 4 t and 4 t + 1, then 4 t + 2 and 4 t + 3.
    """
    rows, values = matrix.shape
    tiled = matrix.reshape(rows // 16, 2, 8, values // 16, 4, 2, 2)  # tile, half, g, step, t, pair, value
    return tiled.permute(0, 3, 2, 4, 5, 1, 6).contiguous().view(rows // 16, values // 16, 32, 8)


def _halves(num_rows: int, size: int) -> torch.Tensor:
    """Rows so that a tile has eight of the first half of every ``size`` rows and the eight that belong to them."""
    return torch.arange(num_rows).view(-1, 2, size // 16, 8).transpose(1, 2).reshape(-1)


def packed_bytes(model: Transformer) -> int:
    """What the copy of the layers' weights takes."""
    weights = (layer.parameters() for layer in model.layers)
    return sum(weight.numel() * weight.element_size() for layer in weights for weight in layer)


def _scaled(matrix: torch.Tensor, scales: torch.Tensor | None) -> torch.Tensor:
    """``matrix`` [out, in], its columns multiplied with ``scales`` [in]."""
    return matrix if scales is None else (matrix.float() * scales.float()).to(matrix.dtype)


@dataclass(slots=True)
class _Room:
    """A compiled round of some rows and the memory that it works in; ``arguments`` point there.

    ``cleared`` is what has to be 0 when a round begins; ``head`` the address of the output head, 0 where the kernel
    does without.
    """

    launch: Launch
    arguments: Arguments
    hidden: torch.Tensor
    best: torch.Tensor
    cleared: torch.Tensor
    head: int
    clocks: torch.Tensor
    held: list[torch.Tensor]


class WholeRound:
    """Evaluates rounds of one model; ``shapes`` says how, by their number of rows, ``build`` compiles."""

    def __init__(
        self,
        model: Transformer,
        adapter: GatedAdapter | None,
        *,
        max_positions: int,
        shapes: Mapping[int, KernelShape],
        build: Build,
    ) -> None:
        self._model, self._adapter, self._shapes, self._build = model, adapter, shapes, build
        self._rank = 0 if adapter is None else -(-adapter.rank // 16) * 16
        self._layers = [layer for layer in model.layers if isinstance(layer, TransformerLayer)]
        self._parts = [self._pack(layer) for layer in self._layers]
        positions = torch.arange(max_positions, device=model.device)[None]
        self._rotary = [table[0, :, 0].contiguous() for table in model.rope(positions, torch.bfloat16)]
        table = [[0 if part is None else part.data_ptr() for part in parts] for parts in self._parts]
        assert all(len(row) == PARTS for row in table)
        self._table = torch.tensor(table, dtype=torch.int64, device=model.device)
        self._rooms: dict[int, _Room] = {}

    @property
    def num_bytes(self) -> int:
        """Memory held on the device, in bytes."""
        held = [part for layer in self._parts for part in layer if part is not None] + self._rotary
        held += [tensor for room in self._rooms.values() for tensor in room.held]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def _pack(self, layer: TransformerLayer) -> list[torch.Tensor | None]:
        """A layer's part of the table, in the order of ``shape.cuh``.

        The norms' weights are in the matrices that normalised rows are multiplied with.
        """
        config, attention, mlp = self._model.config, layer.attention, layer.mlp
        qkv_rows = _halves((config.num_heads + 2 * config.num_kv_heads) * config.head_dim, config.head_dim)
        gate_rows = _halves(2 * config.intermediate_size, 2 * config.intermediate_size)
        found: list[torch.Tensor | None] = []
        for linear, order, norm in (
            (attention.qkv_proj, qkv_rows, layer.attention_norm), (attention.o_proj, None, None),
            (mlp.gate_up_proj, gate_rows, layer.mlp_norm), (mlp.down_proj, None, None),
        ):  # fmt: skip
            assert isinstance(linear, AdaptedLinear)
            weight = linear.weight.detach()
            rows = (torch.arange(len(weight)) if order is None else order).to(weight.device)
            scales = None if norm is None else norm.weight.detach()
            found.append(pack_tiles(_scaled(weight[rows], scales)))
            found += self._pack_pair(linear.name, rows, scales)
        assert isinstance(attention.qkv_proj, AdaptedLinear)
        weight, bias = attention.qkv_proj.weight, attention.qkv_proj.bias
        found.append(weight.new_zeros(len(weight)) if bias is None else bias.detach()[qkv_rows.to(bias.device)])
        return found

    def _pack_pair(self, name: str, rows: torch.Tensor, scales: torch.Tensor | None) -> list[torch.Tensor | None]:
        """The adapter's way down and up, filled up to tiles."""
        if self._adapter is None:
            return [None, None]
        down, up = (tensor.detach() for tensor in self._adapter.pair(name))
        lacking = self._rank - len(down)
        down = torch.cat((_scaled(down, scales), down.new_zeros(lacking, down.shape[1])))
        up = torch.cat((up, up.new_zeros(len(up), lacking)), dim=1)
        return [pack_tiles(down), pack_tiles(up[rows])]

    def run(self, inputs: WholeInputs, *, chooses: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Normalised hidden states [R, D] of the rows of ``inputs``; keys and values are written to their caches.

        With ``chooses`` also each row's best token, int64 [R], the first of equals, where the kernel has the head too.
        The results are overwritten by the next round of as many rows.
        """
        room = self._rooms.get(inputs.num_rows)
        if room is None:
            room = self._rooms[inputs.num_rows] = self._furnish(inputs.num_rows)
        room.arguments.inputs = inputs.held.data_ptr()
        room.arguments.head = room.head if chooses else 0
        room.cleared.zero_()
        room.launch(room.arguments)
        return room.hidden, room.best if chooses and room.head else None

    def clocks(self, num_rows: int) -> list[list[int]]:
        """What a timed block noted in the last round of that many rows: [steps + 2][4] cycles (``note_time``)."""
        return self._rooms[num_rows].clocks.view(-1, 4).tolist()

    def _furnish(self, rows: int) -> _Room:
        model, adapter, device = self._model, self._adapter, self._model.device
        config, shape = model.config, self._shapes[rows]
        sizes = {
            "stream": rows * shape.hidden, "queries": shape.query_values,
            "attended": rows * shape.heads * shape.head_dim, "inner": rows * shape.inner, "hidden": rows * shape.hidden,
        }  # fmt: skip
        held = {name: torch.zeros(size, dtype=model.dtype, device=device) for name, size in sizes.items()}
        held["parts"] = torch.zeros(shape.parts_floats, dtype=torch.float32, device=device)
        # Ranks of 8 bytes first, counters of 4 behind them.
        cleared = torch.zeros(2 * rows + shape.num_counters, dtype=torch.int32, device=device)
        held |= {"ranks": cleared[: 2 * rows], "counters": cleared[2 * rows :]}
        held["best"] = torch.zeros(rows, dtype=torch.int64, device=device)
        held["clocks"] = torch.zeros(shape.num_clocks, dtype=torch.int64, device=device)
        mask = None if adapter is None else adapter.mask_embedding.detach().to(model.dtype)
        held |= {"table": self._table, "embedding": model.embed_tokens.weight.detach()}
        held |= {"final_norm": model.norm.weight.detach(), "cosines": self._rotary[0], "sines": self._rotary[1]}
        if mask is not None:
            held["mask_embedding"] = mask
        arguments = Arguments(
            **{name: tensor.data_ptr() for name, tensor in held.items()},
            mask_id=-1 if adapter is None else adapter.mask_token_id,
            num_tokens=len(model.head_weight), eps=model.norm.eps,
            adapter_scale=0.0 if adapter is None else adapter.scale, attention_scale=config.head_dim**-0.5,
        )  # fmt: skip
        own = [
            cleared,
            *(held[name] for name in (*sizes, "parts", "best", "clocks")),
            *([] if mask is None else [mask]),
        ]
        hidden, head = held["hidden"].view(rows, shape.hidden), model.head_weight.data_ptr() if shape.fused_head else 0
        return _Room(self._build(shape), arguments, hidden, held["best"], cleared, head, held["clocks"], own)
