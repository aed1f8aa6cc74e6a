// What the files of the C interface share. Their functions return 0, or 1 where memory ran out.
#pragma once

#include <cstring>
#include <new>

#include "projection.h"

#define CLOSEUP_API extern "C" __attribute__((visibility("default")))

namespace closeup {

template <class Work>
int guarded(Work work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

inline Camera camera_from(const float* values) {
    Camera camera;
    memcpy(&camera, values, sizeof camera);
    return camera;
}

}  // namespace closeup
