// The output head, of which only each row's best token is wanted. Every warp goes over tiles of 16 tokens; the rows are
// in the block's own memory, the head's rows are read as they lie.

#pragma once

#include "shape.cuh"

constexpr int kHeadSteps = kHidden / 32;                    // of 32 values, 16 bytes a lane
constexpr int kAhead = least(7, divide_up(kHeadSteps, 2));  // steps that are loaded at once
constexpr int kHeadTurns = divide_up(divide_up(kHeadSteps, kAhead), 2) * 2;
constexpr int kRowTiles = kRows / 8;

// Steps of two head rows, g and g + 8 of a tile.
struct HeadPart {
  uint4 at[kAhead][2];

  __device__ __forceinline__ void load(const bf16* one, const bf16* two, int turn) {
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      const int step = turn * kAhead + i;
      if (step >= kHeadSteps) continue;
      at[i][0] = load_weights16(one + step * 32), at[i][1] = load_weights16(two + step * 32);
    }
  }
};

// A lane's best tokens so far: of rows 2 t and 2 t + 1 of each tile of rows.
struct Best {
  float score[kRowTiles][2];
  int token[kRowTiles][2];

  __device__ __forceinline__ void offer(int tile, int i, float value, int number) {
    if (value > score[tile][i]) score[tile][i] = value, token[tile][i] = number;
  }
};

__device__ __forceinline__ bool is_better(float a, int token_a, float b, int token_b) {
  return a > b || (a == b && token_a < token_b);
}

// A number that is larger for a better score and, of equal scores, for the first token.
__device__ __forceinline__ u64 rank_of(float score, int token) {
  const unsigned bits = static_cast<unsigned>(__float_as_int(score));
  const unsigned ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<u64>(ordered) << 32 | (0xffffffffu - static_cast<unsigned>(token));
}

__device__ __forceinline__ void multiply_part(const Shared& shared, const HeadPart& part, int turn, int lane,
                                              float (&scores)[kRowTiles][4]) {
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int i = 0; i < kAhead; i++) {
    const int step = turn * kAhead + i;
    if (step >= kHeadSteps) continue;
    const uint4 one = part.at[i][0], two = part.at[i][1];
    const unsigned first[4] = {one.x, two.x, one.y, two.y}, second[4] = {one.z, two.z, one.w, two.w};
#pragma unroll
    for (int tile = 0; tile < kRowTiles; tile++) {
      const uint4 row = *reinterpret_cast<const uint4*>(shared.hidden[tile * 8 + g] + step * 32 + t * 8);
      const unsigned low[2] = {row.x, row.y}, high[2] = {row.z, row.w};
      mma_bf16(scores[tile], first, low);
      mma_bf16(scores[tile], second, high);
    }
  }
}

// The best tokens among the warp's tiles.
__device__ __forceinline__ void search(const Arguments& arguments, const Shared& shared, int warp, int lane,
                                       Best& best) {
  const int g = lane >> 2, t = lane & 3, num_tiles = divide_up(arguments.num_tokens, 16);
  const int last = arguments.num_tokens - 1;
  const bf16* from = arguments.head + t * 8;
  HeadPart parts[2] = {};
  int tile = warp * kBlocks + blockIdx.x;
  const bf16* one = from + static_cast<long long>(least(tile * 16 + g, last)) * kHidden;
  const bf16* two = from + static_cast<long long>(least(tile * 16 + 8 + g, last)) * kHidden;
  if (tile < num_tiles) parts[0].load(one, two, 0);
#pragma unroll 1
  for (; tile < num_tiles; tile += kBlocks * kWarps) {
    const int next = tile + kBlocks * kWarps;
    float scores[kRowTiles][4] = {};
#pragma unroll
    for (int turn = 0; turn < kHeadTurns; turn++) {
      if (turn + 1 < kHeadTurns) {
        parts[(turn + 1) % 2].load(one, two, turn + 1);
      } else if (next < num_tiles) {
        one = from + static_cast<long long>(least(next * 16 + g, last)) * kHidden;
        two = from + static_cast<long long>(least(next * 16 + 8 + g, last)) * kHidden;
        parts[0].load(one, two, 0);
      }
      multiply_part(shared, parts[turn % 2], turn, lane, scores);
    }
#pragma unroll
    for (int rows = 0; rows < kRowTiles; rows++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int token = tile * 16 + g + (i >> 1) * 8;
        if (token <= last) best.offer(rows, i & 1, rounded(scores[rows][i]), token);
      }
    }
  }
}

// Every row's best token, of the normalised rows that are there for all blocks to read.
__device__ __forceinline__ void choose(const Arguments& arguments, Shared& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int i = threadIdx.x; i < kRows * kHidden / 8; i += kThreads) {
    const int row = i / (kHidden / 8), value = i % (kHidden / 8) * 8;
    *reinterpret_cast<uint4*>(shared.hidden[row] + value) =
        load_shared_by_all16(arguments.hidden + row * kHidden + value);
  }
  __syncthreads();
  Best best;
#pragma unroll
  for (int tile = 0; tile < kRowTiles; tile++) {
    best.score[tile][0] = best.score[tile][1] = -INFINITY;
    best.token[tile][0] = best.token[tile][1] = 0;
  }
  search(arguments, shared, warp, lane, best);
#pragma unroll
  for (int tile = 0; tile < kRowTiles; tile++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float score = best.score[tile][i];
      int token = best.token[tile][i];
#pragma unroll
      for (int other = 4; other < 32; other *= 2) {
        const float their_score = __shfl_xor_sync(0xffffffffu, score, other);
        const int their_token = __shfl_xor_sync(0xffffffffu, token, other);
        if (is_better(their_score, their_token, score, token)) score = their_score, token = their_token;
      }
      if (lane < 4) atomic_max(arguments.ranks + tile * 8 + lane * 2 + i, rank_of(score, token));
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) shared.is_last = atomic_add(arguments.counters + kCounters - 1, 1) == kBlocks - 1;
  __syncthreads();
  if (!shared.is_last || threadIdx.x >= kRows) return;
  const uint2 rank = load_shared_by_all8(arguments.ranks + threadIdx.x);
  arguments.best[threadIdx.x] = 0xffffffffu - rank.x;
}
