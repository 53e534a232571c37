// The same products without tiles, by AVX-512 with VNNI: 16 outputs, keys or channels at a time.
#pragma once

#include <algorithm>
#include <cstring>
#include <utility>

#include "layout.h"

// Sums stay in registers only where loops over them are gone.
#define UNMASK_UNROLL _Pragma("GCC unroll 8")

namespace unmask {

// VNNI multiplies unsigned by signed numbers: weights are taken as 128 more than they are, and 128 times the sum of a
// row is taken off its result.
constexpr bool kNeedsTotals = true;
constexpr int kManyRows = 0;  // one block after the other, always

struct ComputeScope {
  ComputeScope() {}
};

// sums += products of four inputs of 16 outputs with the four at `row`. As an intrinsic, compilers load `row` into a
// register first, and have none left for all sums.
inline void add_products(__m512i& sums, __m512i weights, const int8_t* row) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(weights), "m"(*reinterpret_cast<const int32_t*>(row)));
}

// One step for all sums, [row][coarse, fine][left, right]. Loops over them would keep them in memory.
template <int... kSum>
[[gnu::always_inline]] inline void add_all(__m512i* sums, __m512i left, __m512i right, const int8_t* rows,
                                           std::integer_sequence<int, kSum...>) {
  (add_products(sums[kSum], kSum % 2 ? right : left, rows + kSum / 4 * 64 + kSum / 2 % 2 * kTile), ...);
}

template <int... kSum>
[[gnu::always_inline]] inline void store_all(__m512i* sums, const int32_t* totals, int first, Sums& to,
                                             std::integer_sequence<int, kSum...>) {
  (_mm512_store_si512(to.of[kSum % 4] + (first + kSum / 4) * kLanes,
                      _mm512_sub_epi32(sums[kSum], _mm512_set1_epi32(totals[2 * first + kSum / 2]))),
   ...);
}

// Sums of kRows rows; six fill the registers.
template <int kRows, bool kPrefetch>
[[gnu::noinline]] void multiply_rows(const int8_t* rows, const int32_t* totals, const int8_t* panel, int depth,
                                     int first, Sums& to) {
  constexpr auto kAll = std::make_integer_sequence<int, 4 * kRows>();
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  __m512i sums[4 * kRows] = {};
  rows += first * 64;
  for (int k = 0; k < depth; ++k, rows += 2 * kTile, panel += 2 * kTile)
    for (int i = 0; i < 16; ++i) {
      if constexpr (kPrefetch) {
        ask_ahead(panel + 64 * i);
        ask_ahead(panel + kTile + 64 * i);
      }
      const __m512i left = _mm512_xor_si512(_mm512_load_si512(panel + 64 * i), flip);
      const __m512i right = _mm512_xor_si512(_mm512_load_si512(panel + kTile + 64 * i), flip);
      add_all(sums, left, right, rows + 4 * i, kAll);
    }
  store_all(sums, totals, first, to, kAll);
}

// Sums of the first `valid` of a block of 16 rows with a panel, then between(k) for each step. `totals` [16][2]: 128
// times the sum of each row's halves.
template <bool kPrefetch, class Between>
inline void multiply_block(const int8_t* rows, const int32_t* totals, int valid, const int8_t* panel, int depth,
                           Sums& sums, Between&& between) {
  int first = 0;
  const auto some = [&]<int kRows>() {
    if (kPrefetch && first == 0)
      multiply_rows<kRows, true>(rows, totals, panel, depth, first, sums);
    else
      multiply_rows<kRows, false>(rows, totals, panel, depth, first, sums);
    first += kRows;
  };
  // Seven and eight go as two times four.
  while (valid - first >= 6 && valid - first != 7 && valid - first != 8) some.template operator()<6>();
  while (valid - first >= 4) some.template operator()<4>();
  switch (valid - first) {
    case 3: some.template operator()<3>(); break;
    case 2: some.template operator()<2>(); break;
    case 1: some.template operator()<1>(); break;
    default: break;
  }
  for (int k = 0; k < depth; ++k) between(k);
}

// Scores of the first `valid` of 16 queries over keys [0, padded): [16, stride]. `steps`: of 32 channels.
inline void score(int steps, const bf16* queries, int valid, const bf16* keys, int64_t padded, int64_t stride,
                  float* scores) {
  for (int first = 0; first < valid; first += 4) {
    const bf16* place = keys;
    for (int64_t key = 0; key < padded; key += 16) {
      __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
      for (int step = 0; step < steps; ++step, place += 512)
        for (int i = 0; i < 16; ++i) {
          const __m512i pairs = _mm512_load_si512(place + 32 * i);
          UNMASK_UNROLL
          for (int q = 0; q < 4; ++q)
            sums[q] = add_pairs(sums[q], pairs, one_pair(queries + step * 512 + (first + q) * 32 + 2 * i));
        }
      UNMASK_UNROLL
      for (int q = 0; q < 4; ++q) _mm512_storeu_ps(scores + (first + q) * stride + key, sums[q]);
    }
  }
}

// Sums of values by weights, for the first `valid` of 16 queries: [tiles][16 queries][16 channels].
inline void mix(int tiles, const bf16* weights, int valid, const bf16* values, int64_t padded, int64_t stride,
                float* mixed) {
  for (int tile = 0; tile < tiles; ++tile)
    for (int first = 0; first < valid; first += 4) {
      __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
      for (int64_t key = 0; key < padded; key += 32) {
        const bf16* place = values + (key / 32 * tiles + tile) * 512;
        for (int i = 0; i < 16; ++i) {
          const __m512i pairs = _mm512_load_si512(place + 32 * i);
          UNMASK_UNROLL
          for (int q = 0; q < 4; ++q)
            sums[q] = add_pairs(sums[q], pairs, one_pair(weights + (first + q) * stride + key + 2 * i));
        }
      }
      UNMASK_UNROLL
      for (int q = 0; q < 4; ++q) _mm512_store_ps(mixed + (tile * 16 + first + q) * 16, sums[q]);
    }
}

}  // namespace unmask
