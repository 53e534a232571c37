// What Python calls. Nothing here throws: a nullptr or a number other than 0 says that there was no memory.
#include <sys/syscall.h>
#include <unistd.h>

#include <new>

#include "forward.h"

#define UNMASK_API extern "C" __attribute__((visibility("default")))

namespace {

using namespace unmask;

std::mutex forward_mutex;

Workspace& workspace() {
  static Workspace* memory = new Workspace;
  return *memory;
}

struct Model {
  Shape shape;
  std::vector<LayerWeights> layers;
};

// Rows that only products need.
QuantizedRows& product_rows() {
  static QuantizedRows* rows = new QuantizedRows;
  return *rows;
}

template <class Function>
int guarded(Function&& function) {
  try {
    function();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

void read_rows(Team& team, const bf16* x, const float* wide, int count, int size, QuantizedRows& rows) {
  for (int row; (row = team.next()) < count;) {
    const size_t begin = static_cast<size_t>(row) * static_cast<size_t>(size);
    rows.set(row, [&](int i) {
      const Mask mask = first_lanes(size - i);
      if (wide != nullptr) return load(mask, wide + begin + i);
      return load_bf16(mask, x + begin + i);
    });
  }
  team.barrier();
}

}  // namespace

// Asks the system for the registers that are wanted beyond the usual ones. 0: they may be used.
UNMASK_API int unmask_enable() {
#ifdef __AMX_INT8__
  return static_cast<int>(syscall(SYS_arch_prctl, 0x1023, 18));
#else
  return 0;
#endif
}

UNMASK_API Matrix* unmask_matrix(int outputs, int inputs, int paired, const int8_t* values, const float* scales,
                                 int threads) {
  try {
    auto* matrix = new Matrix(outputs, inputs, paired != 0);
    pack(
        *matrix, threads,
        [&](int output) { return values + static_cast<size_t>(output) * static_cast<size_t>(inputs); }, scales);
    return matrix;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

// A pair of an adapter, in the order of pair.h.
UNMASK_API Pair* unmask_pair(int inputs, int outputs, int rank, const bf16* down, const bf16* up) {
  try {
    return new Pair(inputs, outputs, rank, down, up);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

UNMASK_API void unmask_free_pair(Pair* pair) { delete pair; }

UNMASK_API void unmask_free_matrix(Matrix* matrix) { delete matrix; }

// y [count, outputs] = rows [count, inputs] times the weight, plus `bias` where there is one. The rows are `x`, or
// `wide` where that is given; the result goes to `y`, or to `narrow` where that is given.
UNMASK_API int unmask_product(const Matrix* matrix, const bf16* x, const float* wide, int count, const float* bias,
                              float* y, bf16* narrow, int threads) {
  return guarded([&] {
    std::lock_guard<std::mutex> lock(forward_mutex);
    Team& team = Team::instance();
    QuantizedRows& rows = product_rows();
    rows.reserve(count, matrix->inputs);
    team.run(threads, [&](int worker) {
      ComputeScope scope;
      read_rows(team, x, wide, count, matrix->inputs, rows);
      multiply(team, worker, *matrix, rows, count, [&](int panel, int row, int place, const Sums& sums) {
        for (int half = 0; half < 2; ++half) {
          const int out = matrix->first_output(panel, half);
          const Mask mask = first_lanes(matrix->valid_outputs(panel, half));
          const Floats scales = load(matrix->scales.get() + panel * kPanel + half * kLanes);
          Floats sum = sums.scaled(place, half, scales, rows.scales.get()[row]);
          if (bias != nullptr) sum = plus(sum, load(mask, bias + out));
          const size_t to = static_cast<size_t>(row) * static_cast<size_t>(matrix->outputs) + static_cast<size_t>(out);
          if (narrow != nullptr)
            store_bf16(narrow + to, mask, sum);
          else
            store(y + to, mask, sum);
        }
      });
      team.barrier();
    });
  });
}

// The output with the highest score of each of `count` rows, the first of equals, and that score. Rows as above.
UNMASK_API int unmask_best(const Matrix* matrix, const bf16* x, const float* wide, int count, int64_t* best,
                           float* highest, int threads) {
  return guarded([&] {
    std::lock_guard<std::mutex> lock(forward_mutex);
    Team& team = Team::instance();
    QuantizedRows& rows = product_rows();
    rows.reserve(count, matrix->inputs);
    std::mutex merging;
    std::fill_n(highest, count, -std::numeric_limits<float>::infinity());
    std::fill_n(best, count, int64_t{0});
    const auto merge = [&](int row, float score, int64_t output) {
      if (score > highest[row] || (score == highest[row] && output < best[row])) {
        highest[row] = score;
        best[row] = output;
      }
    };
    std::vector<Scratch<float>> all_most(static_cast<size_t>(threads));
    std::vector<Scratch<int32_t>> all_where(static_cast<size_t>(threads));
    for (auto& each : all_most) each.reserve(static_cast<size_t>(count) * kLanes);
    for (auto& each : all_where) each.reserve(static_cast<size_t>(count) * kLanes);
    team.run(threads, [&](int worker) {
      ComputeScope scope;
      // In each lane the best so far of its outputs, which come in any order.
      float* most = all_most[static_cast<size_t>(worker)].get();
      int32_t* where = all_where[static_cast<size_t>(worker)].get();
      std::fill_n(most, static_cast<size_t>(count) * kLanes, -std::numeric_limits<float>::infinity());
      read_rows(team, x, wide, count, matrix->inputs, rows);
      multiply(team, worker, *matrix, rows, count, [&](int panel, int row, int place, const Sums& sums) {
        for (int half = 0; half < 2; ++half) {
          const int out = matrix->first_output(panel, half);
          const Mask valid = first_lanes(matrix->valid_outputs(panel, half));
          const Floats scales = load(matrix->scales.get() + panel * kPanel + half * kLanes);
          const Words numbers = plus(words(out), count_up());
          const Floats score = sums.scaled(place, half, scales, rows.scales.get()[row]);
          const Floats old = load(most + row * kLanes);
          const Words old_number = load_words(where + row * kLanes);
          const Mask first = equal(score, old) & less(numbers, old_number);
          const Mask better = static_cast<Mask>(valid & (greater(score, old) | first));
          store(most + row * kLanes, choose(better, score, old));
          store_words(where + row * kLanes, choose(better, numbers, old_number));
        }
      });
      std::lock_guard<std::mutex> merge_lock(merging);
      for (int row = 0; row < count; ++row)
        for (int lane = 0; lane < kLanes; ++lane) merge(row, most[row * kLanes + lane], where[row * kLanes + lane]);
    });
  });
}

UNMASK_API Model* unmask_model(int queries, int keys, int size, int hidden, int inner, int layers, float epsilon,
                               const LayerWeights* weights) {
  return new (std::nothrow) Model{{{queries, keys, size}, hidden, inner, layers, epsilon},
                                  std::vector<LayerWeights>(weights, weights + layers)};
}

UNMASK_API void unmask_free_model(Model* model) { delete model; }

UNMASK_API int unmask_forward(const Model* model, const Request* request, int threads) {
  return guarded([&] {
    std::lock_guard<std::mutex> lock(forward_mutex);
    Team& team = Team::instance();
    threads = std::clamp(threads, 1, Team::kMaxThreads);
    Forward forward(team, model->shape, model->layers.data(), *request, workspace(), threads);
    team.run(threads, [&](int worker) { forward.run(worker); });
  });
}
