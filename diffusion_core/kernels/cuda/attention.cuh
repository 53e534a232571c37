// Attention of a round's rows over the cache, their own keys included.
//
// A block takes 16 query rows that share keys; its warps go over the keys in pieces that begin at fixed places, each
// warp those of its own. A piece in which a row sees nothing changes nothing for that row, not even in the last bit:
// neither the other rows nor the number of keys matter to it.

#pragma once

#include "shape.cuh"

constexpr int kPieceKeys = 2048 / kHeadDim;
constexpr int kHalves = kHeadDim / 64;  // of a value's row: 8 lanes read 64 values at once

// What a warp has of 16 query rows: its lane's rows are g and g + 8.
struct Mix {
  float most[2], total[2], values[kHeadDim / 8][4];
};

struct QueryRow {
  u64 among;
  bool is_there;
};

// Which keys of the piece that begins at `first` a row sees, `start` of them committed: bit i is key `first` + i.
__device__ __forceinline__ unsigned seen_of(const QueryRow& row, int first, int start) {
  const int offset = start - first;  // of the round's own keys
  if (!row.is_there || offset <= -64) return 0u;
  if (offset >= kPieceKeys) return 0xffffffffu;
  if (offset <= 0) return static_cast<unsigned>(row.among >> -offset);
  return static_cast<unsigned>(row.among << offset) | ((1u << offset) - 1);
}

// Keys and values of a piece as a lane reads them: of keys 8 i + g a sixteenth, of values 8 neighbouring numbers.
struct Piece {
  uint4 keys[kPieceKeys / 8][kHeadDim / 32], values[kPieceKeys / 16][kHalves][4];

  __device__ __forceinline__ void load(const bf16* all_keys, const bf16* all_values, int first, int lane) {
    const int g = lane >> 2, t = lane & 3;
    all_keys += static_cast<long long>(first) * kHeadDim, all_values += static_cast<long long>(first) * kHeadDim;
#pragma unroll
    for (int tile = 0; tile < kPieceKeys / 8; tile++) {
#pragma unroll
      for (int part = 0; part < kHeadDim / 32; part++) {
        keys[tile][part] = load_shared_by_all16(all_keys + (tile * 8 + g) * kHeadDim + part * 32 + t * 8);
      }
    }
#pragma unroll
    for (int step = 0; step < kPieceKeys / 16; step++) {
#pragma unroll
      for (int half = 0; half < kHalves; half++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int key = step * 16 + 2 * t + (i & 1) + (i >> 1) * 8;
          values[step][half][i] = load_shared_by_all16(all_values + key * kHeadDim + half * 64 + g * 8);
        }
      }
    }
  }
};

// Scores of a piece's keys: [8 keys a tile][4], rows g (0, 1) and g + 8 (2, 3), keys 2 t and 2 t + 1.
__device__ __forceinline__ void score(const unsigned (&queries)[kHeadDim / 16][4], const Piece& piece,
                                      float (&scores)[kPieceKeys / 8][4]) {
#pragma unroll
  for (int tile = 0; tile < kPieceKeys / 8; tile++) {
    scores[tile][0] = scores[tile][1] = scores[tile][2] = scores[tile][3] = 0.f;
#pragma unroll
    for (int part = 0; part < kHeadDim / 32; part++) {
      const unsigned first[2] = {piece.keys[tile][part].x, piece.keys[tile][part].y};
      const unsigned second[2] = {piece.keys[tile][part].z, piece.keys[tile][part].w};
      mma_bf16(scores[tile], queries[2 * part], first);
      mma_bf16(scores[tile], queries[2 * part + 1], second);
    }
  }
}

// Values of 16 keys, weighted. A lane reads 8 neighbouring values of four keys, so the columns of tile j are the values
// 8 n + j: `collect` knows.
__device__ __forceinline__ void mix_values(const unsigned (&weights)[4], const uint4 (&rows)[4], int half, Mix& mix) {
  const unsigned words[4][4] = {{rows[0].x, rows[0].y, rows[0].z, rows[0].w},
                                {rows[1].x, rows[1].y, rows[1].z, rows[1].w},
                                {rows[2].x, rows[2].y, rows[2].z, rows[2].w},
                                {rows[3].x, rows[3].y, rows[3].z, rows[3].w}};
#pragma unroll
  for (int word = 0; word < 4; word++) {
    const unsigned even[2] = {(words[0][word] & 0xffffu) | words[1][word] << 16,
                              (words[2][word] & 0xffffu) | words[3][word] << 16};
    const unsigned odd[2] = {words[0][word] >> 16 | (words[1][word] & 0xffff0000u),
                             words[2][word] >> 16 | (words[3][word] & 0xffff0000u)};
    mma_bf16(mix.values[half * 8 + 2 * word], weights, even);
    mma_bf16(mix.values[half * 8 + 2 * word + 1], weights, odd);
  }
}

