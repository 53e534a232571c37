// Weights and rows in 8 bits, laid out for tiles, and their product.
//
// A weight is int8 with one scale for each output. A row of activations is the sum of two int8 rows, the second 128
// times finer, with one scale for both. Products are summed as integers: a row's result does not depend on what else is
// multiplied. Numbers and their order of rounding are those of diffusion_core/model/quantized.py.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>

#include "memory.h"
#include "team.h"
#include "vectors.h"

namespace unmask {

constexpr int kTile = 1024;          // bytes
constexpr int kTileInputs = 64;      // of int8
constexpr int kPanel = 2 * kLanes;   // outputs that are computed together
constexpr int kBlock = kLanes;       // rows that are computed together
constexpr int kAhead = 3 * kTile;    // bytes of weights that are asked for before they are wanted
constexpr size_t kRowBytes = size_t{5} << 18;  // of rows at a time
constexpr float kFiner = 1.0f / 128.0f;
constexpr float kPerStep = static_cast<float>(1.0 / 127.0), kTiny = 1e-30f;

// A weight [outputs, inputs]. A panel holds its tiles one behind the other: [inputs / 64][2][16][64], an output to each
// group of four bytes. Of a `paired` weight, a panel holds 16 outputs of the first half and the same 16 of the second.
struct Matrix {
  int outputs = 0, inputs = 0, depth = 0, panels = 0;
  bool paired = false;
  int8_t* tiles = nullptr;
  Scratch<float> scales;  // [panels * 32], in the order of the panels

  Matrix(int outputs, int inputs, bool paired)
      : outputs(outputs),
        inputs(inputs),
        depth((inputs + kTileInputs - 1) / kTileInputs),
        panels((outputs + kPanel - 1) / kPanel),
        paired(paired) {
    scales.reserve(static_cast<size_t>(panels) * kPanel);
    tiles = static_cast<int8_t*>(WeightMemory::instance().take(num_bytes()));
    if (tiles == nullptr) throw std::bad_alloc();
  }
  ~Matrix() {
    if (tiles != nullptr) WeightMemory::instance().give_back(tiles);
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  size_t num_bytes() const { return panel_bytes() * static_cast<size_t>(panels); }
  size_t panel_bytes() const { return static_cast<size_t>(depth) * 2 * kTile; }
  const int8_t* panel(int number) const { return tiles + panel_bytes() * static_cast<size_t>(number); }

  // The first of the 16 outputs that are the first (half 0) or second half of a panel.
  int first_output(int panel, int half) const {
    return paired ? half * (outputs / 2) + panel * kLanes : panel * kPanel + half * kLanes;
  }
  // How many of those 16 there are; the others are zeros.
  int valid_outputs(int panel, int half) const {
    return std::clamp(outputs - first_output(panel, half), 0, kLanes);
  }
};

// Fills a weight from row(output) -> its int8 row, in all threads.
template <class Row>
void pack(Matrix& to, int threads, Row&& row, const float* scales) {
  Team& team = Team::instance();
  team.run(threads, [&](int) {
    for (int panel; (panel = team.next()) < to.panels;) {
      for (int half = 0; half < 2; ++half) {
        const int first = to.first_output(panel, half), valid = to.valid_outputs(panel, half);
        float* to_scales = to.scales.get() + panel * kPanel + half * kLanes;
        for (int lane = 0; lane < valid; ++lane) to_scales[lane] = scales[first + lane];
        int8_t* tile = to.tiles + to.panel_bytes() * static_cast<size_t>(panel) + half * kTile;
        for (int k = 0; k < to.depth; ++k, tile += 2 * kTile) {
          __m512i words[16];
          const int left = to.inputs - k * kTileInputs;
          const __mmask64 mask = left >= 64 ? ~__mmask64(0) : (__mmask64(1) << left) - 1;
          for (int lane = 0; lane < kLanes; ++lane)
            words[lane] = lane < valid ? _mm512_maskz_loadu_epi8(mask, row(first + lane) + k * kTileInputs)
                                       : _mm512_setzero_si512();
          transpose(words);
          for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + 64 * i, words[i]);
        }
      }
    }
  });
}

// Rows made of integers: per block of 16 rows [inputs / 64][2][16][64], coarse and fine, and a scale for each row.
struct QuantizedRows {
  Scratch<int8_t> tiles;
  Scratch<float> scales;
  int depth = 0;

  void reserve(int rows, int inputs) {
    depth = (inputs + kTileInputs - 1) / kTileInputs;
    const size_t blocks = static_cast<size_t>((rows + kBlock - 1) / kBlock);
    tiles.reserve(blocks * block_bytes());
    scales.reserve(blocks * kBlock);
  }
  size_t block_bytes() const { return static_cast<size_t>(depth) * 2 * kTile; }
  const int8_t* block(int number) const { return tiles.get() + block_bytes() * static_cast<size_t>(number); }

