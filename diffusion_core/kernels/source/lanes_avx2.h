// Sixteen numbers in two registers of AVX2, with the names that lanes_avx512.h has for one.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace unmask {

using bf16 = uint16_t;
struct Floats {
  __m256 low, high;
};
struct Words {  // 16 int32, or 64 bytes
  __m256i low, high;
};
using Mask = uint32_t;

constexpr int kLanes = 16;

inline Floats zero_floats() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Words zero_words() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline Floats floats(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Words words(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline Words count_up() {
  return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)};
}

// The first `count` lanes (all, when there are more).
inline Mask first_lanes(int64_t count) { return count >= kLanes ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

// All bits of the lanes that the mask has.
inline Words wide_mask(Mask mask) {
  const __m256i low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128), high = _mm256_slli_epi32(low, 8);
  const __m256i all = _mm256_set1_epi32(static_cast<int>(mask));
  return {_mm256_cmpeq_epi32(_mm256_and_si256(all, low), low), _mm256_cmpeq_epi32(_mm256_and_si256(all, high), high)};
}

inline Floats load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline Floats load(Mask mask, const float* from) {
  if (mask == 0xffff) return load(from);
  const Words wide = wide_mask(mask);
  return {_mm256_maskload_ps(from, wide.low), _mm256_maskload_ps(from + 8, wide.high)};
}
inline void store(float* to, Floats x) {
  _mm256_storeu_ps(to, x.low);
  _mm256_storeu_ps(to + 8, x.high);
}
inline void store(float* to, Mask mask, Floats x) {
  if (mask == 0xffff) return store(to, x);
  const Words wide = wide_mask(mask);
  _mm256_maskstore_ps(to, wide.low, x.low);
  _mm256_maskstore_ps(to + 8, wide.high, x.high);
}
inline Words load_words(const void* from) {
  const auto* place = static_cast<const __m256i*>(from);
  return {_mm256_loadu_si256(place), _mm256_loadu_si256(place + 1)};
}
inline void store_words(void* to, Words x) {
  auto* place = static_cast<__m256i*>(to);
  _mm256_storeu_si256(place, x.low);
  _mm256_storeu_si256(place + 1, x.high);
}

// `count` bytes at `from`, at most 64, and zeros behind.
inline Words load_bytes(const void* from, int count) {
  if (count >= 64) return load_words(from);
  alignas(32) uint8_t bytes[64] = {};
  std::memcpy(bytes, from, static_cast<size_t>(count));
  return load_words(bytes);
}
// The lowest byte of each word, all of them within -128 to 127.
inline void store_bytes(int8_t* to, Words x) {
  const __m256i halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.low, x.high), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                   _mm_packs_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1)));
}
// Which of `count` bytes at `from` are not zero.
inline Mask nonzero_bytes(const uint8_t* from, int64_t count) {
  alignas(16) uint8_t bytes[16] = {};
  if (count > 0) std::memcpy(bytes, from, static_cast<size_t>(std::min<int64_t>(count, 16)));
  const __m128i zeros = _mm_cmpeq_epi8(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)), _mm_setzero_si128());
  return 0xffff & ~static_cast<Mask>(_mm_movemask_epi8(zeros));
}
// 16 numbers of 16 bits.
inline Words load_halves(const uint16_t* from) {
  const auto* place = reinterpret_cast<const __m128i*>(from);
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128(place)), _mm256_cvtepu16_epi32(_mm_loadu_si128(place + 1))};
}

#define UNMASK_FLOATS_2(name, intrinsic) \
  inline Floats name(Floats a, Floats b) { return {intrinsic(a.low, b.low), intrinsic(a.high, b.high)}; }
#define UNMASK_FLOATS_3(name, intrinsic)                                        \
  inline Floats name(Floats a, Floats b, Floats c) {                            \
    return {intrinsic(a.low, b.low, c.low), intrinsic(a.high, b.high, c.high)}; \
  }
#define UNMASK_WORDS_2(name, intrinsic) \
  inline Words name(Words a, Words b) { return {intrinsic(a.low, b.low), intrinsic(a.high, b.high)}; }
