// Rows in 8 bits, and their product with a weight.
//
// A row of activations is the sum of two int8 rows, the second 128 times finer, with one scale for both. Products are
// summed as integers: a row's result does not depend on what else is multiplied. Numbers and their order of rounding
// are those of diffusion_core/model/quantized.py.
#pragma once

#include <bit>
#include <cmath>

#include "matrix.h"
#ifdef __AMX_INT8__
#include "with_tiles.h"
#else
#include "with_vectors.h"
#endif

namespace unmask {

constexpr float kPerStep = static_cast<float>(1.0 / 127.0), kTiny = 1e-30f;
constexpr size_t kRowBytes = size_t{5} << 18;  // of rows at a time

// Rows made of integers: per block of 16 rows [inputs / 64][2][16][64], coarse and fine, and a scale for each row.
struct QuantizedRows {
  Scratch<int8_t> tiles;
  Scratch<float> scales;
  Scratch<int32_t> totals;  // [rows][2]: 128 times the sum of each half, where products want it
  int depth = 0;

  void reserve(int rows, int inputs) {
    depth = (inputs + kTileInputs - 1) / kTileInputs;
    const size_t blocks = static_cast<size_t>((rows + kBlock - 1) / kBlock);
    tiles.reserve(blocks * block_bytes());
    scales.reserve(blocks * kBlock);
    if constexpr (kNeedsTotals) totals.reserve(2 * blocks * kBlock);
  }
  size_t block_bytes() const { return static_cast<size_t>(depth) * 2 * kTile; }
  const int32_t* block_totals(int number) const {
    return kNeedsTotals ? totals.get() + static_cast<size_t>(number) * 2 * kBlock : nullptr;
  }
  const int8_t* block(int number) const { return tiles.get() + block_bytes() * static_cast<size_t>(number); }

  // Sets row `number` to `x`, which may be read up to a multiple of 64 (load(i): 16 lanes of it, zeros behind its end).
  template <class Load>
  void set(int number, Load&& load) {
    // As integers, magnitudes have the same order, and what is not a number is the largest of all: the row becomes
    // that.
    const Words magnitude = words(0x7fffffff);
    Words most = zero_words();
    for (int i = 0; i < depth * kTileInputs; i += kLanes) most = larger(most, bit_and(as_words(load(i)), magnitude));
    const float scale = std::bit_cast<float>(largest(most)) * kPerStep + kTiny;
    scales.get()[number] = scale;
    const Floats divisor = floats(scale), inverse = floats(1.0f / scale), finer = floats(128.0f);
    int8_t* to = tiles.get() + block_bytes() * static_cast<size_t>(number / kBlock) + (number % kBlock) * 64;
    Words sums[2] = {zero_words(), zero_words()};
    for (int i = 0; i < depth * kTileInputs; i += kLanes) {
      // The quotient, correctly rounded (Markstein 1990), in a third of the time that dividing takes.
      const Floats x = load(i), near = times(x, inverse);
      const Floats scaled = fmadd(fnmadd(near, divisor, x), inverse, near);
      const Words coarse = to_words(scaled);
      const Words fine = to_words(times(minus(scaled, to_floats(coarse)), finer));
      int8_t* place = to + static_cast<size_t>(i / kTileInputs) * 2 * kTile + i % kTileInputs;
      store_bytes(place, coarse);
      store_bytes(place + kTile, fine);
      if constexpr (kNeedsTotals) {
        sums[0] = plus(sums[0], coarse);
        sums[1] = plus(sums[1], fine);
      }
    }
    if constexpr (kNeedsTotals)
      for (int half = 0; half < 2; ++half) totals.get()[2 * number + half] = 128 * total(sums[half]);
  }
};

inline int share_begin(int total, int worker, int workers) {
  return static_cast<int>(static_cast<int64_t>(total) * worker / workers);
}

// Sums whose rows are still to be taken: those of `count` rows from `first` on, of one panel.
struct Untaken {
  const Sums* sums = nullptr;
  int panel = 0, first = 0, count = 0, taken = 0;

  template <class Take>
  void some(int rows, const Take& take) {
    for (; rows > 0 && taken < count; --rows, ++taken) take(panel, first + taken, taken % kBlock, sums[taken / kBlock]);
  }
};

// The panels that a worker multiplies: some of its own, one behind the other, then those that others have not come to.
// All of them go by `rounds` times.
class PanelShare {
 public:
  PanelShare(Team& team, int worker, int panels, int rounds)
      : team_(team), worker_(worker), panels_(panels), rounds_(rounds) {}

