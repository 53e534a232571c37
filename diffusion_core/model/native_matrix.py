"""A weight in 8 bits laid out for the compiled kernels, which multiply as ``quantized.py`` says, in half the time."""

from __future__ import annotations

import torch

from diffusion_core.errors import OutOfMemory
from diffusion_core.kernels.library import kernels
from diffusion_core.model.quantized import QuantizedWeight


class NativeMatrix:
    """A :class:`QuantizedWeight` in the order of tiles, with the products of :class:`QuantizedMatrix`, bit for bit.

    With ``paired``, the two halves of the outputs are computed side by side, as SwiGLU wants them.
    """

    def __init__(self, weight: QuantizedWeight, *, paired: bool = False) -> None:
        self.num_out, self.num_in = weight.values.shape
        self.paired = paired
        values, scales = weight.values.contiguous(), weight.scales.float().contiguous()
        self._library = kernels()
        self.handle: int | None = self._library.unmask_matrix(
            self.num_out, self.num_in, paired, values.data_ptr(), scales.data_ptr(), torch.get_num_threads()
        )
        if self.handle is None:
            raise OutOfMemory(f"no memory for a weight of {self.num_out} x {self.num_in}")
        self.num_bytes = weight.values.numel() + 4 * self.num_out

    def __del__(self) -> None:
        if getattr(self, "handle", None) is not None:
            self._library.unmask_free_matrix(self.handle)
            self.handle = None

    def __deepcopy__(self, memo: dict[int, object]) -> NativeMatrix:
        """Itself: it never changes, and its memory is given back once."""
        return self

    def linear(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``F.linear(x, weight, bias)`` for ``x`` [..., in], summed in int32, scaled in float32, in ``x``'s dtype."""
        narrow = x.dtype == torch.bfloat16
        y = torch.empty(*x.shape[:-1], self.num_out, dtype=torch.bfloat16 if narrow else torch.float32)
        self._multiply(x, bias, y)
        return y.to(x.dtype)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """As :meth:`linear`, in float32."""
        y = torch.empty(*x.shape[:-1], self.num_out, dtype=torch.float32)
        self._multiply(x, None, y)
        return y

    def best(self, x: torch.Tensor) -> torch.Tensor:
        """The output with the highest of :meth:`scores` of each row [R, in], the first of equals: int64 [R]."""
        rows, *pointers = _rows(x, self.num_in)
        best = torch.empty(len(rows), dtype=torch.int64)
        highest = torch.empty(len(rows), dtype=torch.float32)
        to = (best.data_ptr(), highest.data_ptr())
        _check(self._library.unmask_best(self.handle, *pointers, len(rows), *to, torch.get_num_threads()))
        return best

    def _multiply(self, x: torch.Tensor, bias: torch.Tensor | None, y: torch.Tensor) -> None:
        rows, *pointers = _rows(x, self.num_in)
        added = None if bias is None else bias.detach().float().contiguous()
        pointer = None if added is None else added.data_ptr()
        to = (None, y.data_ptr()) if y.dtype == torch.bfloat16 else (y.data_ptr(), None)
        threads = torch.get_num_threads()
        _check(self._library.unmask_product(self.handle, *pointers, len(rows), pointer, *to, threads))


def _rows(x: torch.Tensor, size: int) -> tuple[torch.Tensor, int | None, int | None]:
    """``x`` as rows [R, size] in bfloat16 or float32, and their address in the one or the other form."""
    is_narrow = x.dtype == torch.bfloat16
    rows = (x if is_narrow else x.float()).reshape(-1, size).contiguous()
    return (rows, rows.data_ptr(), None) if is_narrow else (rows, None, rows.data_ptr())


def _check(status: int) -> None:
    if status != 0:
        raise OutOfMemory("no memory for what a forward works in")
