// What an OpenMP region needs so that running out of memory inside it is an error and not the end of the process.
#pragma once

#include <atomic>
#include <new>

namespace closeup {

// No exception may leave a thread of an OpenMP region. This one keeps what happened and throws it again behind the region.
class MemoryGuard {
  public:
    template <class Work>
    void run(Work work) {
        try {
            work();
        } catch (const std::bad_alloc&) {
            failed_.store(true, std::memory_order_relaxed);
        }
    }
    void rethrow() const {
        if (failed_.load(std::memory_order_relaxed)) throw std::bad_alloc();
    }

  private:
    std::atomic<bool> failed_{false};
};

}  // namespace closeup
