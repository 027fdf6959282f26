// What the Python binding hands to the kernels: plain structures of 64-bit integers and pointers.
//
// Frame-major and channels last: index ((t * batch + b) * pixels + p) * C + c. Currents are float32. Spikes are int8 units,
// or bits in one or two planes: a pixel has (C + 7) / 8 bytes for the channels that send 1, the lowest bit first, those
// beyond C zero; and, with two planes, as many for the channels that send -1. Of bits the kernels may read up to kSlack bytes
// beyond the end.
#pragma once

#include <cstdint>

#include "products.h"
#include "trials.h"
#include "windows.h"

namespace snn {

constexpr int64_t kMostTerms = 8;
constexpr int64_t kSlack = 64;  // decoders and vector stores may write, and readers of bits read, so many elements too far


// bytes that so many bits take
constexpr int64_t bytes_for(int64_t bits) { return (bits + 7) / 8; }

enum TermKind : int64_t { kConvolution = 0, kScaledSpikes = 1, kFrames = 2, kConstant = 3, kShifted = 4 };
enum Model : int64_t { kIf = 0, kTernary = 1, kTernaryLate = 2, kBurst = 3, kGraded = 4, kSigned = 5, kNone = 6 };

// One summand of a layer's current; summands are added in order, each addition rounded to float32.
struct Term {
    int64_t kind;
    const int8_t* spikes;  // convolution, scaled spikes: units, or bits
    // convolution: (groups, k_h * k_w * C_in/groups + 1, padded C_out/groups), last row zero; depthwise: (k_h * k_w, C)
    // scaled spikes: factor, (C) or (pixels, C); frames, and shifted, of float or double: (frames * batch, pixels, C);
    // constant: (batch, pixels, C)
    const float* values;
    const float* bias;      // convolution: (groups, padded C_out/groups); depthwise: (C)
    int64_t factor_stride;  // scaled spikes, shifted: 0 or C
    int64_t in_h, in_w, in_c, k_h, k_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups;
    int64_t depthwise;  // one input and one output channel per group
    int64_t planes;     // of bits, 0 for units; a convolution that is not depthwise takes each plane as channels of its own
    int64_t tables;     // convolutions of bits without groups: sums may be looked up (see layer_tables.h)
    // convolutions of bits without groups whose weights are integers times a step per output, else null:
    const int16_t* integers;  // as values, but outputs padded to 32
    const float* steps;       // (2, C_out padded to 32): steps, biases
    // convolutions of bits without groups, three columns wide, a stride of one or two and no dilation across: the weights,
    // integers where there are some, as (k_h, C_in, 3, padded C_out); else null
    const void* columns;
    // shifted: values * scale + shift, both (C) or (pixels, C), in their type and then rounded to float32
    const void *scale, *shift;
    int64_t double_values, double_scale;  // shifted: what is double
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
    int8_t* spikes;   // output of a neuron: bits where a frame has at most one unit (two planes where it may be -1), else units
    float* current;   // output without a neuron (model kNone)
    int64_t* counts;  // (2, frames): spikes, units
    int64_t threads;
};

struct Pool {
    int64_t frames, batch, in_h, in_w, channels, out_h, out_w;
    int64_t k_h, k_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    const int8_t* spikes;  // units, or bits
    void* pooled;          // maximum: as the spikes; sum: int8, or float of windows of more than 127 pixels
    int64_t planes;        // of bits, 0 for units
    int64_t reach;         // no input sends more units than this in all, either way
    int64_t threads;
};

// Pixels as units (pixels, channels) and as bits (pixels, planes, (channels + 7) / 8): of units of 0, 1 or -1; or, condensed
// only, a plane for each of `magnitudes` bits of what is above zero and, with twice as many planes, of what is below.
struct Bits {
    int64_t pixels, channels, planes, magnitudes;
    int8_t* units;
    uint8_t* bits;
    int64_t threads;
};

// Parts of pixels added up, each channel of a part times its own factor, one part after the other.
struct Parts {
    int64_t pixels, parts, channels;
    const int8_t* units;   // (pixels, parts, C)
    const float* factors;  // (parts, C)
    float* sums;           // (pixels, C)
    int64_t threads;
};

// How a layer is cut into work items: blocks of output channels, images, tiles of output rows.
struct Plan {
    int64_t rows, tiles;          // rows of a tile, tiles of an image
    int64_t blocks, block;        // blocks, and channels of one
    bool tabled;                  // sums of all convolutions are looked up
    bool pairs;                   // in tables of two neighbouring pixels
    int64_t table_bytes;          // then the tables of one block, of all terms

    explicit Plan(const Layer& layer);
    int64_t items(const Layer& layer) const { return blocks * layer.batch * tiles; }
};

// Tables of sums by bytes of spikes (see layer_tables.h). A table has an entry more than there are bytes: entries of the
// same byte then do not share a line of the cache.
constexpr int64_t kVectorBytes = 64;
constexpr int64_t table_bytes_of(int64_t vectors) { return (256 + 1) * kVectorBytes * vectors; }
constexpr int64_t kernel_columns(const Term& term, bool pairs) { return term.k_w + (pairs ? term.stride_w : 0); }
constexpr int64_t tables_of(const Term& term, bool pairs) {
    return term.k_h * kernel_columns(term, pairs) * bytes_for(term.in_c);
}
// vectors of so many outputs, of two pixels of up to 16
constexpr int64_t vectors_of(const Term& term, int64_t outputs, bool pairs) {
    const int64_t lanes = term.integers != nullptr ? 32 : 16;
    return pairs ? 1 : (outputs + lanes - 1) / lanes;
}

// What a worker keeps from item to item: the tables of a block.
struct Workspace {
    char* tables = nullptr;
    int64_t block = -1;  // whose they are
};

struct Kernels {
    // work item `item` of the layer, the maximum pool (an image's row tile), the sum pool (an image in one frame);
    // counts (2, frames) are added to
    void (*layer)(const Layer&, const Plan&, int64_t item, Workspace&, int64_t* counts);
    void (*max_pool)(const Pool&, int64_t item);
    void (*sum_pool)(const Pool&, int64_t item);
    // pixels [first, last), to units or to bits
    void (*expand)(const Bits&, int64_t first, int64_t last);
    void (*condense)(const Bits&, int64_t first, int64_t last);
    // pixels [first, last)
    void (*parts)(const Parts&, int64_t first, int64_t last);
    // work item `item` of a layer with phase weights (an image's tile); counts are added to
    void (*windows)(const WindowLayer&, const WindowPlan&, int64_t item, int64_t* counts);
    // rows of work item `item` of neurons that are tried; `room` is the worker's, `sums` the item's
    void (*trials)(const Trials&, const TrialPlan&, const float* parameters, int64_t item, float* room, double* sums);
    // channels of work item `item` of a depthwise operator's sums of products; `room` holds floats() floats
    void (*products)(const Products&, int64_t item, float* room);
};

// rows of outputs in one work item
int64_t rows_per_tile(const Pool& pool);

extern const Kernels kPortable;
#if defined(__x86_64__)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#endif

}  // namespace snn
