// Neurons with phase weights: whole windows (bistable), or step by step (phase coding). float64 membranes, in the order
// of operations of snnconvert/simulate/window_neurons.py and study/plain_phase.py.

#include "windows.h"

namespace snn {
namespace {

struct WindowTile {
    int64_t image, first, elements;

    WindowTile(const WindowLayer& layer, const WindowPlan& plan, int64_t item) {
        const int64_t tiles = (layer.pixels + plan.tile_pixels - 1) / plan.tile_pixels;
        image = item / tiles;
        first = item % tiles * plan.tile_pixels;
        elements = smaller(plan.tile_pixels, layer.pixels - first) * layer.channels;
    }

    int64_t at(const WindowLayer& layer, int64_t frame) const {
        return ((frame * layer.batch + image) * layer.pixels + first) * layer.channels;
    }
};

// current <- value(i), or current + value(i), rounded to the term's grid before
template <class Value>
inline void add_values(const WindowTerm& term, bool begins, int64_t n, double* __restrict current, Value value) {
    if (term.grid > 0.0) {
        const double grid = term.grid, inverse = 1.0 / term.grid;
        if (begins)
            for (int64_t i = 0; i < n; i++) current[i] = std::nearbyint(value(i) * inverse) * grid;
        else
            for (int64_t i = 0; i < n; i++) current[i] += std::nearbyint(value(i) * inverse) * grid;
    } else if (begins) {
        for (int64_t i = 0; i < n; i++) current[i] = value(i);
    } else {
        for (int64_t i = 0; i < n; i++) current[i] += value(i);
    }
}

// Whether anything arrives in `frame`; its sum is then in `current`.
inline bool add_terms(const WindowLayer& layer, const WindowPlan& plan, const WindowTile& tile, int64_t frame,
                      double* current) {
    bool begins = true;
    for (int64_t k = 0; k < layer.terms; k++) {
        const WindowTerm& term = layer.term[k];
        if (term.at[frame] < 0) continue;
        const int64_t at = tile.at(layer, term.at[frame]), n = tile.elements;
        if (term.kind == kDoubles) {
            const double* __restrict from = static_cast<const double*>(term.values) + at;
            add_values(term, begins, n, current, [=](int64_t i) { return from[i]; });
        } else if (term.kind == kFloats) {
            const float* __restrict from = static_cast<const float*>(term.values) + at;
            add_values(term, begins, n, current, [=](int64_t i) { return static_cast<double>(from[i]); });
        } else {
            const float* __restrict from = static_cast<const float*>(term.values) + at;
            const double* __restrict factor = plan.factor[k] + (term.factor_stride ? tile.first * layer.channels : 0);
            add_values(term, begins, n, current, [=](int64_t i) { return static_cast<double>(from[i]) * factor[i]; });
        }
        begins = false;
    }
    return !begins;
}

// clip(floor(v / threshold), lowest, levels): the estimate by the reciprocal is off by one at most where it matters
inline double whole_units(double v, double threshold, double reciprocal, double lowest, double levels) {
    double units = std::floor(v * reciprocal);
    const double rest = v - units * threshold;
    units = units - (rest < 0.0 ? 1.0 : 0.0);
    units = units + (rest >= threshold ? 1.0 : 0.0);
    units = units > lowest ? units : lowest;  // in this order what is not a number becomes a number
    return units < levels ? units : levels;
}

struct WindowScratch {
    double* v;
    double* current;
    int32_t* codes;

