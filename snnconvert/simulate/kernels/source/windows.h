// Layers of neurons with phase weights, as the Python binding hands them over: plain structures.
//
// Values lie frame-major and channels last: index ((frame * batch + b) * pixels + p) * channels + c.
#pragma once

#include <cstdint>

namespace snn {

enum WindowTermKind : int64_t { kFloats = 0, kDoubles = 1, kScaledUnits = 2 };
enum Residual : int64_t { kKeep = 0, kClear = 1, kClamp = 2 };

// One summand of the current; summands are added in order, each addition rounded to float64.
struct WindowTerm {
    int64_t kind;
    const void* values;     // float, or double (kDoubles); scaled units are whole numbers as float
    const double* factor;   // scaled units: (C) or (pixels, C)
    int64_t factor_stride;  // 0 or C
    double grid;            // round to multiples of this power of two; 0: as it is
    const int64_t* at;      // (frames): which frame of `values` arrives, or -1 for none
};

struct WindowLayer {
    int64_t frames, batch, pixels, channels;
    int64_t terms;
    const WindowTerm* term;
    int64_t negative, levels, residual;
    int64_t window, uniform;  // phases of a window; whether every spike carries one unit
    const double* threshold;  // (C) or (pixels, C)
    int64_t threshold_stride;
    const double* initial;
    int64_t initial_stride;
    // null: every frame is a window, whose units are sent at its end; else (frames) units that a spike carries in
    // each step, 0 where neurons only integrate
    const double* weight;
    const int64_t* send_at;  // (frames): which frame of `units` this is, or -1 where nothing is sent
    float* units;
    int64_t* counts;  // spikes in each step: (frames, window) for windows, else (frames)
    int64_t threads;
};

// What all work items share: parameters as rows that cover a tile, and how counts are kept.
struct WindowPlan {
    int64_t tile_pixels;
    const double* threshold;   // covers a tile, or all pixels where they differ
    const double* reciprocal;  // of the threshold
    const double* initial;
    const double* const* factor;  // per term
    int64_t counters;             // per frame; windows: phases if `by_bit`, else how often each code was sent
    bool by_bit;
};

}  // namespace snn
