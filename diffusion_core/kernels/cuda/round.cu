// A whole decoding round of a transformer as one kernel: its blocks stay on the device from the first layer to the
// last and meet at a barrier between steps. A round is a chain of small steps; launched one by one, each of them waits
// for the one before to end everywhere, and for its own weights to arrive. Here weights of the steps to come are on
// their way meanwhile.

#include "attention.cuh"
#include "head.cuh"
#include "steps.cuh"

// The grid's barrier: what blocks wrote before they arrive can be read by those that waited.
__device__ __forceinline__ void arrive(const Arguments& arguments) {
  __syncthreads();
  if (threadIdx.x == 0) add_release(arguments.counters, 1);
}

// Until all blocks have arrived for the `number`th time.
__device__ __forceinline__ void wait(const Arguments& arguments, unsigned number) {
  if (threadIdx.x == 0) {
    while (load_acquire(arguments.counters) < number * kBlocks) spin();
  }
  __syncthreads();
}

__device__ __forceinline__ void take_inputs(const Arguments& arguments, Shared& shared) {
  const long long *ids = arguments.inputs + kIds * kRows, *positions = arguments.inputs + kPositions * kRows;
  for (int i = threadIdx.x; i < kLayers * kParts; i += kThreads) shared.table[i] = arguments.table[i];
  for (int i = threadIdx.x; i < kRows * kHeadDim; i += kThreads) {
    const long long at = positions[i / kHeadDim] * kHeadDim + i % kHeadDim;
    shared.cosines[i] = arguments.cosines[at], shared.sines[i] = arguments.sines[at];
  }
  if (threadIdx.x < kRows) {
    const long long* of = arguments.inputs + threadIdx.x;
    const int row = threadIdx.x;
    shared.is_slot[row] = of[kIsSlot * kRows] == 1, shared.starts[row] = static_cast<int>(of[kStart * kRows]);
    shared.places[row] = static_cast<int>(of[kPlace * kRows]), shared.memories[row] = of[kMemory * kRows];
    shared.capacities[row] = static_cast<int>(of[kCapacity * kRows]), shared.among[row] = of[kAmong * kRows];
    shared.tile_firsts[row] = static_cast<int>(of[kTileFirst * kRows]);
    shared.tile_ends[row] = static_cast<int>(of[kTileEnd * kRows]);
  }
  if (threadIdx.x == kRows) {
    int has_slots = 0;
#pragma unroll 8
    for (int row = 0; row < kRows; row++) has_slots |= arguments.inputs[kIsSlot * kRows + row] == 1;
    shared.has_slots = has_slots, shared.num_tiles = static_cast<int>(arguments.inputs[kNumTiles * kRows]);
  }
  for (int row = blockIdx.x; row < kRows; row += kBlocks) {
    const bool is_mask = kRank > 0 && ids[row] == arguments.mask_id;
    const bf16* from = is_mask ? arguments.mask_embedding : arguments.embedding + ids[row] * kHidden;
    for (int value = threadIdx.x * 4; value < kHidden; value += kThreads * 4) {
      *reinterpret_cast<uint2*>(arguments.stream + packed(row, value)) = load_weights8(from + value);
    }
  }
}

// The final norm of the rows, one a block at a time.
__device__ __forceinline__ void give_hidden(const Arguments& arguments, Shared& shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int row = blockIdx.x; row < kRows; row += kBlocks) {
    float square = 0.f;
    for (int value = threadIdx.x * 4; value < kHidden; value += kThreads * 4) {
      const uint2 v = load_shared_by_all8(arguments.stream + packed(row, value));
      const float a = low_bf16(v.x), b = high_bf16(v.x), c = low_bf16(v.y), d = high_bf16(v.y);
      square += a * a + b * b + c * c + d * d;
    }
    for (int other = 16; other > 0; other /= 2) square += __shfl_xor_sync(0xffffffffu, square, other);
    __syncthreads();
    if (lane == 0) shared.squares[warp * kPassRows] = square;
    __syncthreads();
    const float norm = norm_of(shared, 0, arguments.eps);
    for (int value = threadIdx.x * 4; value < kHidden; value += kThreads * 4) {
      const uint2 v = load_shared_by_all8(arguments.stream + packed(row, value));
      const uint2 scale = load_weights8(arguments.final_norm + value);
      const unsigned one = pack_bf16(low_bf16(v.x) * norm, high_bf16(v.x) * norm);
      const unsigned two = pack_bf16(low_bf16(v.y) * norm, high_bf16(v.y) * norm);
      *reinterpret_cast<uint2*>(arguments.hidden + row * kHidden + value) =
          make_uint2(pack_bf16(low_bf16(one) * low_bf16(scale.x), high_bf16(one) * high_bf16(scale.x)),
                     pack_bf16(low_bf16(two) * low_bf16(scale.y), high_bf16(two) * high_bf16(scale.y)));
    }
  }
}

// For measurements: when one block began a step, had asked for what it needs, was let through, and had done its part.
__device__ __forceinline__ void note_time(const Arguments& arguments, unsigned number, int place) {
#if TIMED
  if (blockIdx.x == TIMED - 1 && threadIdx.x == 0) arguments.clocks[number * 4 + place] = clock64();
#endif
}

__device__ __forceinline__ void multiply_step(const Arguments& arguments, Shared& shared, int kind, int layer,
                                              unsigned number) {
  const Share share = share_of(kind, threadIdx.x / 32);
  // What is not written on every path would hold its registers through all layers.
  Ahead ahead = {};
  begin_product(shared, share, layer, ahead);
  note_time(arguments, number, 1);
  wait(arguments, number);
  note_time(arguments, number, 2);
  run_product(arguments, shared, share, layer, ahead);
}

__device__ __forceinline__ void mix_step(const Arguments& arguments, Shared& shared, int layer, unsigned number) {
  Pieces pieces = {};
  const bool has_pieces = begin_attention(shared, layer, pieces);
  note_time(arguments, number, 1);
  wait(arguments, number);
  note_time(arguments, number, 2);
  if (has_pieces) attend(arguments, shared, layer, pieces);
}

extern "C" __global__ void __launch_bounds__(kThreads, 1) decoding_round(const __grid_constant__ Arguments arguments) {
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  take_inputs(arguments, shared);
  arrive(arguments);
  // Five steps a layer: attention is the second.
  unsigned number = 1;
#pragma unroll 1
  for (int layer = 0; layer < kLayers; layer++) {
#pragma unroll 1
    for (int step = 0; step < kProducts + 1; step++, number++) {
      note_time(arguments, number, 0);
      if (step == 1) {
        mix_step(arguments, shared, layer, number);
      } else {
        multiply_step(arguments, shared, step == 0 ? kQkv : step - 1, layer, number);
      }
      note_time(arguments, number, 3);
      arrive(arguments);
    }
  }
  note_time(arguments, number, 0);
  wait(arguments, number);
  give_hidden(arguments, shared);
#if FUSED_HEAD
  if (arguments.head == nullptr) return;
  arrive(arguments);
  wait(arguments, number + 1);
  choose(arguments, shared);
#endif
}
