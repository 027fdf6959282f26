// Neurons tried with several thresholds on the same currents, as the Python binding hands them over.
//
// Values lie frame-major and channels last: index ((frame * batch + b) * pixels + p) * channels + c.
#pragma once

#include <cstdint>

namespace snn {

struct Trials {
    int64_t frames, batch, pixels, channels;
    const float* current;
    int64_t constant;   // one frame, the same at all times
    const float* next;  // another current, shaped alike, towards which candidates move a share of the way; or null
    int64_t candidates;
    const float* threshold;  // (candidates, C)
    const float* initial;    // (candidates, C)
    const float* shift;      // (candidates, C), added to the current; or null
    const float* share;      // (candidates), towards `next`
    int64_t model, levels, wait;
    int64_t reads;
    const int64_t* read_at;  // (reads) numbers of frames after which the rate is looked at, ascending
    const float* target;     // (reads * batch, pixels, C)
    double* errors;          // (candidates, C): sums of (target - rate)^2
    double* lacking;         // (candidates, C): sums of target - rate
    float* rates;            // (reads * batch, pixels, C) of the last candidate; or null
    int64_t threads;
};

// How values are cut: an item's rows of whole pixels side by side, and blocks whose frames stay in the cache. It does not
// depend on the number of threads, so that sums are always taken in the same order.
struct TrialPlan {
    static constexpr int64_t kMostItems = 32, kLanes = 16;
    int64_t elements, width, padded, rows, each, items, block;

    explicit TrialPlan(const Trials& trials);
    int64_t parameters(const Trials& trials) const { return trials.candidates * padded; }
    // from frame to frame of a block: what is a power of two apart would share a line of the cache
    int64_t stride() const { return block + kLanes; }
    // floats of a worker: the frames of a block, twice
    int64_t floats(const Trials& trials) const { return 2 * trials.frames * stride(); }
    // sums of an item
    int64_t sums(const Trials& trials) const { return 2 * parameters(trials); }
};

}  // namespace snn
