// Products by AMX: 16 rows by 16 columns at a time.
#pragma once

#include <algorithm>

#include "layout.h"

namespace unmask {

constexpr bool kNeedsTotals = false;

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

// Sums of a block of 16 rows with a panel; between(k) is run behind each step. All 16 rows are computed.
template <bool kPrefetch, class Between>
inline void multiply_block(const int8_t* rows, const int32_t*, int, const int8_t* panel, int depth, Sums& sums,
                           Between&& between) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int k = 0; k < depth; ++k, rows += 2 * kTile, panel += 2 * kTile) {
    if constexpr (kPrefetch)
      for (int i = 0; i < 2 * kTile; i += 64) ask_ahead(panel + i);
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
