// Sixteen numbers at a time: what is the same for all registers.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include "lanes_avx512.h"
#else
#include "lanes_avx2.h"
#endif

namespace unmask {

// sums + products of 16 pairs with one pair, both bfloat16.
inline Floats add_pairs(Floats sums, Words pairs, Words pair) {
#ifdef __AVX512BF16__
  return _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(pairs), reinterpret_cast<__m512bh>(pair));
#else
  const Words high = words(static_cast<int>(0xffff0000));
  const auto first = [](Words x) { return as_floats(shift_left<16>(x)); };
  const auto second = [high](Words x) { return as_floats(bit_and(x, high)); };
  return fmadd(second(pairs), second(pair), fmadd(first(pairs), first(pair), sums));
#endif
}

// A pair of bfloat16 numbers, sixteen times.
inline Words one_pair(const bf16* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  return words(word);
}

constexpr float kLog2E = 1.44269504088896341f;

// 2^x within 2e-7 of it, for x up to 127; far below zero it is zero.
inline Floats power_of_two(Floats x) {
  const Floats n = nearest_whole(x), r = minus(x, n);
  Floats y = floats(1.3264727e-3f);
  for (const float coefficient : {9.6715126e-3f, 5.5507337e-2f, 2.4022242e-1f, 6.9314698e-1f, 1.0f})
    y = fmadd(y, r, floats(coefficient));
  return times_power_of_two(y, n);
}

// x * sigmoid(x), within 1e-6 of it for what is not small.
inline Floats silu(Floats x) {
  const Floats one = floats(1.0f);
  // 2^127 is far from what overflows, and the quotient is zero there as it should be.
  const Floats exponent = smaller(times(x, floats(-kLog2E)), floats(126.0f));
  const Floats divisor = plus(one, power_of_two(exponent));
  const Floats guess = about_inverse(divisor);  // and a step of Newton's: dividing takes three times as long
  return times(x, times(guess, fnmadd(divisor, guess, floats(2.0f))));
}

}  // namespace unmask