// Add a piece that begins at key `first`.
__device__ __forceinline__ void add_piece(const Arguments& arguments, const unsigned (&queries)[kHeadDim / 16][4],
                                          const QueryRow (&own)[2], const Piece& piece, int first, int start, int lane,
                                          Mix& mix) {
  const int t = lane & 3;
  float scores[kPieceKeys / 8][4];
  score(queries, piece, scores);
#pragma unroll
  for (int row = 0; row < 2; row++) {
    float most = -INFINITY, total = 0.f;
    const unsigned seen = seen_of(own[row], first, start) >> 2 * t;
#pragma unroll
    for (int tile = 0; tile < kPieceKeys / 8; tile++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float& score = scores[tile][2 * row + i];
        score = seen >> (tile * 8 + i) & 1 ? score * arguments.attention_scale : -INFINITY;
        most = fmaxf(most, score);
      }
    }
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
    most = fmaxf(most, mix.most[row]);
    const float finite = most == -INFINITY ? 0.f : most, keep = fast_exp(mix.most[row] - finite);
#pragma unroll
    for (int tile = 0; tile < kPieceKeys / 8; tile++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float& score = scores[tile][2 * row + i];
        score = fast_exp(score - finite);
        total += score;
      }
    }
    total += __shfl_xor_sync(0xffffffffu, total, 1);
    total += __shfl_xor_sync(0xffffffffu, total, 2);
    mix.total[row] = mix.total[row] * keep + total;
    mix.most[row] = most;
#pragma unroll
    for (int tile = 0; tile < kHeadDim / 8; tile++) {
      mix.values[tile][2 * row] *= keep, mix.values[tile][2 * row + 1] *= keep;
    }
  }
#pragma unroll
  for (int step = 0; step < kPieceKeys / 16; step++) {
    const unsigned weights[4] = {pack_bf16(scores[2 * step][0], scores[2 * step][1]),
                                 pack_bf16(scores[2 * step][2], scores[2 * step][3]),
                                 pack_bf16(scores[2 * step + 1][0], scores[2 * step + 1][1]),
                                 pack_bf16(scores[2 * step + 1][2], scores[2 * step + 1][3])};
#pragma unroll
    for (int half = 0; half < kHalves; half++) mix_values(weights, piece.values[step][half], half, mix);
  }
}

__device__ __forceinline__ void collect(Mixed& found, const Mix& mix, int warp, int lane) {
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int row = 0; row < 2; row++) {
    if (t == 0) {
      found.most[warp][g + 8 * row] = mix.most[row];
      found.total[warp][g + 8 * row] = mix.total[row];
    }
#pragma unroll
    for (int half = 0; half < kHalves; half++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float* to = found.values[warp][g + 8 * row] + half * 64 + 8 * (2 * t + i);
#pragma unroll
        for (int part = 0; part < 2; part++) {
          const int tile = half * 8 + part * 4, from = 2 * row + i;
          reinterpret_cast<float4*>(to)[part] = make_float4(mix.values[tile][from], mix.values[tile + 1][from],
                                                            mix.values[tile + 2][from], mix.values[tile + 3][from]);
        }
      }
    }
  }
}

// A tile of query rows of one sequence and one head, and that head's keys and values in a layer.
struct MixUnit {
  const bf16 *keys, *values;
  int head, first, end, start, num_keys;
};

__device__ __forceinline__ MixUnit mix_unit(const Shared& shared, int layer, int number) {
  const int head = number / shared.num_tiles, tile = number % shared.num_tiles;
  const int first = shared.tile_firsts[tile], end = shared.tile_ends[tile];
  const int row = first / kGroup, last = (end - 1) / kGroup, start = shared.starts[row];
  const long long stride = static_cast<long long>(shared.capacities[row]) * kHeadDim;
  const bf16* keys = reinterpret_cast<const bf16*>(shared.memories[row]) + (2 * layer * kKvHeads + head) * stride;
  return {keys, keys + kKvHeads * stride, head, first, end, start, start + shared.places[last] + 1};
}

// Join what the warps found, in the order of the warps. First what each of them counts for.
__device__ __forceinline__ void weigh(Mixed& found) {
  if (threadIdx.x >= 16) return;
  const int row = threadIdx.x;
  float most = -INFINITY, total = 0.f;
#pragma unroll
  for (int warp = 0; warp < kWarps; warp++) most = fmaxf(most, found.most[warp][row]);
#pragma unroll
  for (int warp = 0; warp < kWarps; warp++) {
    const float weight = fast_exp(found.most[warp][row] - most);
    total += found.total[warp][row] * weight;
    found.most[warp][row] = weight;
  }
  found.total[0][row] = total;
}

