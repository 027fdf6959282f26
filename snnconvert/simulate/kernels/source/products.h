// What the least squares of depthwise operators read.
#pragma once

#include <cstdint>

namespace snn {

// Sums over rows, channel by channel, of the products of what a depthwise kernel reads there: its taps and a one.
struct Products {
    int64_t batch, pixels, channels, positions, taps;
    const float* values;  // (batch, pixels, C)
    const int64_t* read;  // (positions, taps), pixels; -1 is a zero
    const float* wanted;  // (batch, positions, C)
    double* pairs;        // ((taps + 1) * (taps + 2) / 2, C), of the taps and the one with those before and themselves;
                          // added to, or null
    double* cross;        // (taps + 1, C), of the same with what is wanted; added to
    int64_t threads;

    static constexpr int64_t kLanes = 16, kAtOnce = 4, kBlock = 1024;  // rows that are added up in single precision

    int64_t terms() const { return taps + 1; }
    int64_t sums() const { return terms() * (terms() + 1) / 2 + terms(); }
    int64_t floats() const { return (sums() + kAtOnce * (terms() + 1)) * kLanes; }
};

}  // namespace snn
