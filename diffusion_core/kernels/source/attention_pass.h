// The attention of one layer, for all rows of a forward.
#pragma once

#include "attention.h"

namespace unmask {

struct LayerWeights {
  const Matrix *qkv, *o, *gate_up, *down;
  const float *attention_norm, *mlp_norm;  // [D]
  const float* qkv_bias;                   // [(H + 2 K) Dh], or nullptr
  const float *query_norm, *key_norm;      // [Dh], or nullptr
};

inline size_t at(int row, int width) { return static_cast<size_t>(row) * static_cast<size_t>(width); }

// Root-mean-square normalisation of `x` [size] into `y`, which is filled up with zeros to a multiple of 64.
inline void normalise(const float* x, const float* weight, int size, float epsilon, float* y) {
  Floats squares = zero_floats();
  for (int i = 0; i < size; i += kLanes) {
    const Floats v = load(first_lanes(size - i), x + i);
    squares = fmadd(v, v, squares);
  }
  const float factor = 1.0f / std::sqrt(total(squares) / static_cast<float>(size) + epsilon);
  for (int i = 0; i < static_cast<int>(round_up(static_cast<size_t>(size), 64)); i += kLanes) {
    const Mask mask = first_lanes(size - i);
    const Floats v = times(load(mask, x + i), floats(factor));
    store(y + i, times(v, load(mask, weight + i)));
  }
}

// All rows of a forward: which sequences they belong to, and where they are turned to, [count, Dh].
struct RowsOfSequences {
  const Sequence* sequences;
  int num_sequences, count;
  const float *cosines, *sines;
};

class AttentionPass {
 public:
  AttentionPass(Team& team, const Heads& heads, float epsilon, const RowsOfSequences& rows, AttentionMemory& memory,
                int threads)
      : team_(team),
        heads_(heads),
        epsilon_(epsilon),
        rows_(rows),
        memory_(memory),
        place_(static_cast<size_t>(rows.count)) {
    memory_.reserve(heads, rows.sequences, rows.num_sequences, threads);
    for (int s = 0; s < rows.num_sequences; ++s)
      for (int64_t i = 0; i < rows.sequences[s].count; ++i)
        place_[static_cast<size_t>(rows.sequences[s].rows[i])] = {s, static_cast<int32_t>(i)};
  }

  // Head norms and rotation; queries go where attention reads them, keys and values into the cache.
  void place_row(int row, int layer, float* heads, const LayerWeights& w, float* scratch) {
    const Heads& h = heads_;
    const Place place = place_[static_cast<size_t>(row)];
    const Sequence& s = rows_.sequences[place.sequence];
    bf16* const keys = s.cache + 2 * layer * s.layer_stride + (s.length + place.number) * h.size;
    for (int head = 0; head < h.queries + 2 * h.keys; ++head) {
      float* x = heads + head * h.size;
      const bool is_query = head < h.queries, is_key = !is_query && head < h.queries + h.keys;
      const float* norm = is_query ? w.query_norm : is_key ? w.key_norm : nullptr;
      if (norm != nullptr) {
        normalise(x, norm, h.size, epsilon_, scratch);
        x = scratch;
      }
      for (int i = 0; i < h.size; i += kLanes) {
        Floats y = load(x + i);
        bf16* to;
        if (is_query || is_key) y = rotated(x, i, rows_.cosines + at(row, h.size), rows_.sines + at(row, h.size));
        if (is_query)
          to = memory_.query(h, place.sequence, place.number, head, i);
        else if (is_key)
          to = keys + (head - h.queries) * s.head_stride + i;
        else
          to = keys + s.layer_stride + (head - h.queries - h.keys) * s.head_stride + i;
        store_bf16(to, y);
      }
    }
  }

  // Attention of all rows over what they see: `mixed` [rows, H * Dh]. Phases of their own; there is a barrier at the
  // end.
  void run(int layer, int worker, float* mixed) {
    const Heads& h = heads_;
    AttentionMemory& a = memory_;
    for (int unit; (unit = team_.next()) < a.units;) {
      int left = unit, number = 0;
      while (left >= h.keys * (a.places[number].padded / 32))
        left -= static_cast<int>(h.keys * (a.places[number++].padded / 32));
      const Places& p = a.places[number];
      const Sequence& s = rows_.sequences[number];
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
      attend_tile(number, static_cast<int>(left % h.keys), tiles - 1 - left / h.keys, worker, mixed);
    }
    team_.barrier();
  }

 private:
  struct Place {
    int32_t sequence, number;
  };

  void attend_tile(int number, int head, int64_t tile, int worker, float* to_rows) {
    const Heads& h = heads_;
    AttentionMemory& a = memory_;
    const Places& p = a.places[static_cast<size_t>(number)];
    const Sequence& s = rows_.sequences[number];
    const int64_t first = tile * 16, last = std::min<int64_t>(first + 16, s.count * h.group());
    int64_t end = 0;
    for (int64_t row = first / h.group(); row <= (last - 1) / h.group(); ++row)
      for (int64_t key = s.count; key > end; --key)
        if (s.visible[row * s.count + key - 1]) end = key;
    const int64_t padded = static_cast<int64_t>(round_up(static_cast<size_t>(s.length + end), 32)), stride = a.stride();
    float* scores = a.scores.get() + worker * 16 * stride;
    bf16* weights = a.weights.get() + worker * 16 * stride;
    float* mixed = a.tiles.get() + static_cast<size_t>(worker) * 16 * 16 * h.value_tiles();
    const int valid = static_cast<int>(last - first);
    score(h.key_steps(), a.queries.get() + p.queries + (head * p.tiles + tile) * h.key_steps() * 512, valid,
          a.keys.get() + p.keys + head * (p.padded / 16) * h.key_steps() * 512, padded, stride, scores);
    float sums[16];
    const float scale = 1.0f / std::sqrt(static_cast<float>(h.size));
    for (int64_t i = 0; i < valid; ++i)
      sums[i] = weigh(scores + i * stride, scale, s.length, s.count, s.visible + (first + i) / h.group() * s.count,
                      padded, weights + i * stride);
    mix(h.value_tiles(), weights, valid, a.values.get() + p.values + head * (p.padded / 32) * h.value_tiles() * 512,
        padded, stride, mixed);
    for (int64_t i = 0; i < valid; ++i) {
      const int row = s.rows[(first + i) / h.group()];
      const Floats factor = floats(1.0f / sums[i]);
      float* to = to_rows + at(row, h.queries * h.size) + (head * h.group() + (first + i) % h.group()) * h.size;
      for (int part = 0; part < h.value_tiles(); ++part)
        store(to + part * kLanes, times(load(mixed + (part * 16 + i) * 16), factor));
    }
  }

  Floats rotated(const float* x, int i, const float* cosines, const float* sines) const {
    const int half = heads_.size / 2;
    const Floats other = i < half ? minus(zero_floats(), load(x + i + half)) : load(x + i - half);
    return fmadd(load(x + i), load(cosines + i), times(other, load(sines + i)));
  }

  Team& team_;
  const Heads& heads_;
  const float epsilon_;
  const RowsOfSequences rows_;
  AttentionMemory& memory_;
  std::vector<Place> place_;
};

}  // namespace unmask