__device__ __forceinline__ void join(const Arguments& arguments, const Mixed& found, const MixUnit& unit) {
#pragma unroll 1
  for (int at = threadIdx.x; at < 16 * kHeadDim / 4; at += kThreads) {
    const int row = at / (kHeadDim / 4), value = at % (kHeadDim / 4) * 4, query = unit.first + row;
    if (query >= unit.end) continue;
    float sums[4] = {};
#pragma unroll
    for (int warp = 0; warp < kWarps; warp++) {
      const float4 part = *reinterpret_cast<const float4*>(found.values[warp][row] + value);
      const float weight = found.most[warp][row];
      sums[0] += part.x * weight, sums[1] += part.y * weight, sums[2] += part.z * weight, sums[3] += part.w * weight;
    }
    const float total = found.total[0][row];
    // Four values that follow each other are packed next to each other.
    const int place = (unit.head * kGroup + query % kGroup) * kHeadDim + value;
    *reinterpret_cast<uint2*>(arguments.attended + packed(query / kGroup, place)) =
        make_uint2(pack_bf16(fast_divide(sums[0], total), fast_divide(sums[1], total)),
                   pack_bf16(fast_divide(sums[2], total), fast_divide(sums[3], total)));
  }
}

// A warp's pieces in turn: while one is added the other is on its way.
struct Pieces {
  Piece at[2];
};

constexpr int kPieceStep = kWarps * kPieceKeys;  // between two pieces of a warp

// Before the barrier: pieces of which all keys are committed. Whether the block has anything to do.
__device__ __forceinline__ bool begin_attention(const Shared& shared, int layer, Pieces& pieces) {
  if (blockIdx.x >= kKvHeads * shared.num_tiles) return false;
  const MixUnit unit = mix_unit(shared, layer, blockIdx.x);
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int first = threadIdx.x / 32 * kPieceKeys + i * kPieceStep;
    if (first + kPieceKeys <= unit.start) pieces.at[i].load(unit.keys, unit.values, first, threadIdx.x % 32);
  }
  return true;
}

__device__ __forceinline__ void load_queries(const Arguments& arguments, const MixUnit& unit, int lane,
                                             unsigned (&queries)[kHeadDim / 16][4]) {
  const int g = lane >> 2, t = lane & 3;
  const bf16* from = arguments.queries + (unit.head * kQueryRows + unit.first) * kHeadDim;
#pragma unroll
  for (int part = 0; part < kHeadDim / 32; part++) {
    const uint4 low = load_shared_by_all16(from + g * kHeadDim + part * 32 + t * 8);
    const uint4 high = load_shared_by_all16(from + (g + 8) * kHeadDim + part * 32 + t * 8);
    queries[2 * part][0] = low.x, queries[2 * part][1] = high.x;
    queries[2 * part][2] = low.y, queries[2 * part][3] = high.y;
    queries[2 * part + 1][0] = low.z, queries[2 * part + 1][1] = high.z;
    queries[2 * part + 1][2] = low.w, queries[2 * part + 1][3] = high.w;
  }
}

__device__ __forceinline__ void attend(const Arguments& arguments, Shared& shared, int layer, Pieces& pieces) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
  for (int number = blockIdx.x; number < kKvHeads * shared.num_tiles; number += kBlocks) {
    const MixUnit unit = mix_unit(shared, layer, number);
    unsigned queries[kHeadDim / 16][4];
    load_queries(arguments, unit, lane, queries);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int first = warp * kPieceKeys + i * kPieceStep;
      const bool is_there = number == static_cast<int>(blockIdx.x) && first + kPieceKeys <= unit.start;
      if (!is_there && first < unit.num_keys) pieces.at[i].load(unit.keys, unit.values, first, lane);
    }
    QueryRow own[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int query = unit.first + (lane >> 2) + 8 * i;
      own[i].is_there = query < unit.end;
      own[i].among = own[i].is_there ? shared.among[query / kGroup] : 0;
    }
    Mix mix = {{-INFINITY, -INFINITY}, {0.f, 0.f}, {}};
#pragma unroll 1
    for (int first = warp * kPieceKeys; first < unit.num_keys; first += kPieceStep) {
      add_piece(arguments, queries, own, pieces.at[0], first, unit.start, lane, mix);
      pieces.at[0] = pieces.at[1];
      const int later = first + 2 * kPieceStep;
      if (later < unit.num_keys) pieces.at[1].load(unit.keys, unit.values, later, lane);
    }
    collect(shared.mixed, mix, warp, lane);
    __syncthreads();
    weigh(shared.mixed);
    __syncthreads();
    join(arguments, shared.mixed, unit);
    __syncthreads();
  }
}
