// A product of a layer from its weights to its results.

#pragma once

#include "finish.cuh"

// The block's tiles that are worked on together: `num` of the matrix from `begin` on, then the adapter's way down.
struct Items {
  const uint4 *matrix, *down;
  int begin, num, all;
};

__device__ __forceinline__ Items items_of(const Shared& shared, const Share& share, int layer, int begin) {
  const u64* parts = shared.table + layer * kParts + 3 * share.kind;
  const int num = least(kTogether, share.num_tiles - begin);
  const bool adapts = kRank > 0 && shared.has_slots && begin == 0;
  return {reinterpret_cast<const uint4*>(parts[0]), reinterpret_cast<const uint4*>(parts[1]), begin, num,
          num + (adapts ? kRankTiles : 0)};
}

__device__ __forceinline__ void load_item(const Items& items, const Share& share, int i, int lane, Weights& weights) {
  if (i >= items.all) return;
  const bool is_down = i >= items.num;
  const int tile = is_down ? i - items.num : share.tile(items.begin + i);
  weights.load((is_down ? items.down : items.matrix) + static_cast<long long>(tile) * share.steps * 32, share, lane);
}

// Weights that are on their way while others are multiplied, or while the grid's barrier is waited for.
struct Ahead {
  Weights at[2];
};

__device__ __forceinline__ void begin_product(Shared& shared, const Share& share, int layer, Ahead& ahead) {
  const Items items = items_of(shared, share, layer, 0);
#pragma unroll
  for (int i = 0; i < 2; i++) load_item(items, share, i, threadIdx.x % 32, ahead.at[i]);
  if (kRank == 0 || !shared.has_slots) return;
  const uint4* up = reinterpret_cast<const uint4*>(shared.table[layer * kParts + 3 * share.kind + 2]);
  constexpr int kSize = most(1, kRankTiles * 32);
#pragma unroll 1
  for (int i = threadIdx.x; i < share.num_tiles * kSize; i += kThreads) {
    copy_ahead16(shared.ups + i, up + share.tile(i / kSize) * kSize + i % kSize);
  }
}

// What the adapter's way down gave: from the warps' parts of it, whole or a slice, or from all slices.
__device__ __forceinline__ void finish_down(const Arguments& arguments, Shared& shared, const Share& share, int pass,
                                            bool from_slices) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = kDownUnits - kRankTiles * kColumns;
#pragma unroll 1
  for (int unit = warp; unit < kRankTiles * kColumns; unit += kWarps) {
    const int row = unit % kColumns * 8 + (lane & 3) * 2;
    float sums[4];
    if (from_slices) {
      sum_slices(arguments, pass, first + unit, lane, sums);
    } else {
      sum_parts(shared, kTogether * kColumns + unit, lane, sums);
    }
    if (share.is_normed()) {
      const float one = norm_of(shared, row, arguments.eps), two = norm_of(shared, row + 1, arguments.eps);
      sums[0] *= one, sums[1] *= two, sums[2] *= one, sums[3] *= two;
    }
    if (share.slices == 1 || from_slices) {
      keep_low(shared, sums, unit, lane);
    } else {
      *sliced_parts(arguments, pass, share.slice, first + unit, lane) = make_float4(sums[0], sums[1], sums[2], sums[3]);
    }
  }
}

// What becomes of the sums of the items, by units of 16 results and 8 rows; `early` is of the warp's first.
__device__ __forceinline__ void finish_units(const Arguments& arguments, Shared& shared, const Share& share,
                                             const Items& items, int layer, int pass, Early early, bool from_slices) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
  for (int unit = warp; unit < items.num * kColumns; unit += kWarps) {
    const int number = items.begin + unit / kColumns, column = unit % kColumns;
    if (unit != warp || from_slices) {
      const int row = pass * kPassRows + column * 8 + (lane & 3) * 2;
      early = early_of(arguments, shared, share, layer, share.tile(number), row, lane >> 2);
    }
    float sums[4];
    if (from_slices) {
      sum_slices(arguments, pass, number * kColumns + column, lane, sums);
    } else {
      sum_parts(shared, unit, lane, sums);
    }
    if (share.slices == 1 || from_slices) {
      finish_unit(arguments, shared, share, sums, early, layer, number, pass, column, lane);
    } else {
      *sliced_parts(arguments, pass, share.slice, number * kColumns + column, lane) =
          make_float4(sums[0], sums[1], sums[2], sums[3]);
    }
  }
}

__device__ __forceinline__ void multiply_items(Shared& shared, const Share& share, const Items& items, const Rows& rows,
                                               Ahead& ahead, int warp, int lane) {
#pragma unroll 1
  for (int i = 0; i < items.all; i += 2) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int item = i + half, unit = item < items.num ? item : kTogether + item - items.num;
      if (item >= items.all) continue;
      multiply(shared, ahead.at[half], rows, share, unit * kColumns, warp, lane);
      load_item(items, share, item + 2, lane, ahead.at[half]);
    }
  }
}

// The parts of the sums of all items, in the block's own memory.
__device__ __forceinline__ void sum_items(Shared& shared, const Share& share, const Items& items, const Rows& rows,
                                          bool is_first, Ahead& ahead) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (!is_first) {
#pragma unroll
    for (int i = 0; i < 2; i++) load_item(items, share, i, lane, ahead.at[i]);
  }
  if (share.is_normed() && items.begin == 0) rows.keep_squares(shared, share, warp, lane);
  multiply_items(shared, share, items, rows, ahead, warp, lane);
  wait_for_copies();
  __syncthreads();
}

// Whether the block is the last of those that share tiles: it adds up what all of them left, in the order of the
// slices.
__device__ __forceinline__ bool is_last_slice(const Arguments& arguments, Shared& shared) {
  if (threadIdx.x == 0) {
    const unsigned before = atomic_add(arguments.counters + 1 + blockIdx.x / kSlices, 1);
    shared.is_last = before % kSlices == kSlices - 1;
  }
  __syncthreads();
  return shared.is_last;
}

// A product with all rows, behind the barrier that its rows need.
__device__ __forceinline__ void run_product(const Arguments& arguments, Shared& shared, const Share& share, int layer,
                                            Ahead& ahead) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const bf16* of = share.kind == kOut ? arguments.attended : share.kind == kDown ? arguments.inner : arguments.stream;
  const bool adapts = kRank > 0 && shared.has_slots;
#pragma unroll 1
  for (int stage = 0; stage < 2; stage++) {
    if (stage == 1 && (share.slices == 1 || share.num_tiles == 0 || !is_last_slice(arguments, shared))) return;
#pragma unroll 1
    for (int pass = 0; pass < kPasses; pass++) {
      Rows rows = {};
      if (stage == 0) rows.load(of, pass, share, lane);
#pragma unroll 1
      for (int begin = 0; begin < share.num_tiles; begin += stage == 0 ? kTogether : kMostOwn) {
        Items items = items_of(shared, share, layer, begin);
        Early early = {};
        if (share.slices == 1 && warp < items.num * kColumns) {
          const int row = pass * kPassRows + warp % kColumns * 8 + (lane & 3) * 2;
          early = early_of(arguments, shared, share, layer, share.tile(begin + warp / kColumns), row, lane >> 2);
        }
        if (stage == 0) {
          sum_items(shared, share, items, rows, pass == 0 && begin == 0, ahead);
        } else {
          items.num = share.num_tiles;
        }
        if (adapts && begin == 0) {
          finish_down(arguments, shared, share, pass, stage == 1);
          __syncthreads();
        }
        finish_units(arguments, shared, share, items, layer, pass, early, stage == 1);
        __syncthreads();
      }
    }
  }
}
