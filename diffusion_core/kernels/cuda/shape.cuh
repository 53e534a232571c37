// The shape of one model and of one round, and where everything is. All sizes are constants of the compilation.
//
// Shape letters: R rows of the round, D hidden size, I inner size, H heads, K key-value heads, Dh head size.

#pragma once

typedef unsigned long long u64;
typedef unsigned short bf16;

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kRows = ROWS, kHidden = HIDDEN, kInner = INNER, kHeads = HEADS, kKvHeads = KV_HEADS;
constexpr int kHeadDim = HEAD_DIM, kLayers = LAYERS, kRank = RANK, kBlocks = BLOCKS, kSlices = SLICES;
constexpr int kGroup = kHeads / kKvHeads;  // query heads that share keys
// Query rows of one key-value head, and room for the last tile of 16.
constexpr int kQueryRows = kRows * kGroup + 16;
// Rows that are worked on at a time: their parts of a product stay in registers.
constexpr int kPassRows = kRows < 32 ? kRows : 32, kPasses = kRows / kPassRows;
constexpr int kColumns = kPassRows / 8;  // tiles of 8 rows; in a product rows are the columns of a tile
constexpr int kRankTiles = kRank / 16;

static_assert(kRows % 16 == 0 && kRows <= 64, "rows come in tiles of 16");
static_assert(kHidden % 16 == 0 && kInner % 16 == 0 && kRank % 16 == 0, "sums come in steps of 16");
static_assert(kHeadDim == 64 || kHeadDim == 128, "values of a head are read eight by eight lanes");

__device__ constexpr int divide_up(int a, int b) { return (a + b - 1) / b; }
__device__ constexpr int least(int a, int b) { return a < b ? a : b; }
__device__ constexpr int most(int a, int b) { return a > b ? a : b; }

// A layer's four products: `tiles` of 16 results, sums of `steps` times 16 values, shared by `slices` blocks. The sums
// of the first and third are of normalised rows; the norms' weights are in the matrices.
enum ProductKind { kQkv, kOut, kGateUp, kDown, kProducts };

struct Plan {
  int tiles, steps, slices;

  __device__ constexpr int own_tiles() const { return divide_up(tiles, kBlocks / slices); }  // of a block, at most
  __device__ constexpr int most_steps() const { return divide_up(divide_up(steps, slices), kWarps); }  // of a warp
  __device__ constexpr int least_steps() const { return steps / slices / kWarps; }
};

__device__ constexpr Plan plan_of(int kind) {
  return kind == kQkv      ? Plan{(kHeads + 2 * kKvHeads) * kHeadDim / 16, kHidden / 16, 1}
         : kind == kOut    ? Plan{kHidden / 16, kHeads * kHeadDim / 16, 1}
         : kind == kGateUp ? Plan{kInner / 8, kHidden / 16, 1}
                           : Plan{kHidden / 16, kInner / 16, kSlices};
}

template <class Of>
__device__ constexpr int over_products(int (*join)(int, int), Of of) {
  return join(join(of(plan_of(kQkv)), of(plan_of(kOut))), join(of(plan_of(kGateUp)), of(plan_of(kDown))));
}

__device__ constexpr int own_tiles_of(Plan plan) { return plan.own_tiles(); }
__device__ constexpr int most_steps_of(Plan plan) { return plan.most_steps(); }
__device__ constexpr int least_steps_of(Plan plan) { return plan.least_steps(); }

constexpr int kMostSteps = over_products(most, most_steps_of), kLeastSteps = over_products(least, least_steps_of);
constexpr int kMostOwn = over_products(most, own_tiles_of);
constexpr int kTogether = least(kMostOwn, TILES_TOGETHER);   // tiles of a block before their parts are summed
constexpr int kUnits = (kTogether + kRankTiles) * kColumns;  // parts of a warp, 512 bytes each
constexpr int kDownUnits = (plan_of(kDown).own_tiles() + kRankTiles) * kColumns;
// Counters: the grid's barrier, one for each group of slices, the head's.
constexpr int kCounters = 2 + kBlocks / kSlices;

