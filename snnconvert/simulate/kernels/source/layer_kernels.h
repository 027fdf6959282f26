// The kernels themselves, compiled once per instruction set (see layer_*.cpp); everything here has internal linkage.
//
// A work item is a tile of output rows of one image. It walks through time; in each frame the spikes that each output
// pixel sees are turned into a list of weight rows, whose sum is the current, which goes into the membrane at once.
// Sums of weights are exact in any order (weights are on a grid); all else follows the order of the torch path.

#include "layer_standard.h"
#include "layer_decode.h"
#include "layer_neurons.h"
#include "layer_pools.h"

namespace snn {
namespace {

// 16 floats, in one, two or four registers
typedef float Vector __attribute__((vector_size(64), aligned(4), may_alias));
typedef int8_t Bytes __attribute__((vector_size(16), aligned(1), may_alias));
typedef int32_t Words __attribute__((vector_size(64), aligned(4), may_alias));

inline Vector load(const float* from) {
    Vector value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline void store(float* to, const Vector& value, int64_t valid) {
    if (valid >= 16) {
        std::memcpy(to, &value, sizeof value);
    } else {
        std::memcpy(to, &value, sizeof(float) * static_cast<size_t>(valid));
    }
}

// bias + sum of the listed weight rows, for N vectors of outputs
template <int N, bool Unit>
inline void gather(const Events& events, const float* weights, int64_t row, const float* bias, float* out,
                   int64_t valid) {
    constexpr int kChains = N >= 4 ? 1 : 4 / N;
    Vector sum[kChains][N];
    for (int n = 0; n < N; n++) {
        sum[0][n] = load(bias + 16 * n);
        for (int k = 1; k < kChains; k++) sum[k][n] = Vector{};
    }
    for (int64_t i = 0; i < events.count; i += kChains) {  // the list is padded with the zero row
        for (int k = 0; k < kChains; k++) {
            const float* from = weights + static_cast<int64_t>(events.rows[i + k]) * row;
            if (Unit) {
                for (int n = 0; n < N; n++) sum[k][n] += load(from + 16 * n);
            } else {
                const float value = static_cast<float>(events.values[i + k]);
                for (int n = 0; n < N; n++) sum[k][n] += load(from + 16 * n) * value;
            }
        }
    }
    for (int n = 0; n < N; n++) {
        for (int k = 1; k < kChains; k++) sum[0][n] += sum[k][n];
        if (valid > 16 * n) store(out + 16 * n, sum[0][n], valid - 16 * n);
    }
}

template <bool Unit>
inline void gather_all(const Events& events, const float* weights, int64_t row, const float* bias, float* out,
                       int64_t valid) {
    switch (row) {  // a stride known to the compiler
        case 16: return gather<1, Unit>(events, weights, 16, bias, out, valid);
        case 32: return gather<2, Unit>(events, weights, 32, bias, out, valid);
        case 64: return gather<4, Unit>(events, weights, 64, bias, out, valid);
    }
    int64_t done = 0;
#if defined(SNN_AVX512)
    for (; row - done >= 128; done += 128)
        gather<8, Unit>(events, weights + done, row, bias + done, out + done, valid - done);
#endif
    for (; row - done >= 64; done += 64)
        gather<4, Unit>(events, weights + done, row, bias + done, out + done, valid - done);
    if (row - done >= 32) {
        gather<2, Unit>(events, weights + done, row, bias + done, out + done, valid - done);
        done += 32;
    }
    if (row - done >= 16) gather<1, Unit>(events, weights + done, row, bias + done, out + done, valid - done);
}

// The part of the kernel that lies inside the input at one output position along one axis.
struct Window {
    int64_t first, last, origin;

    Window(int64_t out, int64_t stride, int64_t pad, int64_t kernel, int64_t dilation, int64_t size)
        : first(0), last(kernel), origin(out * stride - pad) {
        while (first < last && origin + first * dilation < 0) first++;
        while (first < last && origin + (last - 1) * dilation >= size) last--;
    }
};

template <bool Unit>
inline void convolve_pixel(const Term& term, const int8_t* image, const Window& rows, const Window& columns,
                           int64_t out_c, Scratch& scratch, float* out) {
    const int64_t inputs = term.in_c / term.groups, outputs = out_c / term.groups, padded = (outputs + 15) / 16 * 16;
    const int64_t weight_rows = term.k_h * term.k_w * inputs;
    const bool runs = term.groups == 1 && term.dilation_w == 1;
    for (int64_t group = 0; group < term.groups; group++) {
        Decoder<Unit> decoder(scratch);
        for (int64_t y = rows.first; y < rows.last; y++) {
            const int8_t* line = image + (rows.origin + y * term.dilation_h) * term.in_w * term.in_c + group * inputs;
            if (runs) {  // the window's pixels lie side by side
                decoder.add(line + (columns.origin + columns.first) * inputs, (columns.last - columns.first) * inputs,
                            (y * term.k_w + columns.first) * inputs);
                continue;
            }
            for (int64_t x = columns.first; x < columns.last; x++)
                decoder.add(line + (columns.origin + x * term.dilation_w) * term.in_c, inputs,
                            (y * term.k_w + x) * inputs);
        }
        const Events events = decoder.finish(weight_rows);
        gather_all<Unit>(events, term.values + group * (weight_rows + 1) * padded, padded, term.bias + group * padded,
                         out + group * outputs, outputs);
    }
}

inline void depthwise_pixel(const Term& term, const int8_t* image, const Window& rows, const Window& columns,
                            float* out) {
    const int64_t channels = term.in_c;
    int64_t c = 0;
    for (; c + 16 <= channels; c += 16) {
        Vector sum = load(term.bias + c);
        for (int64_t y = rows.first; y < rows.last; y++) {
            const int8_t* line = image + (rows.origin + y * term.dilation_h) * term.in_w * channels + c;
            for (int64_t x = columns.first; x < columns.last; x++) {
                Bytes spikes;
                std::memcpy(&spikes, line + (columns.origin + x * term.dilation_w) * channels, sizeof spikes);
                sum += load(term.values + (y * term.k_w + x) * channels + c) *
                       __builtin_convertvector(__builtin_convertvector(spikes, Words), Vector);
            }
        }
        store(out + c, sum, 16);
    }
    for (; c < channels; c++) {
        float sum = term.bias[c];
        for (int64_t y = rows.first; y < rows.last; y++)
            for (int64_t x = columns.first; x < columns.last; x++) {
                const int64_t at = (rows.origin + y * term.dilation_h) * term.in_w + columns.origin + x * term.dilation_w;
                sum += term.values[(y * term.k_w + x) * channels + c] * static_cast<float>(image[at * channels + c]);
            }
        out[c] = sum;
    }
}

inline void convolve(const Layer& layer, const Term& term, int64_t frame, int64_t image, int64_t top, int64_t bottom,
                     Scratch& scratch, float* out) {
    const int8_t* spikes = term.spikes + (frame * layer.batch + image) * term.in_h * term.in_w * term.in_c;
    for (int64_t y = top; y < bottom; y++) {
        const Window rows(y, term.stride_h, term.pad_h, term.k_h, term.dilation_h, term.in_h);
        for (int64_t x = 0; x < layer.out_w; x++, out += layer.out_c) {
            const Window columns(x, term.stride_w, term.pad_w, term.k_w, term.dilation_w, term.in_w);
            if (term.depthwise)
                depthwise_pixel(term, spikes, rows, columns, out);
            else if (term.unit)
                convolve_pixel<true>(term, spikes, rows, columns, layer.out_c, scratch, out);
            else
                convolve_pixel<false>(term, spikes, rows, columns, layer.out_c, scratch, out);
        }
    }
}

// (C) or (pixels, C) spread over the tile's pixels
inline void spread(const float* from, int64_t stride, int64_t first, int64_t pixels, int64_t channels, float* to) {
    for (int64_t p = 0; p < pixels; p++)
        std::memcpy(to + p * channels, from + (stride ? (first + p) * stride : 0),
                    sizeof(float) * static_cast<size_t>(channels));
}

// current <- term, or current + term
inline void add_term(const Layer& layer, const Term& term, int64_t frame, int64_t image, int64_t top, int64_t bottom,
                     bool first, const float* factor, Scratch& scratch, float* current) {
    const int64_t row = layer.out_w * layer.out_c, n = (bottom - top) * row, plane = layer.out_h * row;
    if (term.kind == kConvolution) {
        float* to = first ? current : scratch.extra;
        convolve(layer, term, frame, image, top, bottom, scratch, to);
        if (!first)
            for (int64_t i = 0; i < n; i++) current[i] += to[i];
        return;
    }
    if (term.kind == kScaledSpikes) {
        const int8_t* spikes = term.spikes + (frame * layer.batch + image) * plane + top * row;
        if (first)
            for (int64_t i = 0; i < n; i++) current[i] = static_cast<float>(spikes[i]) * factor[i];
        else
            for (int64_t i = 0; i < n; i++) current[i] += static_cast<float>(spikes[i]) * factor[i];
        return;
    }
    const int64_t at = term.kind == kFrames ? frame * layer.batch + image : image;
    const float* from = term.values + at * plane + top * row;
    if (first)
        for (int64_t i = 0; i < n; i++) current[i] = from[i];
    else
        for (int64_t i = 0; i < n; i++) current[i] += from[i];
}

void run_layer(const Layer& layer, int64_t item, int64_t* counts) {
    const int64_t tile = rows_per_tile(layer.out_w, layer.out_c, layer.out_h);
    const int64_t tiles = (layer.out_h + tile - 1) / tile, image = item / tiles;
    const int64_t top = item % tiles * tile, bottom = std::min(top + tile, layer.out_h);
    const int64_t pixels = (bottom - top) * layer.out_w, n = pixels * layer.out_c;
    const int64_t plane = layer.out_h * layer.out_w * layer.out_c, offset = top * layer.out_w * layer.out_c;
    int64_t reach = 0, scaled = 0;
    for (int64_t k = 0; k < layer.terms; k++) {
        const Term& term = layer.term[k];
        if (term.kind == kConvolution)
            reach = std::max(reach, term.k_h * term.k_w * term.in_c / term.groups);
        scaled += term.kind == kScaledSpikes;
    }
    Scratch scratch(n, reach, scaled);
    spread(layer.initial, layer.initial_stride, top * layer.out_w, pixels, layer.out_c, scratch.v);
    spread(layer.threshold, layer.threshold_stride, top * layer.out_w, pixels, layer.out_c, scratch.threshold);
    std::memset(scratch.sent, 0, sizeof(float) * static_cast<size_t>(n));
    scaled = 0;
    for (int64_t k = 0; k < layer.terms; k++)
        if (layer.term[k].kind == kScaledSpikes)
            spread(layer.term[k].values, layer.term[k].factor_stride, top * layer.out_w, pixels, layer.out_c,
                   scratch.factor + n * scaled++);
    for (int64_t step = 0; step < layer.frames + layer.wait; step++) {
        if (step < layer.frames) {
            const float* factor = scratch.factor;
            float* current = layer.model == kNone ? layer.current + (step * layer.batch + image) * plane + offset
                                                  : scratch.current;
            for (int64_t k = 0; k < layer.terms; k++) {
                add_term(layer, layer.term[k], step, image, top, bottom, k == 0, factor, scratch, current);
                if (layer.term[k].kind == kScaledSpikes) factor += n;
            }
            if (layer.model == kNone) continue;
            for (int64_t i = 0; i < n; i++) scratch.v[i] += current[i];
        }
        if (step < layer.wait || layer.model == kNone) continue;
        const int64_t frame = step - layer.wait;
        fire(layer, scratch, n, layer.spikes + (frame * layer.batch + image) * plane + offset, counts + frame);
    }
}

}  // namespace

const Kernels SNN_KERNELS = {run_layer, run_max_pool, run_sum_pool};

}  // namespace snn
