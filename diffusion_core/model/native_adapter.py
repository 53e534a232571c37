"""A gated adapter as the compiled kernels read it."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as F

from diffusion_core.errors import OutOfMemory
from diffusion_core.kernels import library as c
from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.kv_cache import round_up

_LANES = 16
_LINEARS = ("attention.qkv_proj", "attention.o_proj", "mlp.gate_up_proj", "mlp.down_proj")


class NativeAdapter:
    """The pairs of ``adapter`` for all layers, in bfloat16 and in the order of pair.h; ``described`` names them."""

    def __init__(self, adapter: GatedAdapter, num_layers: int) -> None:
        self.adapter = adapter
        self._library = c.kernels()
        self._rank = round_up(adapter.rank, _LANES)
        self._handles = (ctypes.c_void_p * (len(_LINEARS) * num_layers))()
        names = [f"layers.{number}.{linear}" for number in range(num_layers) for linear in _LINEARS]
        for place, name in enumerate(names):
            self._handles[place] = self._make(*adapter.served_pair(name))
        self.described = c.Adapter(self._rank, ctypes.addressof(self._handles))

    def __del__(self) -> None:
        for handle in getattr(self, "_handles", ()):
            if handle:
                self._library.unmask_free_pair(handle)

    def _make(self, down: torch.Tensor, up: torch.Tensor) -> int:
        """``down`` [in, rank] and ``up`` [rank, out] laid out, by handle."""
        inputs, outputs, rank = len(down), up.shape[1], self._rank
        narrow_down = F.pad(down.bfloat16(), (0, rank - down.shape[1]))
        narrow_up = F.pad(up.bfloat16(), (0, round_up(outputs, _LANES) - outputs, 0, rank - len(up)))
        downs = narrow_down.view(inputs // 2, 2, rank // _LANES, _LANES).permute(2, 0, 3, 1).contiguous()
        ups = narrow_up.view(rank // 2, 2, -1, _LANES).permute(2, 0, 3, 1).contiguous()
        handle: int | None = self._library.unmask_pair(inputs, outputs, rank, downs.data_ptr(), ups.data_ptr())
        if handle is None:
            raise OutOfMemory("no memory for an adapter")
        return handle
