// How numbers lie in memory, for whatever multiplies them.
#pragma once

#include <cstdint>

#include "vectors.h"

namespace unmask {

constexpr int kTile = 1024;         // bytes
constexpr int kTileInputs = 64;     // of int8
constexpr int kPanel = 2 * kLanes;  // outputs that are computed together
constexpr int kBlock = kLanes;      // rows that are computed together
constexpr float kFiner = 1.0f / 128.0f;

// Asks for a line of weights that follows `place`: from memory into the second cache, and later into the first. The
// hardware alone stops at the end of a page.
inline void ask_ahead(const int8_t* place) {
  constexpr int kFar = 8 * kTile, kNear = 4 * kTile;
  _mm_prefetch(reinterpret_cast<const char*>(place) + kFar, _MM_HINT_T1);
  _mm_prefetch(reinterpret_cast<const char*>(place) + kNear, _MM_HINT_T0);
}

// Sums of 16 rows by 32 outputs, coarse and fine, as integers.
struct alignas(64) Sums {
  int32_t of[4][kLanes * kLanes];  // coarse of outputs 0-15, of 16-31, fine of 0-15, of 16-31

  // 16 outputs (half 0 or 1) of one row, scaled.
  Floats scaled(int row, int half, Floats output_scales, float row_scale) const {
    const Floats coarse = to_floats(load_words(of[half] + row * kLanes));
    const Floats fine = to_floats(load_words(of[2 + half] + row * kLanes));
    const Floats y = fmadd(times(fine, output_scales), floats(kFiner), times(coarse, output_scales));
    return times(y, floats(row_scale));
  }
};

}  // namespace unmask
