// Sixteen floats at a time.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace unmask {

using bf16 = uint16_t;

constexpr int kLanes = 16;

// The first `count` lanes (all, when there are more).
inline __mmask16 first_lanes(int64_t count) {
  return count >= kLanes ? __mmask16(0xffff) : count <= 0 ? __mmask16(0) : __mmask16((1u << count) - 1);
}

inline __m512 widen(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }

inline __m512 load_bf16(const bf16* x) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))); }

// Rounded to the nearest, ties to even.
inline __m256i narrow(__m512 x) {
#ifdef __AVX512BF16__
  return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
#else
  const __m512i bits = _mm512_castps_si512(x),
                odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));  // what is not a number stays that
  const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, is_nan, quiet), 16));
#endif
}

inline void store_bf16(bf16* to, __m512 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(x)); }

// sums + products of 16 pairs with one pair, both bfloat16.
inline __m512 add_pairs(__m512 sums, __m512i pairs, __m512i pair) {
#ifdef __AVX512BF16__
  return _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(pairs), reinterpret_cast<__m512bh>(pair));
#else
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000));
  const auto first = [](__m512i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); };
  const auto second = [high](__m512i x) { return _mm512_castsi512_ps(_mm512_and_si512(x, high)); };
  return _mm512_fmadd_ps(second(pairs), second(pair), _mm512_fmadd_ps(first(pairs), first(pair), sums));
#endif
}

// A pair of bfloat16 numbers, sixteen times.
inline __m512i one_pair(const bf16* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  return _mm512_set1_epi32(word);
}

constexpr float kLog2E = 1.44269504088896341f;

// 2^x within 2e-7 of it, for x up to 127; far below zero it is zero.
inline __m512 power_of_two(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(x, 0), r = _mm512_sub_ps(x, n);
  __m512 y = _mm512_set1_ps(1.3264727e-3f);
  for (const float coefficient : {9.6715126e-3f, 5.5507337e-2f, 2.4022242e-1f, 6.9314698e-1f, 1.0f})
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(coefficient));
  return _mm512_scalef_ps(y, n);
}

// x * sigmoid(x), within 1e-6 of it for what is not small.
inline __m512 silu(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  // 2^127 is far from what overflows, and the quotient is zero there as it should be.
  const __m512 exponent = _mm512_min_ps(_mm512_mul_ps(x, _mm512_set1_ps(-kLog2E)), _mm512_set1_ps(126.0f));
  const __m512 divisor = _mm512_add_ps(one, power_of_two(exponent));
  const __m512 guess =
      _mm512_rcp14_ps(divisor);  // within 6e-5; a step of Newton's, where dividing takes three times as long
  return _mm512_mul_ps(x, _mm512_mul_ps(guess, _mm512_fnmadd_ps(divisor, guess, _mm512_set1_ps(2.0f))));
}

// 16 rows of 16 words of 32 bits: rows become columns.
inline void transpose(__m512i (&x)[16]) {
  __m512i t[16];
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

}  // namespace unmask
