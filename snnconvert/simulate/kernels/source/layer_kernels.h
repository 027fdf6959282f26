// The kernels themselves, compiled once per instruction set (see layer_*.cpp); everything here has internal linkage.
//
// A work item is a tile of output rows of one image. It walks through time; in each frame the spikes that each output
// pixel sees are turned into a list of weight rows, whose sum is the current, which goes into the membrane at once.
// Sums of weights are exact in any order (weights are on a grid); all else follows the order of the torch path.

#include "layer_standard.h"
#include "layer_vectors.h"
#include "layer_decode.h"
#include "layer_convolve.h"
#include "layer_neurons.h"
#include "layer_pools.h"

namespace snn {
namespace {

// (C) or (pixels, C) spread over the tile's pixels
inline void spread(const float* from, int64_t stride, int64_t first, int64_t pixels, int64_t channels, float* to) {
    for (int64_t p = 0; p < pixels; p++)
        std::memcpy(to + p * channels, from + (stride ? (first + p) * stride : 0),
                    sizeof(float) * static_cast<size_t>(channels));
}

// What a work item knows of one term.
struct Prepared {
    const Term* term;
    Geometry geometry;
    float* factor;
};

// current <- term, or current + term
inline void add_term(const Layer& layer, const Prepared& prepared, const Tile& tile, int64_t frame, bool first,
                     Scratch& scratch, float* current) {
    const Term& term = *prepared.term;
    const int64_t n = tile.elements;
    if (term.kind == kConvolution) {
        float* to = first ? current : scratch.other;
        convolve(layer, term, prepared.geometry, tile, frame, scratch, to);
        if (!first)
            for (int64_t i = 0; i < n; i++) current[i] += to[i];
        return;
    }
    if (term.kind == kScaledSpikes) {
        const int8_t* spikes = term.spikes + tile.at(layer, frame);
        if (frame + 1 < layer.frames)
            for (int64_t i = 0; i < n; i += 64) __builtin_prefetch(term.spikes + tile.at(layer, frame + 1) + i);
        const float* factor = prepared.factor;
        if (first)
            for (int64_t i = 0; i < n; i++) current[i] = static_cast<float>(spikes[i]) * factor[i];
        else
            for (int64_t i = 0; i < n; i++) current[i] += static_cast<float>(spikes[i]) * factor[i];
        return;
    }
    const float* from = term.values + tile.at(layer, term.kind == kFrames ? frame : 0);
    if (first)
        for (int64_t i = 0; i < n; i++) current[i] = from[i];
    else
        for (int64_t i = 0; i < n; i++) current[i] += from[i];
}

void run_layer(const Layer& layer, int64_t item, int64_t* counts) {
    const Tile tile(layer, item);
    const int64_t n = tile.elements, pixels = (tile.bottom - tile.top) * layer.out_w;
    Prepared prepared[kMostTerms];
    int64_t reach = 0, extra = 0;
    for (int64_t k = 0; k < layer.terms; k++) {
        const Term& term = layer.term[k];
        prepared[k].term = &term;
        prepared[k].factor = nullptr;
        if (term.kind == kScaledSpikes) extra += n;
        if (term.kind != kConvolution) continue;
        prepared[k].geometry = Geometry(term, layer.out_c);
        reach = larger(reach, prepared[k].geometry.weight_rows);
        extra += prepared[k].geometry.table_size(term);
    }
    Scratch scratch(n, reach, extra);
    const auto spread = [&](const float* from, int64_t stride, float* to) {
        for (int64_t p = 0; p < pixels; p++)
            std::memcpy(to + p * layer.out_c, from + (stride ? (tile.top * layer.out_w + p) * stride : 0),
                        sizeof(float) * static_cast<size_t>(layer.out_c));
    };
    spread(layer.initial, layer.initial_stride, scratch.v);
    spread(layer.threshold, layer.threshold_stride, scratch.threshold);
    std::memset(scratch.sent, 0, sizeof(float) * static_cast<size_t>(n));
    float* free = scratch.extras;
    for (int64_t k = 0; k < layer.terms; k++) {
        const Term& term = layer.term[k];
        if (term.kind == kScaledSpikes) {
            prepared[k].factor = free;
            spread(term.values, term.factor_stride, free);
            free += n;
        } else if (term.kind == kConvolution && prepared[k].geometry.tabled) {
            prepared[k].geometry.fill(term, free);
            free += prepared[k].geometry.table_size(term);
        }
    }
    for (int64_t step = 0; step < layer.frames + layer.wait; step++) {
        if (step < layer.frames) {
            float* current = layer.model == kNone ? layer.current + tile.at(layer, step) : scratch.current;
            for (int64_t k = 0; k < layer.terms; k++)
                add_term(layer, prepared[k], tile, step, k == 0, scratch, current);
            if (layer.model == kNone) continue;
            for (int64_t i = 0; i < n; i++) scratch.v[i] += current[i];
        }
        if (step < layer.wait || layer.model == kNone) continue;
        const int64_t frame = step - layer.wait;
        if (frame + 1 < layer.frames)
            for (int64_t i = 0; i < n; i += 64) __builtin_prefetch(layer.spikes + tile.at(layer, frame + 1) + i, 1);
        fire(layer, scratch, n, layer.spikes + tile.at(layer, frame), counts + frame);
    }
}

}  // namespace

const Kernels SNN_KERNELS = {run_layer, run_max_pool, run_sum_pool};

}  // namespace snn
