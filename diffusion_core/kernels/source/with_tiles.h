// Products by AMX: 16 rows by 16 columns at a time.
#pragma once

#include <algorithm>

#include "layout.h"

namespace unmask {

constexpr int kManyRows = 33;  // from here on multiply_blocks is faster than block after block

// All eight tiles have 16 rows of 64 bytes. Other kernels of this thread configure theirs as they like.
class ComputeScope {
 public:
  ComputeScope() {
    alignas(64) struct {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } layout;
    for (int i = 0; i < 8; ++i) {
      layout.bytes[i] = 64;
      layout.rows[i] = 16;
    }
    _tile_loadconfig(&layout);
  }
  ~ComputeScope() { _tile_release(); }
  ComputeScope(const ComputeScope&) = delete;
  ComputeScope& operator=(const ComputeScope&) = delete;
};

// Sums of a block of 16 rows with `steps` of a panel, on top of what `sums` holds unless these are the `first`.
// ask(place) is run before each step, with its place in the panel, between(k) behind it. All 16 rows are computed.
template <class Ask, class Between>
inline void multiply_steps(const int8_t* rows, const int8_t* panel, int steps, bool first, Sums& sums, Ask&& ask,
                           Between&& between) {
  if (first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums.of[0], 64);
    _tile_loadd(1, sums.of[1], 64);
    _tile_loadd(2, sums.of[2], 64);
    _tile_loadd(3, sums.of[3], 64);
  }
  for (int k = 0; k < steps; ++k, rows += 2 * kTile, panel += 2 * kTile) {
    ask(panel);
    _tile_loadd(4, rows, 64);
    _tile_loadd(5, rows + kTile, 64);
    _tile_loadd(6, panel, 64);
    _tile_loadd(7, panel + kTile, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
    between(k);
  }
  _tile_stored(0, sums.of[0], 64);
  _tile_stored(1, sums.of[1], 64);
  _tile_stored(2, sums.of[2], 64);
  _tile_stored(3, sums.of[3], 64);
}

// Sums of a block of 16 rows with a panel, which comes from memory if it is `fresh`.
template <bool kFresh, class Between>
inline void multiply_block(const int8_t* rows, const int32_t*, int, const int8_t* panel, int depth, Sums& sums,
                           Between&& between) {
  const auto ask = [](const int8_t* place) {
    if constexpr (kFresh)
      for (int i = 0; i < 2 * kTile; i += 64) ask_ahead(place + i);
  };
  multiply_steps(rows, panel, depth, true, sums, ask, between);
}

// Sums of `blocks` blocks of 16 rows with a panel. Inputs are cut into pieces whose weights and rows stay in the first
// cache while all blocks go by; these ask, each for its part, for the weights of the piece that follows.
template <class Between>
inline void multiply_blocks(const int8_t* rows, size_t block_bytes, int blocks, const int8_t* panel, int depth,
                            Sums* sums, Between&& between) {
  constexpr int kPiece = 8, kLines = 2 * kTile / 64;
  const int pieces = (depth + kPiece - 1) / kPiece, piece = (depth + pieces - 1) / pieces;
  const int lines = (kLines + blocks - 1) / blocks;
  for (int begin = 0; begin < depth; begin += piece) {
    const int steps = std::min(piece, depth - begin);
    const size_t place = static_cast<size_t>(begin) * 2 * kTile;
    for (int block = 0; block < blocks; ++block) {
      const int ahead = (steps * kLines + block * lines) * 64,
                end = ahead + std::clamp(kLines - block * lines, 0, lines) * 64;
      const auto ask = [ahead, end](const int8_t* place) {
        for (int i = ahead; i < end; i += 64) _mm_prefetch(reinterpret_cast<const char*>(place) + i, _MM_HINT_T1);
      };
      multiply_steps(rows + static_cast<size_t>(block) * block_bytes + place, panel + place, steps, begin == 0,
                     sums[block], ask, between);
    }
  }
}

// Scores of 16 queries over keys [0, padded): [16, stride]. `steps`: of 32 channels.
inline void score(int steps, const bf16* queries, int, const bf16* keys, int64_t padded, int64_t stride,
                  float* scores) {
  for (int64_t key = 0; key < padded; key += 16) {
    _tile_zero(0);
    for (int step = 0; step < steps; ++step, keys += 512) {
      _tile_loadd(4, queries + step * 512, 64);
      _tile_loadd(5, keys, 64);
      _tile_dpbf16ps(0, 4, 5);
    }
    _tile_stored(0, scores + key, static_cast<size_t>(stride) * 4);
  }
}

// Sums of values by weights, for 16 queries: [tiles][16 queries][16 channels].
inline void mix(int tiles, const bf16* weights, int, const bf16* values, int64_t padded, int64_t stride, float* mixed) {
  for (int first = 0; first < tiles; first += 4) {
    const int some = std::min(4, tiles - first);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t key = 0; key < padded; key += 32) {
      const bf16* piece = values + (key / 32 * tiles + first) * 512;
      _tile_loadd(4, weights + key, static_cast<size_t>(stride) * 2);
      _tile_loadd(5, piece, 64);
      _tile_dpbf16ps(0, 4, 5);
      if (some > 1) {
        _tile_loadd(6, piece + 512, 64);
        _tile_dpbf16ps(1, 4, 6);
      }
      if (some > 2) {
        _tile_loadd(7, piece + 1024, 64);
        _tile_dpbf16ps(2, 4, 7);
      }
      if (some > 3) {
        _tile_loadd(5, piece + 1536, 64);
        _tile_dpbf16ps(3, 4, 5);
      }
    }
    _tile_stored(0, mixed + first * 256, 64);
    if (some > 1) _tile_stored(1, mixed + (first + 1) * 256, 64);
    if (some > 2) _tile_stored(2, mixed + (first + 2) * 256, 64);
    if (some > 3) _tile_stored(3, mixed + (first + 3) * 256, 64);
  }
}

}  // namespace unmask
