// A forward through layers of the Transformer: what diffusion_core/model/transformer.py computes while decoding.
//
// Between two products everything is float32. Adapters change slot rows only; the other rows never meet their numbers.
#pragma once

#include "attention_pass.h"
#include "pair.h"

namespace unmask {

struct Shape {
  Heads heads;
  int hidden, inner, layers;
  float epsilon;
};

struct LayerChange {
  const Pair *qkv, *o, *gate_up, *down;
};
struct Adapter {
  int rank;
  const LayerChange* layers;
};

struct Request {
  int32_t count, first_slot;  // rows; slots are the rows from first_slot on
  int32_t first_layer, last_layer;
  int32_t num_sequences, num_taps;
  const float *cosines, *sines;  // [count, Dh]
  float* x;                      // [count, D]: embeddings, then the residual stream
  const Sequence* sequences;
  const Adapter* adapter;  // nullptr: none
  const int32_t* taps;     // layers whose input is wanted, in order
  bf16* tapped;            // [num_taps, count, D]
  const float* norm;       // [D], of what leaves the last layer
  bf16* hidden;            // [count, D]
};

// Memory of forwards. There is one: forwards follow one another.
struct Workspace {
  QuantizedRows narrow, attended, wide;
  Scratch<float> qkv, mixed, inner, rows;
  Scratch<bf16> low, narrow_rows;
  AttentionMemory attention;
};

class Forward {
 public:
  Forward(Team& team, const Shape& shape, const LayerWeights* layers, const Request& request, Workspace& memory,
          int threads)
      : team_(team),
        shape_(shape),
        layers_(layers),
        r_(request),
        m_(memory),
        attention_(team, shape.heads, shape.epsilon,
                   {request.sequences, request.num_sequences, request.count, request.cosines, request.sines},
                   memory.attention, threads) {
    const size_t count = static_cast<size_t>(r_.count);
    const Heads& h = shape_.heads;
    attended_ = h.queries * h.size;
    total_ = (h.queries + 2 * h.keys) * h.size;
    rank_ = r_.adapter != nullptr ? r_.adapter->rank : 0;
    m_.narrow.reserve(r_.count, shape_.hidden);
    m_.attended.reserve(r_.count, attended_);
    m_.wide.reserve(r_.count, shape_.inner);
    m_.qkv.reserve(count * total_);
    m_.mixed.reserve(count * attended_);
    m_.inner.reserve(count * shape_.inner);
    m_.low.reserve(count * rank_ + kLanes);
    m_.narrow_rows.reserve(static_cast<size_t>(threads) * most_inputs());
    m_.rows.reserve(static_cast<size_t>(threads) * widest());
  }

  void run(int worker) {
    ComputeScope scope;
    int tap = 0;
    for (int number = r_.first_layer; number < r_.last_layer; ++number) {
      tap = take_tap(number, tap);
      run_layer(number, worker);
    }
    take_tap(shape_.layers, tap);
    for (int row; (row = team_.next()) < r_.count;) {
      float* y = normalised(row, r_.norm, worker);
      for (int i = 0; i < shape_.hidden; i += kLanes) store_bf16(r_.hidden + at(row, shape_.hidden) + i, load(y + i));
    }
    team_.barrier();
  }

 private:
  size_t most_inputs() const { return static_cast<size_t>(std::max({shape_.hidden, shape_.inner, attended_})); }
  size_t widest() const { return round_up(static_cast<size_t>(std::max(shape_.hidden, shape_.heads.size)), 64); }

  // Copies the residual stream where a tap wants it; all threads agree on which one is next.
  int take_tap(int layer, int tap) {
    if (tap >= r_.num_taps || r_.taps[tap] != layer) return tap;
    for (int row; (row = team_.next()) < r_.count;)
      for (int i = 0; i < shape_.hidden; i += kLanes)
        store_bf16(r_.tapped + (at(tap, r_.count) + static_cast<size_t>(row)) * shape_.hidden + i,
                   load(r_.x + at(row, shape_.hidden) + i));
    team_.barrier();
    return tap + 1;
  }