UNMASK_FLOATS_2(plus, _mm256_add_ps)
UNMASK_FLOATS_2(minus, _mm256_sub_ps)
UNMASK_FLOATS_2(times, _mm256_mul_ps)
UNMASK_FLOATS_2(larger, _mm256_max_ps)
UNMASK_FLOATS_2(smaller, _mm256_min_ps)
UNMASK_FLOATS_3(fmadd, _mm256_fmadd_ps)
UNMASK_FLOATS_3(fmsub, _mm256_fmsub_ps)
UNMASK_FLOATS_3(fnmadd, _mm256_fnmadd_ps)
UNMASK_WORDS_2(plus, _mm256_add_epi32)
UNMASK_WORDS_2(minus, _mm256_sub_epi32)
UNMASK_WORDS_2(larger, _mm256_max_epi32)
UNMASK_WORDS_2(bit_and, _mm256_and_si256)
UNMASK_WORDS_2(bit_or, _mm256_or_si256)
UNMASK_WORDS_2(bit_xor, _mm256_xor_si256)
#undef UNMASK_FLOATS_2
#undef UNMASK_FLOATS_3
#undef UNMASK_WORDS_2

template <int kBits>
inline Words shift_left(Words x) {
  return {_mm256_slli_epi32(x.low, kBits), _mm256_slli_epi32(x.high, kBits)};
}

inline Floats to_floats(Words x) { return {_mm256_cvtepi32_ps(x.low), _mm256_cvtepi32_ps(x.high)}; }
// To the nearest, ties to even.
inline Words to_words(Floats x) { return {_mm256_cvtps_epi32(x.low), _mm256_cvtps_epi32(x.high)}; }
inline Floats as_floats(Words x) { return {_mm256_castsi256_ps(x.low), _mm256_castsi256_ps(x.high)}; }
inline Words as_words(Floats x) { return {_mm256_castps_si256(x.low), _mm256_castps_si256(x.high)}; }

inline Floats nearest_whole(Floats x) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.low, kNearest), _mm256_round_ps(x.high, kNearest)};
}
// `exponent` is a whole number up to 127; below -126 the result is zero.
inline Floats times_power_of_two(Floats x, Floats exponent) {
  const Words whole = larger(to_words(larger(exponent, floats(-127.0f))), words(-127));
  return times(x, as_floats(shift_left<23>(plus(whole, words(127)))));
}
inline Floats about_inverse(Floats x) { return {_mm256_rcp_ps(x.low), _mm256_rcp_ps(x.high)}; }  // within 4e-4

inline float total(Floats x) {
  const __m256 sums = _mm256_add_ps(x.low, x.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline float largest(Floats x) {
  const __m256 most = _mm256_max_ps(x.low, x.high);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
}
inline int32_t total(Words x) {
  alignas(32) int32_t each[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(each), _mm256_add_epi32(x.low, x.high));
  int32_t sum = 0;
  for (const int32_t one : each) sum += one;
  return sum;
}
inline int32_t largest(Words x) {
  alignas(32) int32_t each[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(each), _mm256_max_epi32(x.low, x.high));
  return *std::max_element(each, each + 8);
}

inline Mask mask_of(__m256 low, __m256 high) {
  return static_cast<Mask>(_mm256_movemask_ps(low)) | static_cast<Mask>(_mm256_movemask_ps(high)) << 8;
}
inline Mask greater(Floats a, Floats b) {
  return mask_of(_mm256_cmp_ps(a.low, b.low, _CMP_GT_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_GT_OQ));
}
inline Mask equal(Floats a, Floats b) {
  return mask_of(_mm256_cmp_ps(a.low, b.low, _CMP_EQ_OQ), _mm256_cmp_ps(a.high, b.high, _CMP_EQ_OQ));
}
inline Mask less(Words a, Words b) {
  return mask_of(_mm256_castsi256_ps(_mm256_cmpgt_epi32(b.low, a.low)),
                 _mm256_castsi256_ps(_mm256_cmpgt_epi32(b.high, a.high)));
}
// `a` where the mask has a lane, else `b`.
inline Floats choose(Mask mask, Floats a, Floats b) {
  const Floats wide = as_floats(wide_mask(mask));
  return {_mm256_blendv_ps(b.low, a.low, wide.low), _mm256_blendv_ps(b.high, a.high, wide.high)};
}
inline Words choose(Mask mask, Words a, Words b) { return as_words(choose(mask, as_floats(a), as_floats(b))); }

inline Floats load_bf16(const bf16* from) { return as_floats(shift_left<16>(load_halves(from))); }
inline Floats load_bf16(Mask mask, const bf16* from) {
  if (mask == 0xffff) return load_bf16(from);
  alignas(32) bf16 some[16] = {};
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) some[i] = from[i];
  return load_bf16(some);
}

// Rounded to the nearest, ties to even.
inline void store_bf16(bf16* to, Floats x) {
  const auto rounded = [](__m256 y) {
    const __m256i bits = _mm256_castps_si256(y);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i nearest = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));  // what is not a number stays that
    const __m256 is_nan = _mm256_cmp_ps(y, y, _CMP_UNORD_Q);
    const __m256 chosen = _mm256_blendv_ps(_mm256_castsi256_ps(nearest), _mm256_castsi256_ps(quiet), is_nan);
    return _mm256_srli_epi32(_mm256_castps_si256(chosen), 16);
  };
  const __m256i halves = _mm256_packus_epi32(rounded(x.low), rounded(x.high));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(halves, 0xd8));
}
inline void store_bf16(bf16* to, Mask mask, Floats x) {
  if (mask == 0xffff) return store_bf16(to, x);
  alignas(32) bf16 all[16];
  store_bf16(all, x);
  for (int i = 0; i < 16; ++i)
    if (mask >> i & 1) to[i] = all[i];
}

