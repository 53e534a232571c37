// The threads that compute a forward: the caller and helpers that wait for it.
//
// A forward is a few hundred phases of some ten microseconds. Whoever is done with a phase spins for a moment before it
// sleeps, so that a phase costs no system call; behind a forward helpers fall asleep, and an idle engine costs nothing.
#pragma once

#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

namespace unmask {

class Team {
 public:
  static constexpr int kMaxThreads = 64;

  static Team& instance() {
    static Team* team = new Team;  // never destroyed: helpers may outlive everything else
    return *team;
  }

  int size() const { return size_; }

  // Runs job(worker) in `threads` threads, this one among them as worker 0; one call at a time.
  template <class Job>
  void run(int threads, Job&& job) {
    std::lock_guard<std::mutex> lock(mutex_);
    start_helpers(std::clamp(threads, 1, kMaxThreads));
    count_anew();
    arrived_.store(0, std::memory_order_relaxed);
    finished_.store(0, std::memory_order_relaxed);
    context_ = &job;
    call_ = [](void* context, int worker) { (*static_cast<std::remove_reference_t<Job>*>(context))(worker); };
    if (size_ > 1) {
      // The number of threads travels in the word that wakes them: a helper never reads another run's.
      const uint32_t turn = (order_.load(std::memory_order_relaxed) & ~0xffu) + 0x100u;
      order_.store(turn | static_cast<uint32_t>(size_), std::memory_order_release);
      order_.notify_all();
    }
    job(0);
    for (int seen; (seen = finished_.load(std::memory_order_acquire)) != size_ - 1;) wait(finished_, seen);
  }

  // The next piece of work of this phase, counted from 0; pieces are few enough that one counter serves all threads.
  int next() { return unit_.fetch_add(1, std::memory_order_relaxed); }

  // As next(), of `worker`'s own share; for shares that each worker takes from in order.
  int next_of(int worker) { return shares_[worker].taken.fetch_add(1, std::memory_order_relaxed); }

  // Returns when all threads are here; pieces are counted anew.
  void barrier() {
    const uint32_t phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      count_anew();
      phase_.store(phase + 1, std::memory_order_release);
      if (size_ > 1) phase_.notify_all();
      return;
    }
    while (phase_.load(std::memory_order_acquire) == phase) wait(phase_, phase);
  }

 private:
  static constexpr uint64_t kSpinCycles = 1'000'000;  // about 0.4 ms

  // Returns when `word` is no longer `old`, or for no reason.
  template <class T>
  static void wait(std::atomic<T>& word, T old) {
    const uint64_t begin = __rdtsc();
    while (word.load(std::memory_order_acquire) == old) {
      if (__rdtsc() - begin > kSpinCycles) {
        word.wait(old, std::memory_order_acquire);
        return;
      }
      _mm_pause();
    }
  }

  void count_anew() {
    unit_.store(0, std::memory_order_relaxed);
    for (int i = 0; i < size_; ++i) shares_[i].taken.store(0, std::memory_order_relaxed);
  }

  void start_helpers(int threads) {
    if (owner_ != getpid()) {  // a forked child has no threads but the one that forked
      owner_ = getpid();
      helpers_ = 0;
    }
    for (; helpers_ < threads - 1; ++helpers_)
      std::thread(&Team::help, this, helpers_ + 1, order_.load(std::memory_order_relaxed)).detach();
    size_ = threads;
  }

  void help(int worker, uint32_t done) {
    for (;;) {
      for (uint32_t seen; (seen = order_.load(std::memory_order_acquire)) == done;) wait(order_, seen);
      done = order_.load(std::memory_order_acquire);
      if (worker >= static_cast<int>(done & 0xffu)) continue;
      call_(context_, worker);
      finished_.fetch_add(1, std::memory_order_acq_rel);
      finished_.notify_one();
    }
  }

  struct alignas(64) Share {
    std::atomic<int> taken{0};
  };

  std::mutex mutex_;
  pid_t owner_ = getpid();
  int helpers_ = 0;
  int size_ = 1;
  void* context_ = nullptr;
  void (*call_)(void*, int) = nullptr;
  alignas(64) std::atomic<uint32_t> order_{0};
  alignas(64) std::atomic<int> unit_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> phase_{0};
  alignas(64) std::atomic<int> finished_{0};
  Share shares_[kMaxThreads];
};

}  // namespace unmask