  // Whether there is another one.
  bool next(int& panel, int& round) {
    for (; ahead_ < team_.size(); ++ahead_) {
      const int owner = (worker_ + ahead_) % team_.size();
      const int begin = share_begin(panels_, owner, team_.size());
      const int share = share_begin(panels_, owner + 1, team_.size()) - begin;
      const int taken = team_.next_of(owner);
      if (taken >= share * rounds_) continue;
      panel = begin + taken % share;
      round = taken / share;
      return true;
    }
    return false;
  }

 private:
  Team& team_;
  const int worker_, panels_, rounds_;
  int ahead_ = 0;
};

// How the blocks of `count` rows go by: as many at a time as stay in a core's cache beside a panel.
struct Rounds {
  int blocks, at_a_time;

  Rounds(const QuantizedRows& rows, int count, int most)
      : blocks((count + kBlock - 1) / kBlock),
        at_a_time(std::clamp(static_cast<int>(kRowBytes / rows.block_bytes()), 1, most)) {}
  int count() const { return (blocks + at_a_time - 1) / at_a_time; }
  int first(int round) const { return round * at_a_time; }
  int last(int round) const { return std::min(blocks, (round + 1) * at_a_time); }
};

// Block after block, in time with the weights that arrive. (With an Untaken for its three numbers, a head took an
// eighth longer: where memory is the limit, little may stand in its way.)
template <class Take>
void multiply_few(Team& team, int worker, const Matrix& weight, const QuantizedRows& rows, int count,
                  const Take& take) {
  const Rounds rounds(rows, count, std::max(count, 1));
  PanelShare share(team, worker, weight.panels, rounds.count());
  Sums sums[2];
  int turn = 0, done_panel = 0, done_row = 0, left = 0;
  const auto take_row = [&](int k) {
    if (k < left) take(done_panel, done_row + k, k, sums[turn ^ 1]);
  };
  for (int panel, round; share.next(panel, round);) {
    const int first = rounds.first(round), last = rounds.last(round);
    for (int block = first; block < last; ++block) {
      const int8_t *own = rows.block(block), *weights = weight.panel(panel);
      const int32_t* totals = rows.block_totals(block);
      const int valid = std::min(kBlock, count - block * kBlock);
      if (block == first)
        multiply_block<true>(own, totals, valid, weights, weight.depth, sums[turn], take_row);
      else
        multiply_block<false>(own, totals, valid, weights, weight.depth, sums[turn], take_row);
      for (int k = weight.depth; k < left; ++k) take_row(k);
      done_panel = panel;
      done_row = block * kBlock;
      left = valid;
      turn ^= 1;
    }
  }
  for (int k = 0; k < left; ++k) take_row(k);
}

// All blocks beside one another, a piece of the inputs at a time.
template <class Take>
void multiply_many(Team& team, int worker, const Matrix& weight, const QuantizedRows& rows, int count,
                   const Take& take) {
  constexpr int kMostBlocks = 16;
  const Rounds rounds(rows, count, kMostBlocks);
  PanelShare share(team, worker, weight.panels, rounds.count());
  const int rate = (kBlock + weight.depth - 1) / weight.depth;  // rows to be taken at each step
  Sums sums[2][kMostBlocks];
  int turn = 0;
  Untaken untaken;
  for (int panel, round; share.next(panel, round);) {
    const int first = rounds.first(round), blocks = rounds.last(round) - first;
    multiply_blocks(rows.block(first), rows.block_bytes(), blocks, weight.panel(panel), weight.depth, sums[turn],
                    [&](int) { untaken.some(rate, take); });
    untaken.some(kMostBlocks * kBlock, take);
    untaken = {sums[turn], panel, first * kBlock, std::min(blocks * kBlock, count - first * kBlock)};
    turn ^= 1;
  }
  untaken.some(kMostBlocks * kBlock, take);
}

// All products of `count` rows with a weight: take(panel, row, row of sums, sums) gets each row of each panel once. A
// phase of a run: every thread calls it, and comes to a barrier behind it. Threads are in a ComputeScope.
//
// What is taken belongs to what was multiplied before: a core computes with its vectors while its tiles multiply, and
// memory does not wait for either.
template <class Take>
void multiply(Team& team, int worker, const Matrix& weight, const QuantizedRows& rows, int count, Take&& take) {
  if constexpr (kManyRows > 0)
    if (count >= kManyRows) return multiply_many(team, worker, weight, rows, count, take);
  multiply_few(team, worker, weight, rows, count, take);
}

}  // namespace unmask
