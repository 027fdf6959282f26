// What calibration counts: how much spikes come to over time, and how often values are how large.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

namespace snn {

// Means of spikes in bits (see layer.h) until each of some frames, of at most 255: counts are bytes.
struct Sums {
    int64_t frames, batch, pixels, channels, planes;
    const uint8_t* bits;
    const float* amplitude;  // of a unit: (C) or (pixels, C)
    int64_t amplitude_stride;
    int64_t reads;
    const int64_t* read_at;  // (reads) numbers of frames, ascending
    float* means;            // (reads * batch, pixels, C)
    int64_t threads;

    int64_t bytes() const { return (channels + 7) / 8; }
};

// Counts of the sizes of values that are not zero: bin k of a channel has those above k and up to k + 1 of so many parts of
// its largest, the last one all above too.
struct Histogram {
    int64_t outer, channels, inner;  // how the values lie
    const float* values;
    const float* largest;  // (C)
    int64_t bins;
    int64_t* counts;  // (C, bins), added to
    int64_t threads;

    static constexpr int64_t kAtOnce = 16;  // channels whose counts stay in the cache
};

// the eight bits of every byte, as bytes
inline const std::array<uint64_t, 256>& spread_bits() {
    static const std::array<uint64_t, 256> table = [] {
        std::array<uint64_t, 256> made{};
        for (uint64_t byte = 0; byte < 256; byte++)
            for (uint64_t bit = 0; bit < 8; bit++) made[byte] |= (byte >> bit & 1) << (8 * bit);
        return made;
    }();
    return table;
}

// pixels [first, last) of an image
inline void sum_pixels(const Sums& sums, int64_t image, int64_t first, int64_t last) {
    const std::array<uint64_t, 256>& table = spread_bits();
    const int64_t row = sums.planes * sums.bytes(), all = (last - first) * row;
    std::vector<uint64_t> total(static_cast<size_t>(all), 0);
    int64_t read = 0;
    for (int64_t frame = 0; frame < sums.frames; frame++) {
        const uint8_t* from = sums.bits + ((frame * sums.batch + image) * sums.pixels + first) * row;
        for (int64_t i = 0; i < all; i++) total[static_cast<size_t>(i)] += table[from[i]];
        if (read >= sums.reads || frame + 1 != sums.read_at[read]) continue;
        const float passed = static_cast<float>(frame + 1);
        for (int64_t pixel = first; pixel < last; pixel++) {
            const auto* plus = reinterpret_cast<const uint8_t*>(total.data() + (pixel - first) * row);
            const uint8_t* minus = plus + 8 * sums.bytes();
            const float* amplitude = sums.amplitude + pixel * sums.amplitude_stride;
            float* to = sums.means + ((read * sums.batch + image) * sums.pixels + pixel) * sums.channels;
            for (int64_t c = 0; c < sums.channels; c++) {
                const int net = sums.planes == 2 ? plus[c] - minus[c] : plus[c];
                to[c] = static_cast<float>(net) * (amplitude[c] / passed);
            }
        }
        read++;
    }
}

// the bins of up to kAtOnce values, 0 for none, else one more than the bin
inline void bins_of(const float* values, const float* largest, int64_t step, int64_t n, int64_t bins, int32_t* to) {
    const float most = static_cast<float>(bins);
    for (int64_t i = 0; i < n; i++) {
        const float place = std::fabs(values[i] / largest[i * step] * most);
        const float within = place < most ? place : most;
        const auto whole = static_cast<int32_t>(within);
        to[i] = whole + (static_cast<float>(whole) < within ? 1 : 0);
    }
}

// channels [first, last), at most kAtOnce
inline void count_channels(const Histogram& histogram, int64_t first, int64_t last) {
    int32_t found[Histogram::kAtOnce];
    for (int64_t outer = 0; outer < histogram.outer; outer++) {
        const float* row = histogram.values + outer * histogram.channels * histogram.inner;
        if (histogram.inner == 1) {
            bins_of(row + first, histogram.largest + first, 1, last - first, histogram.bins, found);
            for (int64_t c = first; c < last; c++)
                if (found[c - first] > 0) histogram.counts[c * histogram.bins + found[c - first] - 1]++;
            continue;
        }
        for (int64_t c = first; c < last; c++)
            for (int64_t i = 0; i < histogram.inner; i += Histogram::kAtOnce) {
                const int64_t n = std::min(Histogram::kAtOnce, histogram.inner - i);
                bins_of(row + c * histogram.inner + i, histogram.largest + c, 0, n, histogram.bins, found);
                for (int64_t k = 0; k < n; k++)
                    if (found[k] > 0) histogram.counts[c * histogram.bins + found[k] - 1]++;
            }
    }
}

}  // namespace snn
