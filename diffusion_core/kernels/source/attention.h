// Attention of a few or many rows over a long cache, in bfloat16 with sums and softmax in float32.
//
// The query heads that share a key head are extra rows. A row's result depends on its own keys alone: a tile computes
// each of its rows apart, keys lie where they lie in the cache, and what a row does not see adds an exact zero.
#pragma once

#include <limits>
#include <vector>

#include "product.h"

namespace unmask {

// Rows of one sequence. `cache`: keys of the first layer, [K, capacity, Dh] with `head_stride` elements from head to
// head; its values lie `layer_stride` behind them, the next layer's keys twice as far. The rows' own keys and values
// are at `length` and behind. `rows` int32 [count]: where they are among all rows of the forward; `visible` [count,
// count]: which of each other they see. All see what is committed.
struct Sequence {
  bf16* cache;
  int64_t layer_stride, head_stride;
  int64_t length, count;
  const int32_t* rows;
  const uint8_t* visible;
};

struct Heads {
  int queries, keys, size;  // H, K, Dh

  int group() const { return queries / keys; }
  int key_steps() const { return (size + 31) / 32; }    // steps of 32 channels, for products with keys
  int value_tiles() const { return (size + 15) / 16; }  // pieces of 16 channels, for products with weights
};

// Where the parts of one sequence are in the memory that all share, in elements.
struct Places {
  int64_t tiles, padded;  // query tiles of a key head; keys up to a multiple of 32
  int64_t queries, keys, values;
};

struct AttentionMemory {
  Scratch<bf16> queries, keys, values;
  Scratch<float> scores, tiles;  // of each thread
  Scratch<bf16> weights;
  std::vector<Places> places;
  int64_t longest = 0;
  int units = 0;  // pieces of 32 keys of a key head, over all sequences
  int query_units = 0;

  void reserve(const Heads& heads, const Sequence* sequences, int count, int threads) {
    places.clear();
    int64_t num_queries = 0, num_keys = 0, num_values = 0;
    longest = 0;
    units = query_units = 0;
    for (int i = 0; i < count; ++i) {
      const Sequence& s = sequences[i];
      Places p;
      p.tiles = (s.count * heads.group() + 15) / 16;
      p.padded = static_cast<int64_t>(round_up(static_cast<size_t>(s.length + s.count), 32));
      p.queries = num_queries;
      p.keys = num_keys;
      p.values = num_values;
      num_queries += heads.keys * p.tiles * heads.key_steps() * 512;
      num_keys += heads.keys * (p.padded / 16) * heads.key_steps() * 512;
      num_values += heads.keys * (p.padded / 32) * heads.value_tiles() * 512;
      longest = std::max(longest, p.padded);
      units += static_cast<int>(heads.keys * (p.padded / 32));
      query_units += static_cast<int>(heads.keys * p.tiles);
      places.push_back(p);
    }
    queries.reserve(static_cast<size_t>(num_queries));
    keys.reserve(static_cast<size_t>(num_keys));
    values.reserve(static_cast<size_t>(num_values));
    tiles.reserve(static_cast<size_t>(threads) * 256 * static_cast<size_t>(heads.value_tiles()));
    scores.reserve(static_cast<size_t>(stride() * 16 * threads));
    weights.reserve(static_cast<size_t>(stride() * 16 * threads));
  }

  // Elements from a query's scores to the next one's. Of a power of two, all rows would share few places of a cache.
  int64_t stride() const { return longest + 32; }

  // Where 16 channels of a query are put: of row `row` of a sequence, query head `head`, from `channel` on.
  bf16* query(const Heads& heads, int sequence, int64_t row, int head, int channel) {
    const Places& p = places[static_cast<size_t>(sequence)];
    const int64_t number = row * heads.group() + head % heads.group();
    const int64_t tile = (head / heads.group()) * p.tiles + number / 16;
    return queries.get() + p.queries + (tile * heads.key_steps() + channel / 32) * 512 + number % 16 * 32 +
           channel % 32;
  }
};

// Lays 32 keys and values of a key head out as tiles; `visible_end`: no row sees what is there or behind.
inline void pack_keys(const Heads& heads, const bf16* keys, const bf16* values, int64_t first, int64_t end,
                      bf16* to_keys, bf16* to_values) {
  for (int part = 0; part < 2; ++part)
    for (int step = 0; step < heads.key_steps(); ++step, to_keys += 512) {
      Words words[16];
      const int left = 2 * (heads.size - 32 * step);
      for (int i = 0; i < 16; ++i) {
        const int64_t key = first + 16 * part + i;
        words[i] = key < end ? load_bytes(keys + key * heads.size + 32 * step, left) : zero_words();
      }
      transpose(words);
      for (int i = 0; i < 16; ++i) store_words(to_keys + 32 * i, words[i]);
    }
  for (int tile = 0; tile < heads.value_tiles(); ++tile)
    for (int pair = 0; pair < 16; ++pair, to_values += 32) {
      const int64_t key = first + 2 * pair;
      const auto read = [&](int64_t k) {
        return k < end ? load_halves(values + k * heads.size + 16 * tile) : zero_words();
      };
      store_words(to_values, bit_or(read(key), shift_left<16>(read(key + 1))));
    }
}

// Weights of one query, not yet divided by their sum, which is returned. It sees keys before `length` and those that
// `visible` [count] says behind.
inline float weigh(const float* scores, float scale, int64_t length, int64_t count, const uint8_t* visible,
                   int64_t padded, bf16* weights) {
  const auto seen = [&](int64_t key) {
    const int64_t committed = std::clamp<int64_t>(length - key, 0, kLanes);
    if (committed == kLanes) return Mask(0xffff);
    const int64_t own = key + committed - length;  // of the rows themselves, from here on
    const Mask others = nonzero_bytes(visible + own, std::min(count - own, kLanes - committed));
    return static_cast<Mask>(others << committed | first_lanes(committed));
  };
  const int64_t all_see = length / kLanes * kLanes;
  Floats most[4];
  for (Floats& each : most) each = floats(-std::numeric_limits<float>::infinity());
  int64_t key = 0;
  for (; key + 4 * kLanes <= all_see; key += 4 * kLanes)
    for (int i = 0; i < 4; ++i) most[i] = larger(most[i], load(scores + key + i * kLanes));
  for (; key < all_see; key += kLanes) most[0] = larger(most[0], load(scores + key));
  for (; key < padded; key += kLanes) most[0] = choose(seen(key), larger(most[0], load(scores + key)), most[0]);
  most[0] = larger(larger(most[0], most[1]), larger(most[2], most[3]));
  const Floats factor = floats(scale * kLog2E);
  const Floats highest = times(floats(largest(most[0])), factor);
  const auto weight = [&](int64_t at) { return power_of_two(fmsub(load(scores + at), factor, highest)); };
  Floats sum = zero_floats();
  for (key = 0; key < all_see; key += kLanes) {
    const Floats one = weight(key);
    sum = plus(sum, one);
    store_bf16(weights + key, one);
  }
  for (; key < padded; key += kLanes) {
    const Floats one = choose(seen(key), weight(key), zero_floats());
    sum = plus(sum, one);
    store_bf16(weights + key, one);
  }
  return total(sum);
}

}  // namespace unmask
