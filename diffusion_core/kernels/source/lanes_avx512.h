// Sixteen numbers in one register of AVX-512, with the names that lanes_avx2.h has for two registers.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace unmask {

using bf16 = uint16_t;
using Floats = __m512;
using Words = __m512i;  // 16 int32, or 64 bytes
using Mask = __mmask16;

constexpr int kLanes = 16;

inline Floats zero_floats() { return _mm512_setzero_ps(); }
inline Words zero_words() { return _mm512_setzero_si512(); }
inline Floats floats(float x) { return _mm512_set1_ps(x); }
inline Words words(int32_t x) { return _mm512_set1_epi32(x); }
inline Words count_up() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

// The first `count` lanes (all, when there are more).
inline Mask first_lanes(int64_t count) {
  return count >= kLanes ? Mask(0xffff) : count <= 0 ? Mask(0) : Mask((1u << count) - 1);
}

inline Floats load(const float* from) { return _mm512_loadu_ps(from); }
inline Floats load(Mask mask, const float* from) { return _mm512_maskz_loadu_ps(mask, from); }
inline void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
inline void store(float* to, Mask mask, Floats x) { _mm512_mask_storeu_ps(to, mask, x); }
inline Words load_words(const void* from) { return _mm512_load_si512(from); }
inline void store_words(void* to, Words x) { _mm512_store_si512(to, x); }

// `count` bytes at `from`, at most 64, and zeros behind.
inline Words load_bytes(const void* from, int count) {
  return _mm512_maskz_loadu_epi8(count >= 64 ? ~__mmask64(0) : (__mmask64(1) << count) - 1, from);
}
// The lowest byte of each word.
inline void store_bytes(int8_t* to, Words x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(x));
}
// Which of `count` bytes at `from` are not zero.
inline Mask nonzero_bytes(const uint8_t* from, int64_t count) {
  const __m128i bytes = _mm_maskz_loadu_epi8(first_lanes(count), from);
  return _mm_test_epi8_mask(bytes, bytes);
}
// 16 numbers of 16 bits.
inline Words load_halves(const uint16_t* from) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

inline Floats plus(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats minus(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats fmadd(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats fmsub(Floats a, Floats b, Floats c) { return _mm512_fmsub_ps(a, b, c); }
inline Floats fnmadd(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
inline Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
inline Floats nearest_whole(Floats x) { return _mm512_roundscale_ps(x, 0); }
inline Floats times_power_of_two(Floats x, Floats exponent) { return _mm512_scalef_ps(x, exponent); }
inline Floats about_inverse(Floats x) { return _mm512_rcp14_ps(x); }  // within 6e-5
inline float total(Floats x) { return _mm512_reduce_add_ps(x); }
inline float largest(Floats x) { return _mm512_reduce_max_ps(x); }

inline Words plus(Words a, Words b) { return _mm512_add_epi32(a, b); }
inline Words minus(Words a, Words b) { return _mm512_sub_epi32(a, b); }
inline Words larger(Words a, Words b) { return _mm512_max_epi32(a, b); }
inline Words bit_and(Words a, Words b) { return _mm512_and_si512(a, b); }
inline Words bit_or(Words a, Words b) { return _mm512_or_si512(a, b); }
inline Words bit_xor(Words a, Words b) { return _mm512_xor_si512(a, b); }
template <int kBits>
inline Words shift_left(Words x) {
  return _mm512_slli_epi32(x, kBits);
}
inline int32_t total(Words x) { return _mm512_reduce_add_epi32(x); }
inline int32_t largest(Words x) { return _mm512_reduce_max_epi32(x); }

inline Floats to_floats(Words x) { return _mm512_cvtepi32_ps(x); }
inline Words to_words(Floats x) { return _mm512_cvtps_epi32(x); }  // to the nearest, ties to even
inline Floats as_floats(Words x) { return _mm512_castsi512_ps(x); }
inline Words as_words(Floats x) { return _mm512_castps_si512(x); }

inline Mask greater(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
inline Mask equal(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline Mask less(Words a, Words b) { return _mm512_cmplt_epi32_mask(a, b); }
// `a` where the mask has a lane, else `b`.
inline Floats choose(Mask mask, Floats a, Floats b) { return _mm512_mask_mov_ps(b, mask, a); }
inline Words choose(Mask mask, Words a, Words b) { return _mm512_mask_mov_epi32(b, mask, a); }

inline Floats load_bf16(const bf16* from) { return as_floats(shift_left<16>(load_halves(from))); }
inline Floats load_bf16(Mask mask, const bf16* from) {
  return as_floats(shift_left<16>(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from))));
}

// Rounded to the nearest, ties to even.
inline __m256i narrow(Floats x) {
#ifdef __AVX512BF16__
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
#else
  const Words bits = as_words(x), odd = bit_and(_mm512_srli_epi32(bits, 16), words(1));
  const Words rounded = plus(bits, plus(odd, words(0x7fff)));
  const Words quiet = bit_or(bits, words(0x400000));  // what is not a number stays that
  const Mask is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(choose(is_nan, quiet, rounded), 16));
#endif
}

inline void store_bf16(bf16* to, Floats x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(x)); }
inline void store_bf16(bf16* to, Mask mask, Floats x) { _mm256_mask_storeu_epi16(to, mask, narrow(x)); }

// 16 rows of 16 words of 32 bits: rows become columns.
inline void transpose(Words (&x)[16]) {
  Words t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    x[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    x[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    x[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    x[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    x[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    x[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

#ifndef __AMX_INT8__
// VNNI multiplies unsigned by signed numbers: weights are kept as 128 more than they are, and 128 times the sum of a
// row is taken off its result.
constexpr bool kNeedsTotals = true;
constexpr int kRowsAtOnce = 6, kSidesAtOnce = 2;  // whose sums fill the registers
using Weights = Words;

inline Words kept_as(Words bytes) { return bit_xor(bytes, _mm512_set1_epi8(static_cast<char>(0x80))); }
inline Weights load_weights(const int8_t* from) { return load_words(from); }

// sums += products of four inputs of 16 outputs with the four at `row`. As an intrinsic, compilers load `row` into a
// register first, and have none left for all sums.
inline void add_products(Words& sums, Weights weights, const int8_t* row) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(weights), "m"(*reinterpret_cast<const int32_t*>(row)));
}
#else
constexpr bool kNeedsTotals = false;
inline Words kept_as(Words bytes) { return bytes; }
#endif

}  // namespace unmask