    explicit WindowScratch(int64_t n) {
        const size_t size = static_cast<size_t>(n);
        v = static_cast<double*>(std::malloc(size * (2 * sizeof(double) + sizeof(int32_t))));
        if (v == nullptr) throw std::bad_alloc();
        current = v + n;
        codes = reinterpret_cast<int32_t*>(current + n);
    }
    ~WindowScratch() { std::free(v); }
    WindowScratch(const WindowScratch&) = delete;
    WindowScratch& operator=(const WindowScratch&) = delete;
};

template <class Code>
inline void send_units(const WindowLayer& layer, const double* __restrict threshold, const double* __restrict reciprocal,
                       int64_t n, bool last, double* __restrict v, float* __restrict out, Code* __restrict codes) {
    const double levels = static_cast<double>(layer.levels), lowest = layer.negative ? -levels : 0.0;
    for (int64_t i = 0; i < n; i++) {
        const double units = whole_units(v[i], threshold[i], reciprocal[i], lowest, levels);
        out[i] = static_cast<float>(units);
        codes[i] = static_cast<Code>(static_cast<int32_t>(std::fabs(units)));
        if (!last) v[i] = v[i] - units * threshold[i];
    }
}

// For each bit, the highest first, in how many of n <= 255 * 64 codes it is set.
inline void count_bits(const uint8_t* codes, int64_t n, int64_t bits, int64_t* counts) {
    for (int64_t bit = 0; bit < bits; bit++) {
        const uint8_t mask = static_cast<uint8_t>(1 << (bits - 1 - bit));
        uint8_t lanes[64] = {};
        int64_t i = 0, sum = 0;
        for (; i + 64 <= n; i += 64)
            for (int64_t lane = 0; lane < 64; lane++)
                lanes[lane] = static_cast<uint8_t>(lanes[lane] + ((codes[i + lane] & mask) != 0 ? 1 : 0));
        for (; i < n; i++) sum += (codes[i] & mask) != 0;
        for (int64_t lane = 0; lane < 64; lane++) sum += lanes[lane];
        counts[bit] += sum;
    }
}

// One window's units and their spikes; what is left in the membrane follows the residual rule.
inline void send_window(const WindowLayer& layer, const WindowPlan& plan, WindowScratch& scratch, const double* threshold,
                        const double* reciprocal, const double* initial, int64_t n, bool last, float* out,
                        int64_t* counts) {
    double* __restrict v = scratch.v;
    if (plan.by_bit) {
        uint8_t* codes = reinterpret_cast<uint8_t*>(scratch.codes);
        send_units(layer, threshold, reciprocal, n, last, v, out, codes);
        constexpr int64_t kMost = 255 * 64;
        for (int64_t from = 0; from < n; from += kMost)
            count_bits(codes + from, smaller(kMost, n - from), layer.window, counts);
    } else {
        send_units(layer, threshold, reciprocal, n, last, v, out, scratch.codes);
        for (int64_t i = 0; i < n; i++) counts[scratch.codes[i]]++;
    }
    if (last || layer.residual == kKeep) return;
    if (layer.residual == kClear)
        for (int64_t i = 0; i < n; i++) v[i] = initial[i];
    else
        for (int64_t i = 0; i < n; i++) v[i] = smaller(v[i], threshold[i]);
}

// One step of phase coding: a spike that carries `weight` units where the membrane reaches as many thresholds.
inline int64_t send_phase(double weight, bool negative, const double* __restrict threshold, int64_t n,
                          double* __restrict v, float* __restrict out) {
    int64_t count = 0;
    if (negative) {
        for (int64_t i = 0; i < n; i++) {
            const double above = v[i] >= weight * threshold[i] ? 1.0 : 0.0;
            const double sent = above - (v[i] < -(weight - 1.0) * threshold[i] ? 1.0 : 0.0);
            out[i] = static_cast<float>(weight * sent);
            v[i] = v[i] - weight * threshold[i] * sent;
            count += sent != 0.0;
        }
        return count;
    }
    for (int64_t i = 0; i < n; i++) {
        const double worth = weight * threshold[i];
        const bool fires = v[i] >= worth;
        out[i] = fires ? static_cast<float>(weight) : 0.0f;
        v[i] = v[i] - (fires ? worth : 0.0);
        count += fires;
    }
    return count;
}

void run_windows(const WindowLayer& layer, const WindowPlan& plan, int64_t item, int64_t* counts) {
    const WindowTile tile(layer, plan, item);
    const int64_t n = tile.elements, offset = tile.first * layer.channels;
    const double* threshold = plan.threshold + (layer.threshold_stride ? offset : 0);
    const double* reciprocal = plan.reciprocal + (layer.threshold_stride ? offset : 0);
    const double* initial = plan.initial + (layer.initial_stride ? offset : 0);
    WindowScratch scratch(n);
    std::memcpy(scratch.v, initial, sizeof(double) * static_cast<size_t>(n));
    for (int64_t frame = 0; frame < layer.frames; frame++) {
        if (add_terms(layer, plan, tile, frame, scratch.current))
            for (int64_t i = 0; i < n; i++) scratch.v[i] += scratch.current[i];
        if (layer.send_at[frame] < 0) continue;
        float* out = layer.units + tile.at(layer, layer.send_at[frame]);
        if (layer.weight != nullptr)
            counts[frame] += send_phase(layer.weight[frame], layer.negative != 0, threshold, n, scratch.v, out);
        else
            send_window(layer, plan, scratch, threshold, reciprocal, initial, n, frame + 1 == layer.frames, out,
                        counts + frame * plan.counters);
    }
}

}  // namespace
}  // namespace snn
