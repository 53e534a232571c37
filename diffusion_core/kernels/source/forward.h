// A forward through layers of the Transformer: what diffusion_core/model/transformer.py computes while decoding.
//
// Between two products everything is float32. Adapters change slot rows only; the other rows never meet their numbers.
#pragma once

#include "attention.h"

namespace unmask {

struct LayerWeights {
  const Matrix *qkv, *o, *gate_up, *down;
  const float *attention_norm, *mlp_norm;    // [D]
  const float* qkv_bias;                     // [(H + 2 K) Dh], or nullptr
  const float *query_norm, *key_norm;        // [Dh], or nullptr
};

struct Shape {
  Heads heads;
  int hidden, inner, layers;
  float epsilon;
};

// What an adapter adds to one product, `down` [inputs, rank] and `up` [rank, outputs], with its scale in it; the rank
// is a multiple of 16.
struct Pair {
  const float *down, *up;
};
struct LayerChange {
  Pair qkv, o, gate_up, down;
};
struct Adapter {
  int rank;
  const LayerChange* layers;
};

struct Request {
  int32_t count, first_slot;           // rows; slots are the rows from first_slot on
  int32_t first_layer, last_layer;
  int32_t num_sequences, num_taps;
  const float *cosines, *sines;        // [count, Dh]
  float* x;                            // [count, D]: embeddings, then the residual stream
  const Sequence* sequences;
  const Adapter* adapter;              // nullptr: none
  const int32_t* taps;                 // layers whose input is wanted, in order
  bf16* tapped;                        // [num_taps, count, D]
  const float* norm;                   // [D], of what leaves the last layer
  bf16* hidden;                        // [count, D]
};

// Memory of forwards. There is one: forwards follow one another.
struct Workspace {
  QuantizedRows narrow, attended, wide;
  Scratch<float> qkv, mixed, inner, low, rows, tiles;
  AttentionMemory attention;
};

class Forward {
 public:
  Forward(Team& team, const Shape& shape, const LayerWeights* layers, const Request& request, Workspace& memory, int threads)
      : team_(team), shape_(shape), layers_(layers), r_(request), m_(memory) {
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
    m_.rows.reserve(static_cast<size_t>(threads) * widest());
    m_.tiles.reserve(static_cast<size_t>(threads) * 16 * 16 * h.value_tiles());
    m_.attention.reserve(h, r_.sequences, r_.num_sequences, threads);
    place_.resize(count);
    for (int s = 0; s < r_.num_sequences; ++s)
      for (int64_t i = 0; i < r_.sequences[s].count; ++i)
        place_[static_cast<size_t>(r_.sequences[s].rows[i])] = {s, static_cast<int32_t>(i)};
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
      for (int i = 0; i < shape_.hidden; i += kLanes)
        store_bf16(r_.hidden + at(row, shape_.hidden) + i, _mm512_loadu_ps(y + i));
    }
    team_.barrier();
  }

 private:
  struct Place {
    int32_t sequence, number;
  };

  static size_t at(int row, int width) { return static_cast<size_t>(row) * static_cast<size_t>(width); }
  size_t widest() const { return round_up(static_cast<size_t>(std::max(shape_.hidden, shape_.heads.size)), 64); }

  // Copies the residual stream where a tap wants it; all threads agree on which one is next.
  int take_tap(int layer, int tap) {
    if (tap >= r_.num_taps || r_.taps[tap] != layer) return tap;
    for (int row; (row = team_.next()) < r_.count;)
      for (int i = 0; i < shape_.hidden; i += kLanes)
        store_bf16(r_.tapped + (at(tap, r_.count) + static_cast<size_t>(row)) * shape_.hidden + i,
                   _mm512_loadu_ps(r_.x + at(row, shape_.hidden) + i));
    team_.barrier();
    return tap + 1;
  }

  void run_layer(int number, int worker) {
    const LayerWeights& w = layers_[number];
    const LayerChange* change = r_.adapter != nullptr ? &r_.adapter->layers[number] : nullptr;
    const int hidden = shape_.hidden;

    quantise_normalised(w.attention_norm, change ? change->qkv.down : nullptr, worker);
    multiply(team_, *w.qkv, m_.narrow, r_.count, [&](int panel, int row, int place, const Sums& sums) {
      each(*w.qkv, m_.narrow, panel, row, place, sums, change ? change->qkv.up : nullptr, [&](int out, __m512 y, __mmask16 mask) {
        if (w.qkv_bias != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, w.qkv_bias + out));
        _mm512_mask_storeu_ps(m_.qkv.get() + at(row, total_) + out, mask, y);
      });
    });
    team_.barrier();

