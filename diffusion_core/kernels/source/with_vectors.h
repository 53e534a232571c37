// The same products without tiles: 16 outputs, keys or channels at a time.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>

#include "layout.h"

// Sums stay in registers only where loops over them are gone.
#define UNMASK_UNROLL _Pragma("GCC unroll 8")

namespace unmask {

constexpr int kManyRows = 0;  // one block after the other, always

struct ComputeScope {
  ComputeScope() {}
};

// One step for all sums, [row][coarse, fine][side]. Loops over them would keep them in memory.
template <int kSides, int... kSum>
[[gnu::always_inline]] inline void add_all(Words* sums, const Weights* weights, const int8_t* rows,
                                           std::integer_sequence<int, kSum...>) {
  (add_products(sums[kSum], weights[kSum % kSides], rows + kSum / kSides / 2 * 64 + kSum / kSides % 2 * kTile), ...);
}

template <int kSides, int... kSum>
[[gnu::always_inline]] inline void store_all(Words* sums, const int32_t* totals, int side, int first, Sums& to,
                                             std::integer_sequence<int, kSum...>) {
  const auto put = [&](Words sum, int row, int half, int of_side) {
    if constexpr (kNeedsTotals) sum = minus(sum, words(totals[2 * (first + row) + half]));
    store_words(to.of[2 * half + of_side] + (first + row) * kLanes, sum);
  };
  (put(sums[kSum], kSum / kSides / 2, kSum / kSides % 2, side + kSum % kSides), ...);
}

// Sums of kRows rows with kSides sides of 16 outputs, from `side` on.
template <int kRows, int kSides, bool kPrefetch>
[[gnu::noinline]] void multiply_rows(const int8_t* rows, const int32_t* totals, const int8_t* panel, int depth,
                                     int side, int first, Sums& to) {
  constexpr auto kAll = std::make_integer_sequence<int, 2 * kSides * kRows>();
  Words sums[2 * kSides * kRows];
  for (Words& each : sums) each = zero_words();
  rows += first * 64;
  panel += side * kTile;
  for (int k = 0; k < depth; ++k, rows += 2 * kTile, panel += 2 * kTile)
    for (int i = 0; i < 16; ++i) {
      Weights weights[kSides];
      for (int j = 0; j < kSides; ++j) {
        const int8_t* place = panel + j * kTile + 64 * i;
        if constexpr (kPrefetch) ask_ahead(place);
        weights[j] = load_weights(place);
      }
      add_all<kSides>(sums, weights, rows + 4 * i, kAll);
    }
  store_all<kSides>(sums, totals, side, first, to, kAll);
}

// Sums of the first `valid` of a block of 16 rows with a panel, then between(k) for each step. `totals` [16][2]: 128
// times the sum of each row's halves.
template <bool kPrefetch, class Between>
inline void multiply_block(const int8_t* rows, const int32_t* totals, int valid, const int8_t* panel, int depth,
                           Sums& sums, Between&& between) {
  for (int side = 0; side < 2; side += kSidesAtOnce) {
    int first = 0;
    const auto some = [&]<int kRows>() {
      if (kPrefetch && first == 0)
        multiply_rows<kRows, kSidesAtOnce, true>(rows, totals, panel, depth, side, first, sums);
      else
        multiply_rows<kRows, kSidesAtOnce, false>(rows, totals, panel, depth, side, first, sums);
      first += kRows;
    };
    if constexpr (kRowsAtOnce == 6) {
      // Seven and eight go as two times four.
      while (valid - first >= 6 && valid - first != 7 && valid - first != 8) some.template operator()<6>();
      while (valid - first >= 4) some.template operator()<4>();
    }
    if constexpr (kRowsAtOnce >= 3)
      while (valid - first >= 3) some.template operator()<3>();
    while (valid - first >= 2) some.template operator()<2>();
    if (valid > first) some.template operator()<1>();
  }
  for (int k = 0; k < depth; ++k) between(k);
}

// Scores of the first `valid` of 16 queries over keys [0, padded): [16, stride]. `steps`: of 32 channels.
inline void score(int steps, const bf16* queries, int valid, const bf16* keys, int64_t padded, int64_t stride,
                  float* scores) {
  for (int first = 0; first < valid; first += 4) {
    const bf16* place = keys;
    for (int64_t key = 0; key < padded; key += 16) {
      Floats sums[4] = {zero_floats(), zero_floats(), zero_floats(), zero_floats()};
      for (int step = 0; step < steps; ++step, place += 512)
        for (int i = 0; i < 16; ++i) {
          const Words pairs = load_words(place + 32 * i);
          UNMASK_UNROLL
          for (int q = 0; q < 4; ++q)
            sums[q] = add_pairs(sums[q], pairs, one_pair(queries + step * 512 + (first + q) * 32 + 2 * i));
        }
      UNMASK_UNROLL
      for (int q = 0; q < 4; ++q) store(scores + (first + q) * stride + key, sums[q]);
    }
  }
}

// Sums of values by weights, for the first `valid` of 16 queries: [tiles][16 queries][16 channels].
inline void mix(int tiles, const bf16* weights, int valid, const bf16* values, int64_t padded, int64_t stride,
                float* mixed) {
  for (int tile = 0; tile < tiles; ++tile)
    for (int first = 0; first < valid; first += 4) {
      Floats sums[4] = {zero_floats(), zero_floats(), zero_floats(), zero_floats()};
      for (int64_t key = 0; key < padded; key += 32) {
        const bf16* place = values + (key / 32 * tiles + tile) * 512;
        for (int i = 0; i < 16; ++i) {
          const Words pairs = load_words(place + 32 * i);
          UNMASK_UNROLL
          for (int q = 0; q < 4; ++q)
            sums[q] = add_pairs(sums[q], pairs, one_pair(weights + (first + q) * stride + key + 2 * i));
        }
      }
      UNMASK_UNROLL
      for (int q = 0; q < 4; ++q) store(mixed + (tile * 16 + first + q) * 16, sums[q]);
    }
}

}  // namespace unmask
