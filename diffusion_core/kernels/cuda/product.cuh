// A product of few rows with the tiles of one matrix, shared out over blocks and, within a tile, over warps.
//
// Weights are the left operand (16 results a tile), rows are the right one (8 a tile). They lie in memory in the
// order in which a warp's lanes want them, so every load is 16 bytes a lane in one piece. A warp sums over a part of
// the values; the parts are added in a fixed order, whatever rows ride along.
//
// One code serves all products: a layer's instructions have to stay in the instruction cache, as they are run through
// once a layer.

#pragma once

#include "shape.cuh"

// A block's share of a product, and a warp's part of its sums: steps `first` to `first + count` of 16 values.
struct Share {
  int kind, steps, slices, slice, first, count, first_tile, stride, num_tiles;

  __device__ __forceinline__ int tile(int number) const { return first_tile + number * stride; }
  __device__ __forceinline__ bool is_normed() const { return kind == kQkv || kind == kGateUp; }
};

__device__ __forceinline__ Share share_of(int kind, int warp) {
  const Plan plan = plan_of(kind);
  const int block = blockIdx.x, slice = block % plan.slices, group = block / plan.slices, own = plan.own_tiles();
  const int begin = slice * plan.steps / plan.slices, num = (slice + 1) * plan.steps / plan.slices - begin;
  const int first = warp * num / kWarps, count = (warp + 1) * num / kWarps - first;
  // Slices of a tile are neighbours; without slices a block's tiles are far apart, so that all blocks have as many.
  const int first_tile = plan.slices == 1 ? block : group * own, stride = plan.slices == 1 ? kBlocks : 1;
  const int left =
      plan.slices == 1 ? (plan.tiles - block + kBlocks - 1) / kBlocks : least(own, plan.tiles - first_tile);
  return {kind, plan.steps, plan.slices, slice, begin + first, count, first_tile, stride, most(0, left)};
}

// The warp's part of a tile of weights, 16 bytes a lane and step.
struct Weights {
  uint4 at[kMostSteps];

  __device__ __forceinline__ void load(const uint4* tile, const Share& share, int lane) {
    tile += share.first * 32 + lane;
#pragma unroll
    for (int s = 0; s < kMostSteps; s++) {
      if (s < kLeastSteps || s < share.count) at[s] = load_weights16(tile + s * 32);
    }
  }
};

// The warp's part of the rows of a pass.
struct Rows {
  unsigned at[kMostSteps][kColumns][2];

  __device__ __forceinline__ void load(const bf16* rows, int pass, const Share& share, int lane) {
    const uint4* from = reinterpret_cast<const uint4*>(rows);
    from += (share.first * (kRows / 16) + pass * (kPassRows / 16)) * 32 + lane;
#pragma unroll
    for (int s = 0; s < kMostSteps; s++) {
      if (s >= kLeastSteps && s >= share.count) continue;
#pragma unroll
      for (int pair = 0; pair < kColumns / 2; pair++) {
        const uint4 v = load_shared_by_all16(from + (s * (kRows / 16) + pair) * 32);
        at[s][2 * pair][0] = v.x, at[s][2 * pair][1] = v.y;
        at[s][2 * pair + 1][0] = v.z, at[s][2 * pair + 1][1] = v.w;
      }
    }
  }

  // The rows' squares, summed over the warp's values.
  __device__ __forceinline__ void keep_squares(Shared& shared, const Share& share, int warp, int lane) const {
#pragma unroll
    for (int column = 0; column < kColumns; column++) {
      float sum = 0.f;
#pragma unroll
      for (int s = 0; s < kMostSteps; s++) {
        if (s >= kLeastSteps && s >= share.count) continue;
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const float low = low_bf16(at[s][column][half]), high = high_bf16(at[s][column][half]);
          sum += low * low;
          sum += high * high;
        }
      }
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if ((lane & 3) == 0) shared.squares[warp * kPassRows + column * 8 + (lane >> 2)] = sum;
    }
  }
};

// One tile with all rows of the pass: the warp's part of the sums goes to `unit` and the following ones.
__device__ __forceinline__ void multiply(Shared& shared, const Weights& weights, const Rows& rows, const Share& share,
                                         int unit, int warp, int lane) {
  float sums[kColumns][4] = {};
#pragma unroll
  for (int s = 0; s < kMostSteps; s++) {
    if (s >= kLeastSteps && s >= share.count) continue;
    const unsigned a[4] = {weights.at[s].x, weights.at[s].y, weights.at[s].z, weights.at[s].w};
#pragma unroll
    for (int column = 0; column < kColumns; column++) mma_bf16(sums[column], a, rows.at[s][column]);
  }
  float4* to = shared.parts + (unit * kWarps + warp) * 32 + lane;
#pragma unroll
  for (int column = 0; column < kColumns; column++) {
    to[column * kWarps * 32] = make_float4(sums[column][0], sums[column][1], sums[column][2], sums[column][3]);
  }
}

// The lane's four results of a unit: results g and g + 8 of the tile for rows 2 t and 2 t + 1 of the column.
__device__ __forceinline__ void sum_parts(const Shared& shared, int unit, int lane, float (&sums)[4]) {
  sums[0] = sums[1] = sums[2] = sums[3] = 0.f;
#pragma unroll
  for (int warp = 0; warp < kWarps; warp++) {
    const float4 part = shared.parts[(unit * kWarps + warp) * 32 + lane];
    sums[0] += part.x, sums[1] += part.y, sums[2] += part.z, sums[3] += part.w;
  }
}

// What normalising a row of the pass multiplies it with.
__device__ __forceinline__ float norm_of(const Shared& shared, int row, float eps) {
  float sum = 0.f;
#pragma unroll
  for (int warp = 0; warp < kWarps; warp++) sum += shared.squares[warp * kPassRows + row];
  return fast_rsqrt(sum / kHidden + eps);
}

// Keep what the adapter's way down gave for a unit, as the right operand of its way up.
__device__ __forceinline__ void keep_low(Shared& shared, const float (&sums)[4], int unit, int lane) {
  bf16* low = reinterpret_cast<bf16*>(shared.low) + unit * 32 * 4;
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int value = i < 2 ? g : g + 8, row = 2 * t + (i & 1);
    low[(row * 4 + (value >> 2)) * 4 + (value & 3)] = as_bf16(sums[i]);
  }
}

// What the adapter adds to a unit on slot rows, not yet scaled.
__device__ __forceinline__ void change_of(const Shared& shared, int number, int column, int lane, float (&change)[4]) {
  change[0] = change[1] = change[2] = change[3] = 0.f;
#pragma unroll
  for (int s = 0; s < kRankTiles; s++) {
    const uint4 up = shared.ups[(number * kRankTiles + s) * 32 + lane];
    const uint2 low = shared.low[(s * kColumns + column) * 32 + lane];
    const unsigned a[4] = {up.x, up.y, up.z, up.w}, b[2] = {low.x, low.y};
    mma_bf16(change, a, b);
  }
}
