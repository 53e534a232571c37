// The low-rank pair by which an adapter changes one product on slot rows: up(down(x)), with its scale in `up`.
#pragma once

#include <new>

#include "layout.h"
#include "memory.h"

namespace unmask {

// Both halves in bfloat16, in the order in which they are read: read crosswise from float32 they took as long as half
// of a forward. `down` is [rank / 16][inputs / 2][16][2], `up` [outputs / 16][rank / 2][16][2]; inputs and the rank are
// multiples of 16.
class Pair {
 public:
  Pair(int inputs, int outputs, int rank, const bf16* down, const bf16* up) : inputs_(inputs), rank_(rank) {
    const size_t down_size = static_cast<size_t>(inputs) * rank;
    const size_t up_size = round_up(static_cast<size_t>(outputs), kLanes) * rank;
    down_ = static_cast<bf16*>(WeightMemory::instance().take((down_size + up_size) * sizeof(bf16)));
    if (down_ == nullptr) throw std::bad_alloc();
    up_ = down_ + down_size;
    std::memcpy(down_, down, down_size * sizeof(bf16));
    std::memcpy(up_, up, up_size * sizeof(bf16));
  }
  ~Pair() { WeightMemory::instance().give_back(down_); }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  // down(x) [rank] of `x` [inputs]; `memory` [inputs] is for its rounded form.
  void make_low(const float* x, bf16* memory, bf16* low) const {
    for (int i = 0; i < inputs_; i += kLanes) store_bf16(memory + i, load(x + i));
    for (int first = 0; first < rank_; first += kLanes) {
      const bf16* place = down_ + static_cast<size_t>(first) * inputs_;
      Floats sums[4] = {zero_floats(), zero_floats(), zero_floats(), zero_floats()};
      for (int i = 0; i < inputs_; i += 8, place += 4 * 32)
        for (int j = 0; j < 4; ++j)
          sums[j] = add_pairs(sums[j], load_words(place + 32 * j), one_pair(memory + i + 2 * j));
      store_bf16(low + first, plus(plus(sums[0], sums[1]), plus(sums[2], sums[3])));
    }
  }

  // `y`, 16 outputs from `out` on, and up(low).
  Floats add(Floats y, int out, const bf16* low) const {
    const bf16* place = up_ + static_cast<size_t>(out) * rank_;
    Floats other = zero_floats();
    for (int r = 0; r < rank_; r += 4, place += 2 * 32) {
      y = add_pairs(y, load_words(place), one_pair(low + r));
      other = add_pairs(other, load_words(place + 32), one_pair(low + r + 2));
    }
    return plus(y, other);
  }

 private:
  int inputs_, rank_;
  bf16 *down_, *up_;
};

}  // namespace unmask