// 8 rows of 8 words of 32 bits: rows become columns.
inline void transpose(__m256i (&x)[8]) {
  __m256i t[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    x[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    x[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    x[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    x[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x20);
    t[i + 4] = _mm256_permute2x128_si256(x[i], x[i + 4], 0x31);
  }
  std::copy(t, t + 8, x);
}

// 16 rows of 16 words of 32 bits: rows become columns.
inline void transpose(Words (&x)[16]) {
  __m256i part[2][2][8];  // of rows, of columns
  for (int i = 0; i < 16; ++i) {
    part[i / 8][0][i % 8] = x[i].low;
    part[i / 8][1][i % 8] = x[i].high;
  }
  for (auto& rows : part)
    for (auto& each : rows) transpose(each);
  for (int i = 0; i < 16; ++i) x[i] = {part[0][i / 8][i % 8], part[1][i / 8][i % 8]};
}

#ifdef __AVXVNNI__
// As in lanes_avx512.h.
constexpr bool kNeedsTotals = true;
constexpr int kRowsAtOnce = 3, kSidesAtOnce = 1;  // whose sums fill the registers
using Weights = Words;

inline Words kept_as(Words bytes) {
  const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x80));
  return {_mm256_xor_si256(bytes.low, flip), _mm256_xor_si256(bytes.high, flip)};
}
inline Weights load_weights(const int8_t* from) { return load_words(from); }

inline void add_products(Words& sums, const Weights& weights, const int8_t* row) {
  int32_t four;
  std::memcpy(&four, row, 4);
  const __m256i inputs = _mm256_set1_epi32(four);
  sums.low = _mm256_dpbusd_avx_epi32(sums.low, weights.low, inputs);
  sums.high = _mm256_dpbusd_avx_epi32(sums.high, weights.high, inputs);
}
#else
// Bytes are multiplied as unsigned by signed numbers and summed in pairs of 16 bits: magnitudes of weights with inputs
// that have the weights' signs, as no number is -128. Two products of 127 by 127 fit.
constexpr bool kNeedsTotals = false;
constexpr int kRowsAtOnce = 2, kSidesAtOnce = 1;
struct Weights {
  Words signs, magnitudes;
};

inline Words kept_as(Words bytes) { return bytes; }
inline Weights load_weights(const int8_t* from) {
  const Words signs = load_words(from);
  return {signs, {_mm256_abs_epi8(signs.low), _mm256_abs_epi8(signs.high)}};
}

inline void add_products(Words& sums, const Weights& weights, const int8_t* row) {
  int32_t four;
  std::memcpy(&four, row, 4);
  const __m256i inputs = _mm256_set1_epi32(four), ones = _mm256_set1_epi16(1);
  const auto products = [&](__m256i magnitudes, __m256i signs) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(inputs, signs)), ones);
  };
  sums.low = _mm256_add_epi32(sums.low, products(weights.magnitudes.low, weights.signs.low));
  sums.high = _mm256_add_epi32(sums.high, products(weights.magnitudes.high, weights.signs.high));
}
#endif

}  // namespace unmask