// A layer's part of the table of addresses: for each product the matrix, the adapter's way down and its way up; then
// the bias of the first.
constexpr int kBias = 3 * kProducts, kParts = kBias + 1;

// What a round is given, `kRows` numbers each. A row belongs to a sequence with `kStart` committed positions (below 0:
// to none), is the `kPlace`th of its rows, and sees those of them that `kAmong` has a bit for. Keys and values of a
// sequence are at address `kMemory`, [2 layers, K, `kCapacity`, Dh]. A tile of attention begins at query row
// `kTileFirst` and has 16 of them, up to where its sequence's end, at `kTileEnd`.
enum Input { kIds, kPositions, kStart, kMemory, kCapacity, kIsSlot, kPlace, kAmong, kTileFirst, kTileEnd, kNumTiles };

struct Arguments {
  const u64* table;            // [layers, kParts]
  const bf16* embedding;       // [V, D]
  const bf16* mask_embedding;  // [D]
  const bf16* final_norm;      // [D]
  const bf16* cosines;         // [positions, Dh]
  const bf16* sines;           // [positions, Dh]
  const long long* inputs;     // [kNumTiles, R], and the number of tiles
  bf16* stream;                // the residual stream, packed
  bf16* queries;               // [K, kQueryRows, Dh]
  bf16* attended;              // packed, H * Dh values a row
  bf16* inner;                 // packed, I values a row
  float4* parts;               // parts of sums over slices of the last product
  bf16* hidden;                // [R, D], the result
  unsigned* counters;          // [kCounters], 0 when the round begins
  const bf16* head;            // [tokens, D]; null where no best tokens are wanted
  u64* ranks;                  // [R], 0 when the round begins
  long long* best;             // [R], the result
  long long* clocks;           // [steps + 2, 4], where the time is wanted: see `note_time`
  long long mask_id;
  int num_tokens;
  float eps;
  float adapter_scale;
  float attention_scale;
};

// What the warps of a block found for 16 query rows of attention; the padding keeps rows in different banks.
struct Mixed {
  float values[kWarps][16][kHeadDim + 4], most[kWarps][16], total[kWarps][16];
};

// A block's own memory.
struct Shared {
  union {
    float4 parts[kUnits * kWarps * 32];
    Mixed mixed;
    bf16 hidden[FUSED_HEAD ? kRows : 1][kHidden + 32];  // the padding keeps a warp's reads in different banks
  };
  uint4 ups[most(1, kMostOwn * kRankTiles * 32)];  // the adapter's way up of the block's tiles
  uint2 low[most(1, kRankTiles * kColumns * 32)];  // and what its way down gave
  u64 table[kLayers * kParts];
  u64 among[kRows], memories[kRows];
  bf16 cosines[kRows * kHeadDim], sines[kRows * kHeadDim];
  float squares[kWarps * kPassRows];
  int is_slot[kRows], starts[kRows], places[kRows], capacities[kRows], tile_firsts[kRows], tile_ends[kRows];
  int num_tiles, has_slots, is_last;
};

static_assert(sizeof(Shared) == SHARED_BYTES, "kernel_shape.py counts otherwise");

// A row's values as the products read them: for 16 values and 16 rows 512 bytes, in the order of a warp's lanes.
__device__ __forceinline__ int packed(int row, int value) {
  const int tile = (value >> 4) * (kRows / 16) + (row >> 4);
  return (tile * 32 + (row & 7) * 4 + ((value & 15) >> 2)) * 8 + ((row >> 3) & 1) * 4 + (value & 3);
}

__device__ __forceinline__ float as_float(bf16 value) { return low_bf16(value); }
__device__ __forceinline__ bf16 as_bf16(float value) { return static_cast<bf16>(pack_bf16(value, 0.f)); }
__device__ __forceinline__ float rounded(float value) { return low_bf16(pack_bf16(value, 0.f)); }
