// Memory in huge pages: with pages of 4 KB, reading weights once and in order takes up to twice as long.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace unmask {

constexpr size_t kHugePage = size_t{2} << 20;

inline size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

// Weights of all models, in chunks that go back to the system when nothing in them is used any more.
class WeightMemory {
 public:
  static WeightMemory& instance() {
    static WeightMemory* memory = new WeightMemory;
    return *memory;
  }

  // `size` bytes of zeros; nullptr when there is no memory.
  void* take(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    size = round_up(size, kAlignment);
    if (chunks_.empty() || chunks_.back().used + size > chunks_.back().size) {
      if (!add_chunk(size > kChunk ? round_up(size, kHugePage) : kChunk)) return nullptr;
    }
    Chunk& chunk = chunks_.back();
    void* place = chunk.begin + chunk.used;
    chunk.used += size;
    ++chunk.users;
    return place;
  }

  void give_back(void* place) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < chunks_.size(); ++i) {
      Chunk& chunk = chunks_[i];
      if (place < chunk.begin || place >= chunk.begin + chunk.size) continue;
      if (--chunk.users == 0) {
        munmap(chunk.mapping, chunk.mapped);
        chunks_.erase(chunks_.begin() + static_cast<std::ptrdiff_t>(i));
      }
      return;
    }
  }

 private:
  static constexpr size_t kAlignment = 4096, kChunk = size_t{64} << 20;

  struct Chunk {
    void* mapping;
    size_t mapped;
    char* begin;
    size_t size, used;
    int users;
  };

  bool add_chunk(size_t size) {
    const size_t mapped = size + kHugePage;
    void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) return false;
    char* begin = reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(mapping), kHugePage));
    madvise(begin, size, MADV_HUGEPAGE);  // a wish: without it everything works, slower
    chunks_.push_back({mapping, mapped, begin, size, 0, 0});
    return true;
  }

  std::mutex mutex_;
  std::vector<Chunk> chunks_;
};

// Memory that a forward works in: it only grows, and what it holds means nothing to the next forward.
template <class T>
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }

  // At least `count` elements, 64-byte aligned.
  T* reserve(size_t count) {
    size_t bytes = round_up(count * sizeof(T) + 64, 64);
    if (bytes > bytes_) {
      std::free(data_);
      bytes_ = 0;
      const bool is_large = bytes >= kHugePage / 2;
      if (is_large) bytes = round_up(bytes, kHugePage);
      data_ = static_cast<T*>(std::aligned_alloc(is_large ? kHugePage : 64, bytes));
      if (data_ == nullptr) throw std::bad_alloc();
      if (is_large) madvise(data_, bytes, MADV_HUGEPAGE);
      bytes_ = bytes;
      std::fill_n(reinterpret_cast<char*>(data_), bytes, char{0});
    }
    return data_;
  }

  T* get() const { return data_; }
  size_t num_bytes() const { return bytes_; }

 private:
  T* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace unmask
