#pragma once

#include <memory>
#include <utility>
#include <vector>

namespace closeup {

// A vector that leaves new elements uninitialised: every element is written before it is read.
template <class T>
struct UninitializedAllocator : std::allocator<T> {
    template <class U>
    struct rebind { using other = UninitializedAllocator<U>; };
    template <class U>
    void construct(U* p) { ::new (static_cast<void*>(p)) U; }
    template <class U, class... Args>
    void construct(U* p, Args&&... args) { ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...); }
};
template <class T>
using Buffer = std::vector<T, UninitializedAllocator<T>>;

}  // namespace closeup
