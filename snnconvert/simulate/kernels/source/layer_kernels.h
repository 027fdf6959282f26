// The kernels themselves, compiled once per instruction set (see layer_*.cpp); everything here has internal linkage.
//
// A work item is a tile of output rows of one image. It walks through time; in each frame the spikes that each output
// pixel sees are turned into a list of weight rows, whose sum is the current, which goes into the membrane at once.
// Sums of weights are exact in any order (weights are on a grid); all else follows the order of the torch path.

#include "layer_standard.h"
#include "layer_vectors.h"
#include "layer_decode.h"
#include "layer_window.h"
#include "layer_sinks.h"
#include "layer_integers.h"
#include "layer_tables.h"
#include "layer_lists.h"
#include "layer_sums.h"
#include "layer_columns.h"
#include "layer_pointwise.h"
#include "layer_convolve.h"
#include "layer_neurons.h"
#include "layer_pools.h"
#include "window_neurons.h"

namespace snn {
namespace {

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
        if (first) {
            StoreTo sink{current};
            return convolve(layer, term, prepared.geometry, tile, frame, scratch, sink);
        }
        AddTo sink{current};
        return convolve(layer, term, prepared.geometry, tile, frame, scratch, sink);
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

// The convolution whose sums go into the neurons while they are in registers, or -1. It has to be the last summand; of
// two the order does not matter.
inline int64_t fused_term(const Layer& layer) {
#if defined(SNN_AVX512)
    if (layer.model != kIf || layer.wait != 0 || layer.out_c % 16 != 0) return -1;
    for (int64_t k = layer.terms - 1; k >= 0; k--) {
        const Term& term = layer.term[k];
        const bool whole = term.groups == 1 || term.depthwise;
        if (term.kind == kConvolution && whole && (k == layer.terms - 1 || layer.terms == 2)) return k;
    }
#else
    (void)layer;
#endif
    return -1;
}

#if defined(SNN_AVX512)
// Integrate-and-fire neurons whose current lies in memory, n of them, a multiple of 16; returns how many fire.
SNN_APART int64_t fire_from(const float* current, const float* threshold, int64_t n, float* v, int8_t* out) {
    const __m128i one = _mm_set1_epi8(1);
    const __m512i count = _mm512_set1_epi32(1);
    __m512i fired = _mm512_setzero_si512();
    for (int64_t at = 0; at < n; at += 16) {
        const __m512 membrane = _mm512_add_ps(_mm512_loadu_ps(v + at), _mm512_loadu_ps(current + at));
        const __m512 limit = _mm512_loadu_ps(threshold + at);
        const __mmask16 fires = _mm512_cmp_ps_mask(membrane, limit, _CMP_GE_OQ);
        _mm512_storeu_ps(v + at, _mm512_mask_sub_ps(membrane, fires, membrane, limit));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + at), _mm_maskz_mov_epi8(fires, one));
        fired = _mm512_mask_add_epi32(fired, fires, fired, count);
    }
    return _mm512_reduce_add_epi32(fired);
}
#endif

void run_layer(const Layer& layer, int64_t item, int64_t* counts) {
    const Tile tile(layer, item);
    const int64_t n = tile.elements, pixels = (tile.bottom - tile.top) * layer.out_w, fused = fused_term(layer);
    const int64_t scaled = fused >= 0 && layer.terms == 2 && layer.term[1 - fused].kind == kScaledSpikes ? 1 - fused : -1;
#if defined(SNN_AVX512)
    const bool in_memory = layer.model == kIf && layer.wait == 0 && n % 16 == 0 && layer.terms == 1 &&
                           (layer.term[0].kind == kFrames || layer.term[0].kind == kConstant);
#endif
    Prepared prepared[kMostTerms];
    int64_t reach = 0, extra = 0;
    for (int64_t k = 0; k < layer.terms; k++) {
        const Term& term = layer.term[k];
        prepared[k].term = &term;
        prepared[k].factor = nullptr;
        if (term.kind == kScaledSpikes) extra += (n + 15) / 16 * 16;
        if (term.kind != kConvolution) continue;
        prepared[k].geometry = Geometry(layer, term, tile.top, tile.bottom);
        reach = larger(reach, prepared[k].geometry.weight_rows);
        extra += prepared[k].geometry.room(term);
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
            free += (n + 15) / 16 * 16;
        } else if (term.kind == kConvolution) {
            prepared[k].geometry.prepare(term, free);
            free += prepared[k].geometry.room(term);
        }
    }
    for (int64_t step = 0; step < layer.frames + layer.wait; step++) {
        const int64_t frame = step - layer.wait;
        int8_t* out = layer.model == kNone || frame < 0 ? nullptr : layer.spikes + tile.at(layer, frame);
        if (out != nullptr && frame + 1 < layer.frames)
            for (int64_t i = 0; i < n; i += 64) __builtin_prefetch(layer.spikes + tile.at(layer, frame + 1) + i, 1);
        if (step < layer.frames) {
#if defined(SNN_AVX512)
            if (in_memory) {
                const Term& term = layer.term[0];
                const float* from = term.values + tile.at(layer, term.kind == kFrames ? step : 0);
                const int64_t fired = fire_from(from, scratch.threshold, n, scratch.v, out);
                counts[frame] += fired;
                counts[layer.frames + frame] += fired;
                continue;
            }
#endif
            float* current = layer.model == kNone ? layer.current + tile.at(layer, step) : scratch.current;
            bool first = true;
            for (int64_t k = 0; k < layer.terms; k++) {
                if (k == fused || k == scaled) continue;
                add_term(layer, prepared[k], tile, step, first, scratch, current);
                first = false;
            }
            if (layer.model == kNone) continue;
#if defined(SNN_AVX512)
            if (fused >= 0) {
                const bool by_channel = layer.threshold_stride == 0;
                FireInto sink{scratch.v, by_channel ? layer.threshold : scratch.threshold, by_channel,
                              first ? nullptr : current, nullptr, nullptr, false, out, _mm512_setzero_si512()};
                if (scaled >= 0) {
                    const Term& other = layer.term[scaled];
                    sink.scaled = other.spikes + tile.at(layer, step);
                    sink.factor_by_channel = other.factor_stride == 0;
                    sink.factor = sink.factor_by_channel ? other.values : prepared[scaled].factor;
                    if (step + 1 < layer.frames)
                        for (int64_t i = 0; i < n; i += 64)
                            __builtin_prefetch(other.spikes + tile.at(layer, step + 1) + i);
                }
                convolve(layer, *prepared[fused].term, prepared[fused].geometry, tile, step, scratch, sink);
                const int64_t fired = _mm512_reduce_add_epi32(sink.fired);
                counts[frame] += fired;
                counts[layer.frames + frame] += fired;
                continue;
            }
#endif
            for (int64_t i = 0; i < n; i++) scratch.v[i] += current[i];
        }
        if (out != nullptr) fire(layer, scratch, n, out, counts + frame);
    }
}

}  // namespace

const Kernels SNN_KERNELS = {run_layer, run_max_pool, run_sum_pool, run_windows};

}  // namespace snn