  // Sets row `number` to `x`, which may be read up to a multiple of 64 (load(i): 16 lanes of it, zeros behind its end).
  template <class Load>
  void set(int number, Load&& load) {
    // As integers, magnitudes have the same order, and what is not a number is the largest of all: the row becomes that.
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512();
    for (int i = 0; i < depth * kTileInputs; i += kLanes)
      most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(load(i)), magnitude));
    const float scale = std::bit_cast<float>(_mm512_reduce_max_epi32(most)) * kPerStep + kTiny;
    scales.get()[number] = scale;
    const __m512 divisor = _mm512_set1_ps(scale), inverse = _mm512_set1_ps(1.0f / scale), finer = _mm512_set1_ps(128.0f);
    int8_t* to = tiles.get() + block_bytes() * static_cast<size_t>(number / kBlock) + (number % kBlock) * 64;
    for (int i = 0; i < depth * kTileInputs; i += kLanes) {
      // The quotient, correctly rounded (Markstein 1990), in a third of the time that dividing takes.
      const __m512 x = load(i), near = _mm512_mul_ps(x, inverse);
      const __m512 scaled = _mm512_fmadd_ps(_mm512_fnmadd_ps(near, divisor, x), inverse, near);
      const __m512 coarse = _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __m512 fine = _mm512_mul_ps(_mm512_sub_ps(scaled, coarse), finer);
      int8_t* place = to + static_cast<size_t>(i / kTileInputs) * 2 * kTile + i % kTileInputs;
      store_integers(place, coarse);
      store_integers(place + kTile, fine);
    }
  }

 private:
  static void store_integers(int8_t* to, __m512 x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
  }
};

// Sums of 16 rows by 32 outputs, coarse and fine, as integers.
struct alignas(64) Sums {
  int32_t of[4][kLanes * kLanes];  // coarse of outputs 0-15, of 16-31, fine of 0-15, of 16-31

  // 16 outputs (half 0 or 1) of one row, scaled.
  __m512 scaled(int row, int half, __m512 output_scales, float row_scale) const {
    const __m512 coarse = _mm512_cvtepi32_ps(_mm512_load_si512(of[half] + row * kLanes));
    const __m512 fine = _mm512_cvtepi32_ps(_mm512_load_si512(of[2 + half] + row * kLanes));
    const __m512 y = _mm512_fmadd_ps(_mm512_mul_ps(fine, output_scales), _mm512_set1_ps(kFiner),
                                     _mm512_mul_ps(coarse, output_scales));
    return _mm512_mul_ps(y, _mm512_set1_ps(row_scale));
  }
};

// Sums of a block of rows with a panel; between(k) is run behind each step.
template <bool kPrefetch, class Between>
inline void multiply_block(const int8_t* rows, const int8_t* panel, int depth, Sums& sums, Between&& between) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int k = 0; k < depth; ++k, rows += 2 * kTile, panel += 2 * kTile) {
    if constexpr (kPrefetch)  // the hardware alone stops at the end of a page
      for (int i = 0; i < 2 * kTile; i += 64)
        _mm_prefetch(reinterpret_cast<const char*>(panel) + kAhead + i, _MM_HINT_T0);
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

// All products of `count` rows with a weight: take(panel, row, row of sums, sums) gets each row of each panel once. A
// phase of a run: every thread calls it, and comes to a barrier behind it. Threads have configured their tiles.
//
// What is taken belongs to the block before: a core computes with its vectors while its tiles multiply, and memory does
// not wait for either.
template <class Take>
void multiply(Team& team, const Matrix& weight, const QuantizedRows& rows, int count, Take&& take) {
  constexpr size_t kPieceBytes = size_t{160} << 10;  // weights that a thread takes at a time
  const int blocks = (count + kBlock - 1) / kBlock;
  // Rows at a time: they stay in a core's cache beside a panel.
  const int at_a_time = std::max(1, static_cast<int>(kRowBytes / rows.block_bytes()));
  const int most = std::max(1, weight.panels / (4 * team.size()));
  const int step = std::clamp(static_cast<int>(kPieceBytes / weight.panel_bytes()), 1, most);
  const int pieces = (weight.panels + step - 1) / step;
  const int rounds = (blocks + at_a_time - 1) / at_a_time;
  Sums sums[2];
  int turn = 0, done_panel = 0, done_row = 0, left = 0;
  const auto take_row = [&](int k) {
    if (k < left) take(done_panel, done_row + k, k, sums[turn ^ 1]);
  };
  for (int piece; (piece = team.next()) < pieces * rounds;) {
    const int first = piece / pieces * at_a_time, last = std::min(blocks, first + at_a_time);
    const int from = piece % pieces * step, to = std::min(weight.panels, from + step);
    for (int panel = from; panel < to; ++panel)
      for (int block = first; block < last; ++block) {
        const int8_t *own = rows.block(block), *weights = weight.panel(panel);
        if (block == first)
          multiply_block<true>(own, weights, weight.depth, sums[turn], take_row);
        else
          multiply_block<false>(own, weights, weight.depth, sums[turn], take_row);
        for (int k = weight.depth; k < left; ++k) take_row(k);
        done_panel = panel;
        done_row = block * kBlock;
        left = std::min(kBlock, count - done_row);
        turn ^= 1;
      }
  }
  for (int k = 0; k < left; ++k) take_row(k);
}

}  // namespace unmask