  void run_layer(int number, int worker) {
    const LayerWeights& w = layers_[number];
    const LayerChange* change = r_.adapter != nullptr ? &r_.adapter->layers[number] : nullptr;
    const int hidden = shape_.hidden;

    quantise_normalised(w.attention_norm, change ? change->qkv : nullptr, worker);
    multiply(team_, worker, *w.qkv, m_.narrow, r_.count, [&](int panel, int row, int place, const Sums& sums) {
      each(*w.qkv, m_.narrow, panel, row, place, sums, change ? change->qkv : nullptr,
           [&](int out, Floats y, Mask mask) {
             if (w.qkv_bias != nullptr) y = plus(y, load(mask, w.qkv_bias + out));
             store(m_.qkv.get() + at(row, total_) + out, mask, y);
           });
    });
    team_.barrier();

    for (int row; (row = team_.next()) < r_.count;)
      attention_.place_row(row, number, m_.qkv.get() + at(row, total_), w, row_memory(worker));
    team_.barrier();
    attention_.run(number, worker, m_.mixed.get());

    quantise(m_.attended, m_.mixed.get(), attended_, change ? change->o : nullptr, worker);
    multiply(team_, worker, *w.o, m_.attended, r_.count, [&](int panel, int row, int place, const Sums& sums) {
      each(*w.o, m_.attended, panel, row, place, sums, change ? change->o : nullptr,
           [&](int out, Floats y, Mask mask) { add_to(r_.x + at(row, hidden) + out, y, mask); });
    });
    team_.barrier();

    quantise_normalised(w.mlp_norm, change ? change->gate_up : nullptr, worker);
    multiply(team_, worker, *w.gate_up, m_.narrow, r_.count, [&](int panel, int row, int place, const Sums& sums) {
      gate(*w.gate_up, panel, row, place, sums, change ? change->gate_up : nullptr);
    });
    team_.barrier();

    quantise(m_.wide, m_.inner.get(), shape_.inner, change ? change->down : nullptr, worker);
    multiply(team_, worker, *w.down, m_.wide, r_.count, [&](int panel, int row, int place, const Sums& sums) {
      each(*w.down, m_.wide, panel, row, place, sums, change ? change->down : nullptr,
           [&](int out, Floats y, Mask mask) { add_to(r_.x + at(row, hidden) + out, y, mask); });
    });
    team_.barrier();
  }

  static void add_to(float* place, Floats y, Mask mask) { store(place, mask, plus(load(mask, place), y)); }

  float* row_memory(int worker) { return m_.rows.get() + static_cast<size_t>(worker) * widest(); }

  float* normalised(int row, const float* weight, int worker) {
    float* y = row_memory(worker);
    normalise(r_.x + at(row, shape_.hidden), weight, shape_.hidden, shape_.epsilon, y);
    return y;
  }

  // The phase in front of a product: all rows of the residual stream, normalised, as integers.
  void quantise_normalised(const float* weight, const Pair* pair, int worker) {
    for (int row; (row = team_.next()) < r_.count;) {
      const float* y = normalised(row, weight, worker);
      m_.narrow.set(row, [y](int i) { return load(y + i); });
      if (pair != nullptr && row >= r_.first_slot) make_low(y, *pair, row, worker);
    }
    team_.barrier();
  }

  // As quantise_normalised, of rows that are taken as they are.
  void quantise(QuantizedRows& to, const float* rows, int size, const Pair* pair, int worker) {
    for (int row; (row = team_.next()) < r_.count;) {
      const float* y = rows + at(row, size);
      to.set(row, [y, size](int i) { return load(first_lanes(size - i), y + i); });
      if (pair != nullptr && row >= r_.first_slot) make_low(y, *pair, row, worker);
    }
    team_.barrier();
  }

  // Puts down what a pair makes of one slot row.
  void make_low(const float* x, const Pair& pair, int row, int worker) {
    bf16* const narrow_x = m_.narrow_rows.get() + static_cast<size_t>(worker) * most_inputs();
    pair.make_low(x, narrow_x, m_.low.get() + at(row, rank_));
  }

  // 16 outputs of a row with what a pair adds to them on slot rows.
  Floats changed(Floats y, int row, int out, const Pair* pair) const {
    if (pair == nullptr || row < r_.first_slot) return y;
    return pair->add(y, out, m_.low.get() + at(row, rank_));
  }

  // One row of a panel, as put(output, 16 values, mask).
  template <class Put>
  void each(const Matrix& weight, const QuantizedRows& rows, int panel, int row, int place, const Sums& sums,
            const Pair* pair, Put&& put) {
    for (int half = 0; half < 2; ++half) {
      const int out = weight.first_output(panel, half);
      const Mask mask = first_lanes(weight.valid_outputs(panel, half));
      const Floats scales = load(weight.scales.get() + panel * kPanel + half * kLanes);
      const Floats y = sums.scaled(place, half, scales, rows.scales.get()[row]);
      put(out, changed(y, row, out, pair), mask);
    }
  }

  void gate(const Matrix& weight, int panel, int row, int place, const Sums& sums, const Pair* pair) {
    const int out = panel * kLanes;
    const Mask mask = first_lanes(shape_.inner - out);
    const float* scales = weight.scales.get() + panel * kPanel;
    const float scale = m_.narrow.scales.get()[row];
    const Floats g = sums.scaled(place, 0, load(scales), scale);
    const Floats u = sums.scaled(place, 1, load(scales + kLanes), scale);
    const Floats y = times(silu(changed(g, row, out, pair)), changed(u, row, shape_.inner + out, pair));
    store(m_.inner.get() + at(row, shape_.inner) + out, mask, y);
  }

  Team& team_;
  const Shape& shape_;
  const LayerWeights* layers_;
  const Request& r_;
  Workspace& m_;
  AttentionPass attention_;
  int attended_, total_, rank_;
};

}  // namespace unmask
