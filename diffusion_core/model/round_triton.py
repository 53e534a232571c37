"""The steps of a decoding round as one CUDA kernel each (Triton). Import this only where Triton is installed.

A row's result follows from the row alone: each program works on one row, attention goes over chunks of keys that
begin at fixed places, and the chunks are added up in fixed groups. A chunk in which a row sees nothing adds exactly
nothing, so neither the other rows nor the length of the cache's memory change a bit (DECISIONS 1, 11).

Intermediate results are rounded to the model's dtype where torch's own operations round them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from diffusion_core.model.adapter import GatedAdapter
from diffusion_core.model.config import ModelConfig
from diffusion_core.model.joined import JoinedProduct
from diffusion_core.model.kv_cache import KEY_BUCKET
from diffusion_core.model.layers import AdaptableLinear, Attention, RMSNorm
from diffusion_core.model.round_inputs import RoundInputs
from diffusion_core.model.round_ops import Change, KeysValues, RoundState, add_change

# Keys that one program attends over; divides every length of the cache's memory.
CHUNK = KEY_BUCKET
# Chunks that are added up at once, in an order of their own; always as many, so that it is always the same order.
CHUNKS_TOGETHER = 8
# A matrix product of Triton has at least this many rows.
LEAST_DOT = 16
GATE_BLOCK = 512


def supports(config: ModelConfig) -> bool:
    """Whether the kernels can work with heads of that shape."""
    is_power = config.head_dim & (config.head_dim - 1) == 0
    return is_power and LEAST_DOT <= config.head_dim <= 256 and config.num_heads // config.num_kv_heads <= LEAST_DOT


@triton.jit
def _with_change(y, low, up, row, at, inside, low_stride, scale, num_out, RANK: tl.constexpr):
    """``y``, columns ``at`` of a slot row, with what the adapter adds; rounded as torch rounds it."""
    total = y.to(tl.float32) * 0.0
    for part in tl.static_range(RANK):
        left = tl.load(low + row * low_stride + part).to(tl.float32)
        right = tl.load(up + part * num_out + at, mask=inside, other=0.0)
        total += left * right.to(tl.float32)
    return (y.to(tl.float32) + total * scale).to(y.dtype)


@triton.jit
def _add_norm(
    x, delta, weight, total, normalised, size, eps, delta_stride, low, up, is_slot, low_stride, scale, num_out,
    HAS_DELTA: tl.constexpr, HAS_CHANGE: tl.constexpr, BLOCK: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    inside = at < size
    values = tl.load(x + row * size + at, mask=inside, other=0.0)
    if HAS_DELTA:
        change = tl.load(delta + row * delta_stride + at, mask=inside, other=0.0)
        if HAS_CHANGE:  # noqa: SIM102 - a constant: what it rules out is not compiled
            if tl.load(is_slot + row) == 1:
                change = _with_change(change, low, up, row, at, inside, low_stride, scale, num_out, RANK)
        values = (values.to(tl.float32) + change.to(tl.float32)).to(values.dtype)
        tl.store(total + row * size + at, values, mask=inside)
    wide = values.to(tl.float32)
    wide = wide / tl.sqrt(tl.sum(wide * wide, axis=0) / size + eps)
    scales = tl.load(weight + at, mask=inside, other=0.0)
    result = wide.to(values.dtype).to(tl.float32) * scales.to(tl.float32)
    tl.store(normalised + row * size + at, result.to(values.dtype), mask=inside)


@triton.jit
def _store_rows(
    qkv, cos, sin, start, queries, keys, values, head_stride, row_stride,
    low_rank, up, is_slot, low_stride, scale, num_out,
    NUM_HEADS: tl.constexpr, NUM_KV: tl.constexpr, SIZE: tl.constexpr,
    HAS_CHANGE: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    head = tl.program_id(1)
    HALF: tl.constexpr = SIZE // 2
    low = tl.arange(0, HALF)
    high = low + HALF
    source = qkv + row * row_stride + head * SIZE
    first = tl.load(source + low)
    second = tl.load(source + high)
    if HAS_CHANGE:  # noqa: SIM102 - a constant: what it rules out is not compiled
        if tl.load(is_slot + row) == 1:
            one, two = head * SIZE + low, head * SIZE + high
            every = low >= 0
            first = _with_change(first, low_rank, up, row, one, every, low_stride, scale, num_out, RANK)
            second = _with_change(second, low_rank, up, row, two, every, low_stride, scale, num_out, RANK)
    place = tl.load(start) + row
    if head < NUM_HEADS + NUM_KV:
        a = first.to(tl.float32)
        b = second.to(tl.float32)
        a_cos = (a * tl.load(cos + row * SIZE + low).to(tl.float32)).to(first.dtype)
        b_cos = (b * tl.load(cos + row * SIZE + high).to(tl.float32)).to(first.dtype)
        b_sin = (-b * tl.load(sin + row * SIZE + low).to(tl.float32)).to(first.dtype)
        a_sin = (a * tl.load(sin + row * SIZE + high).to(tl.float32)).to(first.dtype)
        first = (a_cos.to(tl.float32) + b_sin.to(tl.float32)).to(first.dtype)
        second = (b_cos.to(tl.float32) + a_sin.to(tl.float32)).to(first.dtype)
    if head < NUM_HEADS:
        target = queries + (row * NUM_HEADS + head) * SIZE
    else:
        if head < NUM_HEADS + NUM_KV:
            target = keys + (head - NUM_HEADS) * head_stride + place * SIZE
        else:
            target = values + (head - NUM_HEADS - NUM_KV) * head_stride + place * SIZE
    tl.store(target + low, first)
    tl.store(target + high, second)


@triton.jit
def _attend_chunk(
    queries, keys, values, start, sees_cache, among, mixes, maxima, sums, head_stride, scale, num_rows,
    GROUP: tl.constexpr, SIZE: tl.constexpr, CHUNK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    head = tl.program_id(1)
    chunk = tl.program_id(2)
    num_kv = tl.num_programs(1)
    member = tl.arange(0, PADDED)
    place = ((row * num_kv + head) * tl.num_programs(2) + chunk) * GROUP + member
    committed = tl.load(start)
    sees = tl.load(sees_cache + row)
    begin = tl.where(sees == 1, 0, committed)
    first = chunk * CHUNK
    if (first < committed + num_rows) & (first + CHUNK > begin):
        at = tl.arange(0, SIZE)
        key = first + tl.arange(0, CHUNK)
        relative = key - committed
        own = tl.load(among + row * num_rows + relative, mask=(relative >= 0) & (relative < num_rows), other=0)
        visible = tl.where(relative < 0, sees, own) == 1
        in_group = member[:, None] < GROUP
        query_row = row * num_kv * GROUP + head * GROUP + member
        q = tl.load(queries + query_row[:, None] * SIZE + at[None, :], mask=in_group, other=0.0)
        k = tl.load(keys + head * head_stride + key[None, :] * SIZE + at[:, None])
        scores = tl.dot(q, k, input_precision="ieee") * scale
        scores = tl.where(visible[None, :], scores, float("-inf"))
        most = tl.max(scores, axis=1)
        weights = tl.exp(scores - tl.where(most == float("-inf"), 0.0, most)[:, None])
        v = tl.load(values + head * head_stride + key[:, None] * SIZE + at[None, :])
        mix = tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        tl.store(mixes + place[:, None] * SIZE + at[None, :], mix, mask=in_group)
        tl.store(sums + place, tl.sum(weights, axis=1), mask=member < GROUP)
        tl.store(maxima + place, most, mask=member < GROUP)
    else:
        tl.store(maxima + place, tl.full((PADDED,), float("-inf"), tl.float32), mask=member < GROUP)


@triton.jit
def _join_chunks(
    mixes, maxima, sums, mixed, start, num_rows, num_chunks,
    GROUP: tl.constexpr, SIZE: tl.constexpr, CHUNK: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    head = tl.program_id(1)
    num_heads = tl.num_programs(1)
    at = tl.arange(0, SIZE)
    base = (row * (num_heads // GROUP) + head // GROUP) * num_chunks
    most = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    result = tl.zeros((SIZE,), tl.float32)
    num_used = tl.cdiv(tl.load(start) + num_rows, CHUNK)
    first = 0
    while first < num_used:
        chunk = first + tl.arange(0, TOGETHER)
        inside = chunk < num_used
        place = (base + chunk) * GROUP + head % GROUP
        maximum = tl.load(maxima + place, mask=inside, other=float("-inf"))
        part = tl.load(sums + place, mask=inside, other=0.0)
        mix = tl.load(mixes + place[:, None] * SIZE + at[None, :], mask=inside[:, None], other=0.0)
        # Of an unseen chunk nothing else was written: what is there may be anything.
        is_seen = maximum > float("-inf")
        part = tl.where(is_seen, part, 0.0)
        mix = tl.where(is_seen[:, None], mix, 0.0)
        new = tl.maximum(most, tl.max(maximum, axis=0))
        finite = tl.where(new == float("-inf"), 0.0, new)
        keep = tl.exp(most - finite)
        weight = tl.exp(maximum - finite)
        total = total * keep + tl.sum(part * weight, axis=0)
        result = result * keep + tl.sum(mix * weight[:, None], axis=0)
        most = new
        first += TOGETHER
    result = result / tl.where(total == 0.0, 1.0, total)
    tl.store(mixed + (row * num_heads + head) * SIZE + at, result.to(mixed.dtype.element_ty))


@triton.jit
def _gate(
    gate_up, result, size, row_stride, low, up_pair, is_slot, low_stride, scale, num_out,
    HAS_CHANGE: tl.constexpr, BLOCK: tl.constexpr, RANK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    gate = tl.load(gate_up + row * row_stride + at, mask=inside, other=0.0)
    up = tl.load(gate_up + row * row_stride + size + at, mask=inside, other=0.0)
    if HAS_CHANGE:  # noqa: SIM102 - a constant: what it rules out is not compiled
        if tl.load(is_slot + row) == 1:
            gate = _with_change(gate, low, up_pair, row, at, inside, low_stride, scale, num_out, RANK)
            up = _with_change(up, low, up_pair, row, size + at, inside, low_stride, scale, num_out, RANK)
    wide = gate.to(tl.float32)
    opened = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype)
    tl.store(result + row * size + at, (opened.to(tl.float32) * up.to(tl.float32)).to(gate.dtype), mask=inside)


class _ChangeArguments:
    """A change as kernels take it; without one, arguments that nothing reads."""

    def __init__(self, change: Change | None, state: RoundState | None, unread: torch.Tensor) -> None:
        self.sizes: dict[str, int | bool] = {"HAS_CHANGE": change is not None, "RANK": 1}
        if change is None or state is None:
            self.values: tuple[torch.Tensor | int | float, ...] = (unread, unread, unread, 0, 1.0, 0)
            return
        num_out, self.sizes["RANK"] = change.up.shape
        low, is_slot = change.low, state.inputs.is_slot
        assert low.stride(1) == 1
        self.values = (low, change.up.T.contiguous(), is_slot, low.stride(0), change.scale, num_out)


class TritonOps:
    """The steps of :class:`~diffusion_core.model.round_ops.RoundOps` as single kernels.

    ``joined``: products that compute the adapter's ``low`` with their own columns (joined.py), by layer.
    """

    def __init__(self, joined: Mapping[str, JoinedProduct] | None = None) -> None:
        self._joined = joined or {}

    def begin(self, inputs: RoundInputs, rotary: tuple[torch.Tensor, torch.Tensor], num_keys: int) -> RoundState:
        """Nothing to compute: the kernels read the inputs themselves."""
        return RoundState(inputs, rotary)

    def product(
        self, linear: AdaptableLinear, x: torch.Tensor, adapter: GatedAdapter | None, state: RoundState
    ) -> tuple[torch.Tensor, Change | None]:
        """The product, and what the kernel behind it has to add.

        A joined product is used in rounds without slots too: it must be one and the same kernel (DECISIONS 1).
        """
        joined = self._joined.get(linear.name)
        if joined is not None:
            y, low = joined.apply(x)
            return y, None if adapter is None else Change(low, joined.up, adapter.scale)
        if adapter is None:
            return linear(x), None
        down, up = adapter.pair(linear.name)
        return linear(x), Change(F.linear(x, down), up, adapter.scale)

    def norm(self, x: torch.Tensor, norm: RMSNorm) -> torch.Tensor:
        """``norm(x)`` [R, D]."""
        return self._norm(x, None, norm, None, None)[1]

    def add_norm(
        self, x: torch.Tensor, delta: torch.Tensor, norm: RMSNorm, state: RoundState, change: Change | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``x + delta`` and its normalised form, each [R, D]."""
        return self._norm(x, delta, norm, state, change)

    def _norm(
        self,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        norm: RMSNorm,
        state: RoundState | None,
        change: Change | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.contiguous()
        normalised, total = torch.empty_like(x), x if delta is None else torch.empty_like(x)
        size, changing = x.shape[1], _ChangeArguments(change, state, x)
        _add_norm[(len(x),)](
            x, x if delta is None else delta, norm.weight, total, normalised, size, norm.eps,
            0 if delta is None else delta.stride(0), *changing.values,
            HAS_DELTA=delta is not None, BLOCK=triton.next_power_of_2(size), **changing.sizes,
        )  # fmt: skip
        return total, normalised

    def store_rows(
        self,
        qkv: torch.Tensor,
        attention: Attention,
        memory: KeysValues,
        state: RoundState,
        change: Change | None = None,
    ) -> torch.Tensor:
        """Write the rows' rotated keys and their values into ``memory``; rotated queries [R, H, Dh]."""
        H, K, size = attention.num_heads, attention.num_kv_heads, attention.head_dim
        if attention.q_norm is not None and attention.k_norm is not None:
            heads, change = add_change(qkv, state, change).reshape(len(qkv), -1, size), None
            parts = attention.q_norm(heads[:, :H]), attention.k_norm(heads[:, H : H + K]), heads[:, H + K :]
            qkv = torch.cat(parts, dim=1).flatten(1)
        keys, values = memory
        queries = torch.empty(len(qkv), H, size, dtype=qkv.dtype, device=qkv.device)
        cos, sin = (table.contiguous() for table in state.rotary)
        changing = _ChangeArguments(change, state, qkv)
        _store_rows[(len(qkv), H + 2 * K)](
            qkv, cos, sin, state.inputs.start, queries, keys, values, keys.stride(0), qkv.stride(0),
            *changing.values, NUM_HEADS=H, NUM_KV=K, SIZE=size, **changing.sizes,
        )  # fmt: skip
        return queries

    def attend(self, queries: torch.Tensor, memory: KeysValues, state: RoundState) -> torch.Tensor:
        """Attention of ``queries`` [R, H, Dh] over all keys that each row sees, [R, H * Dh]."""
        (rows, H, size), (keys, values), inputs = queries.shape, memory, state.inputs
        K, num_chunks = len(keys), keys.shape[1] // CHUNK
        shape = (rows, K, num_chunks, H // K)
        mixes = torch.empty(*shape, size, dtype=torch.float32, device=queries.device)
        maxima, sums = (torch.empty(shape, dtype=torch.float32, device=queries.device) for _ in range(2))
        mixed = torch.empty(rows, H * size, dtype=queries.dtype, device=queries.device)
        sizes = {"GROUP": H // K, "SIZE": size, "CHUNK": CHUNK}
        _attend_chunk[(rows, K, num_chunks)](
            queries, keys, values, inputs.start, inputs.sees_cache, inputs.among, mixes, maxima, sums,
            keys.stride(0), size**-0.5, rows, **sizes, PADDED=LEAST_DOT,
        )  # fmt: skip
        _join_chunks[(rows, H)](
            mixes, maxima, sums, mixed, inputs.start, rows, num_chunks, **sizes, TOGETHER=CHUNKS_TOGETHER
        )
        return mixed

    def gate(self, gate_up: torch.Tensor, state: RoundState, change: Change | None = None) -> torch.Tensor:
        """``silu(gate) * up`` [R, I] of [R, 2 I]."""
        rows, size = gate_up.shape[0], gate_up.shape[1] // 2
        result = torch.empty(rows, size, dtype=gate_up.dtype, device=gate_up.device)
        changing = _ChangeArguments(change, state, gate_up)
        _gate[(rows, triton.cdiv(size, GATE_BLOCK))](
            gate_up, result, size, gate_up.stride(0), *changing.values, BLOCK=GATE_BLOCK, **changing.sizes
        )
        return result
