// What the Python binding hands to the kernels: plain structures of 64-bit integers and pointers.
//
// Spikes are int8 units and currents float32, frame-major and channels last: index ((t * batch + b) * pixels + p) * C + c.
#pragma once

#include <cstdint>

#include "windows.h"

namespace snn {

constexpr int64_t kMostTerms = 8;

enum TermKind : int64_t { kConvolution = 0, kScaledSpikes = 1, kFrames = 2, kConstant = 3 };
enum Model : int64_t { kIf = 0, kTernary = 1, kTernaryLate = 2, kBurst = 3, kGraded = 4, kSigned = 5, kNone = 6 };

// One summand of a layer's current; summands are added in order, each addition rounded to float32.
struct Term {
    int64_t kind;
    const int8_t* spikes;  // convolution, scaled spikes
    // convolution: (groups, k_h * k_w * C_in/groups + 1, padded C_out/groups), last row zero; depthwise: (k_h * k_w, C)
    // scaled spikes: factor, (C) or (pixels, C); frames: (frames * batch, pixels, C); constant: (batch, pixels, C)
    const float* values;
    const float* bias;      // convolution: (groups, padded C_out/groups); depthwise: (C)
    int64_t factor_stride;  // scaled spikes: 0 or C
    int64_t in_h, in_w, in_c, k_h, k_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
    int64_t depthwise;  // one input and one output channel per group
    int64_t unit;       // every spike is 0 or 1
    // unit convolutions without groups whose weights are integers times a step per output, else null:
    const int16_t* integers;  // as values, but outputs padded to 32
    const float* steps;       // (2, C_out padded to 32): steps, biases
    // unit convolutions without groups, three columns wide, a stride of one or two and no dilation across: the weights,
    // integers where there are some, as (k_h, C_in, 3, padded C_out); else null
    const void* columns;
};

struct Layer {
    int64_t frames, batch, out_h, out_w, out_c;
    int64_t terms;
    const Term* term;
    int64_t model, levels, wait;
    const float* threshold;  // (C) or (pixels, C)
    int64_t threshold_stride;
    const float* initial;
    int64_t initial_stride;
    int8_t* spikes;   // output of a neuron
    float* current;   // output without a neuron (model kNone)
    int64_t* counts;  // (2, frames): spikes, units
    int64_t threads;
};

struct Pool {
    int64_t frames, batch, in_h, in_w, channels, out_h, out_w;
    int64_t k_h, k_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    const int8_t* spikes;
    int8_t* pooled;
    int64_t reach;  // no input sends more units than this in all, either way
    int64_t threads;
};

struct Kernels {
    // work item `item` of the layer or maximum pool (an image's row tile), of the sum pool (an image in one frame);
    // counts (2, frames) are added to
    void (*layer)(const Layer&, int64_t item, int64_t* counts);
    void (*max_pool)(const Pool&, int64_t item);
    void (*sum_pool)(const Pool&, int64_t item);
    // work item `item` of a layer with phase weights (an image's tile); counts are added to
    void (*windows)(const WindowLayer&, const WindowPlan&, int64_t item, int64_t* counts);
};

// rows of outputs in one work item
int64_t rows_per_tile(int64_t width, int64_t channels, int64_t height);
int64_t rows_per_tile(const Pool& pool);

extern const Kernels kPortable;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif

}  // namespace snn
