"""Forwards of a model by the compiled kernels: what :meth:`Transformer.forward` computes while decoding.

The layers run as one call, with everything between two products in float32. A row's result has the same bits whatever
rides along: integer sums do not depend on their order, and of attention a row shares nothing (kernels/source).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from diffusion_core.errors import OutOfMemory
from diffusion_core.kernels import library as c
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.kv_cache import KVCache
from diffusion_core.model.layers import RMSNorm, TransformerLayer
from diffusion_core.model.native_adapter import NativeAdapter
from diffusion_core.model.native_matrix import NativeMatrix
from diffusion_core.model.packed import PackedLinear
from diffusion_core.model.rope import RotaryEmbedding

if TYPE_CHECKING:
    from diffusion_core.model.transformer import Transformer

_LANES = 16


@dataclass(frozen=True, slots=True)
class RowsOf:
    """The rows of one sequence in a forward: ``rows`` are their numbers, ``visible`` bool [T, T] or [1, T]."""

    cache: KVCache
    rows: Sequence[int]
    visible: torch.Tensor


def why_not_native(config: ModelConfig, layers: Sequence[nn.Module]) -> str:
    """Why layers of that shape and form cannot run in the kernels; empty when they can."""
    if config.head_dim % 32 or config.hidden_size % _LANES or config.intermediate_size % _LANES:
        return "heads must be a multiple of 32 channels wide, and hidden states of 16"
    for layer in layers:
        assert isinstance(layer, TransformerLayer)
        linears = _linears(layer)
        if not all(isinstance(linear.matrix, NativeMatrix) for linear in linears):
            return "the layers' weights are not laid out for the kernels"
        if any(linear.bias is not None for linear in linears[1:]):
            return "only queries, keys and values may have a bias"
        assert isinstance(linears[2].matrix, NativeMatrix)
        if not linears[2].matrix.paired:
            return "the feed-forward's two halves are not laid out side by side"
    return ""


def _linears(layer: TransformerLayer) -> list[PackedLinear]:
    attention, mlp = layer.attention, layer.mlp
    found: tuple[nn.Module, ...] = (attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj)
    return [linear for linear in found if isinstance(linear, PackedLinear)]


class NativeForward:
    """The layers of a model as the kernels want them. Of what may change while serving, only adapters do."""

    def __init__(self, model: Transformer) -> None:
        config = self._config = model.config
        self._rope = RotaryEmbedding(config)
        self._library = c.kernels()
        self._kept: list[torch.Tensor | NativeMatrix] = []
        self._norm = self._vector(model.norm.weight)
        weights = (c.LayerWeights * config.num_layers)()
        for number, layer in enumerate(model.layers):
            assert isinstance(layer, TransformerLayer)
            self._describe(layer, weights[number])
        shape = (config.num_heads, config.num_kv_heads, config.head_dim, config.hidden_size, config.intermediate_size)
        self._handle: int | None = self._library.unmask_model(*shape, config.num_layers, config.rms_norm_eps, weights)
        if self._handle is None:
            raise OutOfMemory("no memory for the description of a model")
        self._adapters: dict[int, NativeAdapter] = {}

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self._library.unmask_free_model(self._handle)
            self._handle = None

    def __deepcopy__(self, memo: dict[int, object]) -> NativeForward:
        """Itself: what it reads never changes."""
        return self

    def run(
        self,
        x: torch.Tensor,
        positions: torch.Tensor,
        sequences: Sequence[RowsOf],
        *,
        adapter: GatedAdapter | None,
        first_slot: int,
        taps: Sequence[int] = (),
        only: slice = slice(None),
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Normalised hidden states [T, D] and one [1, T, D] for each tap, in ``x``'s dtype.

        Args:
            x: embeddings [T, D].
            positions: absolute positions [T].
            sequences: every row is in one of them; keys and values are written behind the committed ones.
            adapter: acts on the rows from ``first_slot`` on.
            first_slot: see there.
            taps: as for :meth:`Transformer.forward`.
            only: the layers that are run.
        """
        count = len(x)
        cos, sin = (table[0, :, 0].contiguous() for table in self._rope(positions.unsqueeze(0), torch.float32))
        stream = x.float().contiguous()
        if stream.data_ptr() == x.data_ptr():
            stream = stream.clone()
        hidden = torch.empty(x.shape, dtype=torch.bfloat16)
        tapped = torch.empty(len(taps), *x.shape, dtype=torch.bfloat16)
        described, held = self._describe_sequences(sequences)
        first, last, _ = only.indices(self._config.num_layers)
        has_slots = adapter is not None and first_slot < count
        request = c.Request(
            count=count,
            first_slot=first_slot,
            first_layer=first,
            last_layer=last,
            num_sequences=len(sequences),
            num_taps=len(taps),
            cosines=cos.data_ptr(),
            sines=sin.data_ptr(),
            x=stream.data_ptr(),
            sequences=described,
            adapter=ctypes.pointer(self.prepare(adapter)) if adapter is not None and has_slots else None,
            taps=(ctypes.c_int32 * len(taps))(*taps),
            tapped=tapped.data_ptr(),
            norm=self._norm.data_ptr(),
            hidden=hidden.data_ptr(),
        )
        if self._library.unmask_forward(self._handle, ctypes.byref(request), torch.get_num_threads()) != 0:
            raise OutOfMemory("no memory for what a forward works in")
        del held
        return hidden.to(x.dtype), [each.unsqueeze(0).to(x.dtype) for each in tapped]

    def _describe_sequences(self, sequences: Sequence[RowsOf]) -> tuple[ctypes.Array[c.Sequence], list[torch.Tensor]]:
        described = (c.Sequence * len(sequences))()
        held = []
        for to, part in zip(described, sequences, strict=True):
            count = len(part.rows)
            store = part.cache.memory
            assert store.dtype == torch.bfloat16 and store.stride(3) == store.shape[4]
            rows = torch.tensor(part.rows, dtype=torch.int32)
            visible = part.visible.expand(count, count).contiguous()
            held += [rows, visible, store]
            to.cache, to.layer_stride, to.head_stride = store.data_ptr(), store.stride(0), store.stride(2)
            to.length, to.count, to.rows, to.visible = part.cache.length, count, rows.data_ptr(), visible.data_ptr()
        return described, held

    def _vector(self, x: torch.Tensor) -> torch.Tensor:
        vector = x.detach().float().contiguous()
        self._kept.append(vector)
        return vector

    def _describe(self, layer: TransformerLayer, to: c.LayerWeights) -> None:
        linears = _linears(layer)
        for name, linear in zip(("qkv", "o", "gate_up", "down"), linears, strict=True):
            assert isinstance(linear.matrix, NativeMatrix)
            self._kept.append(linear.matrix)
            setattr(to, name, linear.matrix.handle)
        attention = layer.attention
        vectors = {"attention_norm": layer.attention_norm.weight, "mlp_norm": layer.mlp_norm.weight}
        if linears[0].bias is not None:
            vectors["qkv_bias"] = linears[0].bias
        if isinstance(attention.q_norm, RMSNorm) and isinstance(attention.k_norm, RMSNorm):
            vectors |= {"query_norm": attention.q_norm.weight, "key_norm": attention.k_norm.weight}
        for name, vector in vectors.items():
            setattr(to, name, self._vector(vector).data_ptr())

    def prepare(self, adapter: GatedAdapter) -> c.Adapter:
        """``adapter`` as the kernels want it, made once."""
        if id(adapter) not in self._adapters:
            self._adapters[id(adapter)] = NativeAdapter(adapter, self._config.num_layers)
        return self._adapters[id(adapter)].described
