// What becomes of a product's results.
//
// A lane gets four at a time: `values[0..1]` are result g of the tile for rows `row` and `row + 1`, `values[2..3]`
// result g + 8 for the same rows.

#pragma once

#include "product.cuh"

// What the results need besides, loaded before the sums are complete: biases, or what is added to.
struct Early {
  float at[4];
};

__device__ __forceinline__ int stream_place(int tile, int row, int g, int i) {
  return packed(row + (i & 1), tile * 16 + g + (i >> 1) * 8);
}

__device__ __forceinline__ Early early_of(const Arguments& arguments, const Shared& shared, const Share& share,
                                          int layer, int tile, int row, int g) {
  Early early = {};
  if (share.kind == kGateUp) return early;
  const bf16* bias = reinterpret_cast<const bf16*>(shared.table[layer * kParts + kBias]);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const bf16* from = arguments.stream + stream_place(tile, row, g, i);
    if (share.kind == kQkv) from = bias + tile * 16 + g + (i >> 1) * 8;
    early.at[i] = as_float(load_shared_by_all2(from));
  }
  return early;
}

// Queries, keys and values: rotated, keys and values at their places in the cache. A tile has eight values of the first
// half of a head and the eight that are rotated with them.
__device__ __forceinline__ void store_head(const Arguments& arguments, const Shared& shared, const float (&values)[4],
                                           int layer, int tile, int row, int g) {
  const int head = tile / (kHeadDim / 16), first = tile % (kHeadDim / 16) * 8 + g, second = first + kHeadDim / 2;
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float a = values[i], b = values[2 + i];
    const int own = row + i;
    if (head < kHeads + kKvHeads) {
      const bf16 *cosines = shared.cosines + own * kHeadDim, *sines = shared.sines + own * kHeadDim;
      const float turned_a = rounded(a * as_float(cosines[first])), turned_b = rounded(b * as_float(cosines[second]));
      const float from_b = rounded(-b * as_float(sines[first])), from_a = rounded(a * as_float(sines[second]));
      a = rounded(turned_a + from_b), b = rounded(turned_b + from_a);
    }
    bf16* to = arguments.queries + (head / kGroup * kQueryRows + own * kGroup + head % kGroup) * kHeadDim;
    if (head >= kHeads) {
      const bool is_key = head < kHeads + kKvHeads;
      if (shared.starts[own] < 0) continue;
      const long long part = (2 * layer + (is_key ? 0 : 1)) * kKvHeads + head - kHeads - (is_key ? 0 : kKvHeads);
      to = reinterpret_cast<bf16*>(shared.memories[own]);
      to += (part * shared.capacities[own] + shared.starts[own] + shared.places[own]) * kHeadDim;
    }
    to[first] = as_bf16(a), to[second] = as_bf16(b);
  }
}

// The gate and what it lets through: a tile has eight results of each.
__device__ __forceinline__ void store_gated(const Arguments& arguments, const float (&values)[4], int tile, int row,
                                            int g) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const float gate = values[i], opened = rounded(fast_divide(gate, 1.f + fast_exp(-gate)));
    arguments.inner[packed(row + i, tile * 8 + g)] = as_bf16(opened * values[2 + i]);
  }
}

// The lane's results of a unit, rounded as torch rounds them; `number` is the tile's among the block's.
__device__ __forceinline__ void finish_unit(const Arguments& arguments, const Shared& shared, const Share& share,
                                            float (&values)[4], const Early& early, int layer, int number, int pass,
                                            int column, int lane) {
  const int g = lane >> 2, own = column * 8 + (lane & 3) * 2, row = pass * kPassRows + own;
  const int tile = share.tile(number);
  float norms[2] = {1.f, 1.f}, change[4];
  if (share.is_normed()) {
    norms[0] = norm_of(shared, own, arguments.eps), norms[1] = norm_of(shared, own + 1, arguments.eps);
  }
  const bool adapts = kRank > 0 && shared.has_slots;
  if (adapts) change_of(shared, number, column, lane, change);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    values[i] = rounded(values[i] * norms[i & 1] + (share.kind == kQkv ? early.at[i] : 0.f));
    if (adapts && shared.is_slot[row + (i & 1)]) values[i] = rounded(values[i] + change[i] * arguments.adapter_scale);
  }
  if (share.kind == kQkv) {
    store_head(arguments, shared, values, layer, tile, row, g);
  } else if (share.kind == kGateUp) {
    store_gated(arguments, values, tile, row, g);
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) arguments.stream[stream_place(tile, row, g, i)] = as_bf16(early.at[i] + values[i]);
  }
}

// The parts of sums that the slices of a product leave for the last of them.
__device__ __forceinline__ float4* sliced_parts(const Arguments& arguments, int pass, int slice, int unit, int lane) {
  const int groups = kBlocks / kSlices, group = blockIdx.x / kSlices;
  return arguments.parts + (((pass * groups + group) * kSlices + slice) * kDownUnits + unit) * 32 + lane;
}

__device__ __forceinline__ void sum_slices(const Arguments& arguments, int pass, int unit, int lane, float (&sums)[4]) {
  sums[0] = sums[1] = sums[2] = sums[3] = 0.f;
#pragma unroll
  for (int slice = 0; slice < kSlices; slice++) {
    const uint4 part = load_shared_by_all16(sliced_parts(arguments, pass, slice, unit, lane));
    sums[0] += __int_as_float(part.x), sums[1] += __int_as_float(part.y);
    sums[2] += __int_as_float(part.z), sums[3] += __int_as_float(part.w);
  }
}