    for (int row; (row = team_.next()) < r_.count;) place_row(row, number, w, worker);
    team_.barrier();
    attend(number, worker);

    quantise(m_.attended, m_.mixed.get(), attended_, change ? change->o.down : nullptr);
    multiply(team_, *w.o, m_.attended, r_.count, [&](int panel, int row, int place, const Sums& sums) {
      each(*w.o, m_.attended, panel, row, place, sums, change ? change->o.up : nullptr, [&](int out, __m512 y, __mmask16 mask) {
        add_to(r_.x + at(row, hidden) + out, y, mask);
      });
    });
    team_.barrier();

    quantise_normalised(w.mlp_norm, change ? change->gate_up.down : nullptr, worker);
    multiply(team_, *w.gate_up, m_.narrow, r_.count, [&](int panel, int row, int place, const Sums& sums) {
      gate(*w.gate_up, panel, row, place, sums, change ? change->gate_up.up : nullptr);
    });
    team_.barrier();

    quantise(m_.wide, m_.inner.get(), shape_.inner, change ? change->down.down : nullptr);
    multiply(team_, *w.down, m_.wide, r_.count, [&](int panel, int row, int place, const Sums& sums) {
      each(*w.down, m_.wide, panel, row, place, sums, change ? change->down.up : nullptr, [&](int out, __m512 y, __mmask16 mask) {
        add_to(r_.x + at(row, hidden) + out, y, mask);
      });
    });
    team_.barrier();
  }

  static void add_to(float* place, __m512 y, __mmask16 mask) {
    _mm512_mask_storeu_ps(place, mask, _mm512_add_ps(_mm512_maskz_loadu_ps(mask, place), y));
  }

  // Root-mean-square normalisation of `x` [size] into `y`, which is filled up with zeros to a multiple of 64.
  static void normalise(const float* x, const float* weight, int size, float epsilon, float* y) {
    __m512 squares = _mm512_setzero_ps();
    for (int i = 0; i < size; i += kLanes) {
      const __m512 v = _mm512_maskz_loadu_ps(first_lanes(size - i), x + i);
      squares = _mm512_fmadd_ps(v, v, squares);
    }
    const float factor = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / static_cast<float>(size) + epsilon);
    for (int i = 0; i < static_cast<int>(round_up(static_cast<size_t>(size), 64)); i += kLanes) {
      const __mmask16 mask = first_lanes(size - i);
      const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_set1_ps(factor));
      _mm512_storeu_ps(y + i, _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, weight + i)));
    }
  }

  float* normalised(int row, const float* weight, int worker) {
    float* y = m_.rows.get() + static_cast<size_t>(worker) * widest();
    normalise(r_.x + at(row, shape_.hidden), weight, shape_.hidden, shape_.epsilon, y);
    return y;
  }

  // The phase in front of a product: all rows of the residual stream, normalised, as integers.
  void quantise_normalised(const float* weight, const float* down, int worker) {
    for (int row; (row = team_.next()) < r_.count;) {
      const float* y = normalised(row, weight, worker);
      m_.narrow.set(row, [y](int i) { return _mm512_loadu_ps(y + i); });
      if (down != nullptr && row >= r_.first_slot) make_low(y, shape_.hidden, down, row);
    }
    team_.barrier();
  }

  // As quantise_normalised, of rows that are taken as they are.
  void quantise(QuantizedRows& to, const float* rows, int size, const float* down) {
    for (int row; (row = team_.next()) < r_.count;) {
      const float* y = rows + at(row, size);
      to.set(row, [y, size](int i) { return _mm512_maskz_loadu_ps(first_lanes(size - i), y + i); });
      if (down != nullptr && row >= r_.first_slot) make_low(y, size, down, row);
    }
    team_.barrier();
  }

  // An adapter's way down for one row: [rank].
  void make_low(const float* x, int size, const float* down, int row) {
    float* to = m_.low.get() + at(row, rank_);
    for (int first = 0; first < rank_; first += kLanes) {
      __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
      for (int i = 0; i < size; ++i)
        sums[i % 4] = _mm512_fmadd_ps(_mm512_set1_ps(x[i]), _mm512_loadu_ps(down + at(i, rank_) + first), sums[i % 4]);
      _mm512_storeu_ps(to + first, _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
    }
  }

  // An adapter's way up for 16 outputs of a slot row, added to what the base gives.
  __m512 changed(__m512 y, int row, int out, int outputs, const float* up, __mmask16 mask) const {
    if (up == nullptr || row < r_.first_slot) return y;
    const float* low = m_.low.get() + at(row, rank_);
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < rank_; ++i)
      sum = _mm512_fmadd_ps(_mm512_set1_ps(low[i]), _mm512_maskz_loadu_ps(mask, up + at(i, outputs) + out), sum);
    return _mm512_add_ps(y, sum);
  }

  // One row of a panel, as put(output, 16 values, mask).
  template <class Put>
  void each(const Matrix& weight, const QuantizedRows& rows, int panel, int row, int place, const Sums& sums, const float* up,
            Put&& put) {
    for (int half = 0; half < 2; ++half) {
      const int out = weight.first_output(panel, half);
      const __mmask16 mask = first_lanes(weight.valid_outputs(panel, half));
      const __m512 scales = _mm512_loadu_ps(weight.scales.get() + panel * kPanel + half * kLanes);
      const __m512 y = sums.scaled(place, half, scales, rows.scales.get()[row]);
      put(out, changed(y, row, out, weight.outputs, up, mask), mask);
    }
  }

  void gate(const Matrix& weight, int panel, int row, int place, const Sums& sums, const float* up) {
    const int out = panel * kLanes;
    const __mmask16 mask = first_lanes(shape_.inner - out);
    const float* scales = weight.scales.get() + panel * kPanel;
    const float scale = m_.narrow.scales.get()[row];
    const __m512 g = sums.scaled(place, 0, _mm512_loadu_ps(scales), scale);
    const __m512 u = sums.scaled(place, 1, _mm512_loadu_ps(scales + kLanes), scale);
    const __m512 y = _mm512_mul_ps(silu(changed(g, row, out, weight.outputs, up, mask)),
                                   changed(u, row, shape_.inner + out, weight.outputs, up, mask));
    _mm512_mask_storeu_ps(m_.inner.get() + at(row, shape_.inner) + out, mask, y);
  }

  // Head norms and rotation; queries go where attention reads them, keys and values into the cache.
  void place_row(int row, int layer, const LayerWeights& w, int worker) {
    const Heads& h = shape_.heads;
    const Place place = place_[static_cast<size_t>(row)];
    const Sequence& s = r_.sequences[place.sequence];
    float* const heads = m_.qkv.get() + at(row, total_);
    float* const scratch = m_.rows.get() + static_cast<size_t>(worker) * widest();
    bf16* const keys = s.cache + 2 * layer * s.layer_stride + (s.length + place.number) * h.size;
    for (int head = 0; head < h.queries + 2 * h.keys; ++head) {
      float* x = heads + head * h.size;
      const bool is_query = head < h.queries, is_key = !is_query && head < h.queries + h.keys;
      const float* norm = is_query ? w.query_norm : is_key ? w.key_norm : nullptr;
      if (norm != nullptr) {
        normalise(x, norm, h.size, shape_.epsilon, scratch);
        x = scratch;
      }
      for (int i = 0; i < h.size; i += kLanes) {
        __m512 y = _mm512_loadu_ps(x + i);
        bf16* to;
        if (is_query || is_key) y = rotated(x, i, r_.cosines + at(row, h.size), r_.sines + at(row, h.size));
        if (is_query)
          to = m_.attention.query(h, place.sequence, place.number, head, i);
        else if (is_key)
          to = keys + (head - h.queries) * s.head_stride + i;
        else
          to = keys + s.layer_stride + (head - h.queries - h.keys) * s.head_stride + i;
        store_bf16(to, y);
      }
    }
  }

  __m512 rotated(const float* x, int i, const float* cosines, const float* sines) const {
    const int half = shape_.heads.size / 2;
    const __m512 other = i < half ? _mm512_sub_ps(_mm512_setzero_ps(), _mm512_loadu_ps(x + i + half)) : _mm512_loadu_ps(x + i - half);
    return _mm512_fmadd_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(cosines + i), _mm512_mul_ps(other, _mm512_loadu_ps(sines + i)));
  }

  void attend(int layer, int worker) {
    const Heads& h = shape_.heads;
    AttentionMemory& a = m_.attention;
    for (int unit; (unit = team_.next()) < a.units;) {
      int left = unit, number = 0;
      while (left >= h.keys * (a.places[number].padded / 32)) left -= static_cast<int>(h.keys * (a.places[number++].padded / 32));
      const Places& p = a.places[number];
      const Sequence& s = r_.sequences[number];
      const int64_t pieces = p.padded / 32, head = left / pieces, piece = left % pieces;
      const bf16* keys = s.cache + 2 * layer * s.layer_stride + head * s.head_stride;
      pack_keys(h, keys, keys + s.layer_stride, 32 * piece, s.length + s.count,
                a.keys.get() + p.keys + (head * pieces + piece) * 2 * h.key_steps() * 512,
                a.values.get() + p.values + (head * pieces + piece) * h.value_tiles() * 512);
    }
    team_.barrier();
    for (int unit; (unit = team_.next()) < a.query_units;) {
      int left = unit, number = 0;
      while (left >= h.keys * a.places[number].tiles) left -= static_cast<int>(h.keys * a.places[number++].tiles);
      const int64_t tiles = a.places[number].tiles;
      // The last tiles have most keys: they come first, so that no thread is left alone with one at the end.
      attend_tile(number, static_cast<int>(left % h.keys), tiles - 1 - left / h.keys, worker);
    }
    team_.barrier();
  }

  void attend_tile(int number, int head, int64_t tile, int worker) {
    const Heads& h = shape_.heads;
    AttentionMemory& a = m_.attention;
    const Places& p = a.places[static_cast<size_t>(number)];
    const Sequence& s = r_.sequences[number];
    const int64_t first = tile * 16, last = std::min<int64_t>(first + 16, s.count * h.group());
    int64_t end = 0;
    for (int64_t row = first / h.group(); row <= (last - 1) / h.group(); ++row)
      for (int64_t key = s.count; key > end; --key)
        if (s.visible[row * s.count + key - 1]) end = key;
    const int64_t padded = static_cast<int64_t>(round_up(static_cast<size_t>(s.length + end), 32)), stride = a.stride();
    float* scores = a.scores.get() + worker * 16 * stride;
    bf16* weights = a.weights.get() + worker * 16 * stride;
    float* mixed = m_.tiles.get() + static_cast<size_t>(worker) * 16 * 16 * h.value_tiles();
    const int valid = static_cast<int>(last - first);
    score(h.key_steps(), a.queries.get() + p.queries + (head * p.tiles + tile) * h.key_steps() * 512, valid,
          a.keys.get() + p.keys + head * (p.padded / 16) * h.key_steps() * 512, padded, stride, scores);
    float sums[16];
    const float scale = 1.0f / std::sqrt(static_cast<float>(h.size));
    for (int64_t i = 0; i < valid; ++i)
      sums[i] = weigh(scores + i * stride, scale, s.length, s.count, s.visible + (first + i) / h.group() * s.count, padded,
                      weights + i * stride);
    mix(h.value_tiles(), weights, valid, a.values.get() + p.values + head * (p.padded / 32) * h.value_tiles() * 512, padded,
        stride, mixed);
    for (int64_t i = 0; i < valid; ++i) {
      const int row = s.rows[(first + i) / h.group()];
      const __m512 factor = _mm512_set1_ps(1.0f / sums[i]);
      float* to = m_.mixed.get() + at(row, attended_) + (head * h.group() + (first + i) % h.group()) * h.size;
      for (int part = 0; part < h.value_tiles(); ++part)
        _mm512_storeu_ps(to + part * kLanes, _mm512_mul_ps(_mm512_load_ps(mixed + (part * 16 + i) * 16), factor));
    }
  }

  Team& team_;
  const Shape& shape_;
  const LayerWeights* layers_;
  const Request& r_;
  Workspace& m_;
  std::vector<Place> place_;
  int attended_, total_, rank_;
};

}  // namespace unmask
