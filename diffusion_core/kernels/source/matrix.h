// Weights in 8 bits, one scale for each output, laid out for products.
#pragma once

#include <cstring>

#include "layout.h"
#include "memory.h"
#include "team.h"

namespace unmask {

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
  int valid_outputs(int panel, int half) const { return std::clamp(outputs - first_output(panel, half), 0, kLanes); }
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
          Words words[16];
          const int left = to.inputs - k * kTileInputs;
          for (int lane = 0; lane < kLanes; ++lane)
            words[lane] = lane < valid ? load_bytes(row(first + lane) + k * kTileInputs, left) : zero_words();
          transpose(words);
          for (int i = 0; i < 16; ++i) store_words(tile + 64 * i, kept_as(words[i]));
        }
      }
    }
  });
}

}  // namespace unmask
