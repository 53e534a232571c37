"""A matrix product in tiles of 16 rows, each row summed in one fixed order: its bits cannot depend on other rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
import triton
import triton.language as tl

ROWS = 16


@triton.jit
def _product(
    x, weight, y, num_rows, num_out,
    NUM_IN: tl.constexpr, ROWS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    out = tl.program_id(1) * OUT + tl.arange(0, OUT)
    at = tl.arange(0, IN)
    total = tl.zeros((ROWS, OUT), tl.float32)
    for start in range(0, NUM_IN, IN):
        inside = start + at < NUM_IN
        left = tl.load(
            x + row[:, None] * NUM_IN + start + at[None, :],
            mask=(row[:, None] < num_rows) & inside[None, :], other=0.0,
        )  # fmt: skip
        right = tl.load(
            weight + out[None, :] * NUM_IN + start + at[:, None],
            mask=(out[None, :] < num_out) & inside[:, None], other=0.0,
        )  # fmt: skip
        total = tl.dot(left, right, total, input_precision="ieee")
    place = y + row[:, None] * num_out + out[None, :]
    tl.store(place, total.to(y.dtype.element_ty), mask=(row[:, None] < num_rows) & (out[None, :] < num_out))


def tiled_product(tile: tuple[int, int, int, int]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """``F.linear`` of x [R, in] and weight [out, in]; ``tile``: columns, values at a time, warps, stages."""
    out, at_once, num_warps, num_stages = tile

    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        (rows, num_in), num_out = x.shape, weight.shape[0]
        y = torch.empty(rows, num_out, dtype=x.dtype, device=x.device)
        _product[(triton.cdiv(rows, ROWS), triton.cdiv(num_out, out))](
            x, weight, y, rows, num_out, NUM_IN=num_in, ROWS=ROWS, OUT=out, IN=at_once,
            num_warps=num_warps, num_stages=num_stages,
        )  # fmt: skip
        return y

    return product
