// Depthwise convolutions: every output channel sees its own input channel.

namespace snn {
namespace {

// Outputs [c, c + 16) of a pixel; `line`: the first input row's channel c. kPlanes: of bits, 0 for units.
template <int kPlanes, class Sink>
SNN_INLINE void depthwise_channels(const Term& term, const Lines& lines, const Window& columns, const int8_t* line,
                                   int64_t pixel, int64_t at, int64_t c, Sink& sink) {
    const int64_t channels = term.in_c, k_w = term.k_w, across = term.dilation_w * pixel;
    Vector sum = load(term.bias + c);
    for (int64_t y = lines.first; y < lines.last; y++, line += lines.step) {
        const float* weights = term.values + y * k_w * channels + c;
        for (int64_t x = columns.first; x < columns.last; x++) {
            const int8_t* spikes = line + x * across;
            const Vector weight = load(weights + x * channels);
            if constexpr (kPlanes == 0) {
                sum += weight * widen(spikes);
            } else {
                sum = added_where(flags_at(spikes), sum, weight);
                if (kPlanes == 2) sum = taken_where(flags_at(spikes + bytes_for(channels)), sum, weight);
            }
        }
    }
    sink(at + c, c, sum, 16);
}

// The same for several vectors of channels of bits: weights are added where there is one, which needs no product.
template <int kPlanes, int N, class Sink>
SNN_INLINE void depthwise_bits(const Term& term, const Lines& lines, const Window& columns, const int8_t* line,
                               int64_t pixel, int64_t at, int64_t c, Sink& sink) {
    const int64_t channels = term.in_c, k_w = term.k_w, across = term.dilation_w * pixel;
    Vector sum[N];
    SNN_UNROLL
    for (int n = 0; n < N; n++) sum[n] = load(term.bias + c + 16 * n);
    for (int64_t y = lines.first; y < lines.last; y++, line += lines.step) {
        const float* weights = term.values + y * k_w * channels + c;
        for (int64_t x = columns.first; x < columns.last; x++) {
            const int8_t *set = line + x * across, *less = set + bytes_for(channels);
            SNN_UNROLL
            for (int n = 0; n < N; n++) {
                const Vector weight = load(weights + x * channels + 16 * n);
                sum[n] = added_where(flags_at(set + 2 * n), sum[n], weight);
                if (kPlanes == 2) sum[n] = taken_where(flags_at(less + 2 * n), sum[n], weight);
            }
        }
    }
    SNN_UNROLL
    for (int n = 0; n < N; n++) sink(at + c + 16 * n, c + 16 * n, sum[n], 16);
}

template <int kPlanes, class Sink>
SNN_INLINE void depthwise_pixel(const Term& term, const Lines& lines, const Window& columns, int64_t pixel, int64_t at,
                                int64_t first, Sink& sink) {
    const int64_t channels = term.in_c;
    const int8_t* start = lines.start + columns.origin * pixel;
    int64_t c = first;
    constexpr int kMany = kVectorsAtOnce / 2;
    if constexpr (kPlanes > 0)
        for (; c + 16 * kMany <= channels; c += 16 * kMany)
            depthwise_bits<kPlanes, kMany>(term, lines, columns, start + c / 8, pixel, at, c, sink);
    for (; c + 16 <= channels; c += 16)
        depthwise_channels<kPlanes>(term, lines, columns, start + (kPlanes > 0 ? c / 8 : c), pixel, at, c, sink);
    for (; c < channels; c++) {
        float sum = term.bias[c];
        const int8_t* line = start + (kPlanes > 0 ? c / 8 : c);
        for (int64_t y = lines.first; y < lines.last; y++, line += lines.step)
            for (int64_t x = columns.first; x < columns.last; x++) {
                const int8_t* spikes = line + x * term.dilation_w * pixel;
                int units = kPlanes > 0 ? *spikes >> (c % 8) & 1 : *spikes;
                if (kPlanes == 2) units -= spikes[bytes_for(channels)] >> (c % 8) & 1;
                sum += term.values[(y * term.k_w + x) * channels + c] * static_cast<float>(units);
            }
        float all[16] = {sum};
        sink(at + c, c, load(all), 1);
    }
}

// Kernels of 3 x 3 on bits, along an output row of 16 channels: weights stay in registers, a column's spikes are masks
// that are read once for all outputs that see them.
template <int kPlanes>
struct DepthwiseRow {
    const uint8_t* line[3];  // the input rows, from channel c on
    unsigned keep[3];        // all ones where the row is inside the image
    Vector weight[9], bias;
    int64_t plane, pixel, in_w;

    DepthwiseRow(const Term& term, const int8_t* image, int64_t out_y, int64_t c)
        : bias(load(term.bias + c)), plane(bytes_for(term.in_c)), pixel(kPlanes * plane), in_w(term.in_w) {
        SNN_UNROLL
        for (int ky = 0; ky < 3; ky++) {
            const int64_t y = out_y * term.stride_h - term.pad_h + ky * term.dilation_h;
            const bool inside = y >= 0 && y < term.in_h;
            keep[ky] = inside ? ~0u : 0;
            line[ky] = reinterpret_cast<const uint8_t*>(image) + (inside ? y * in_w * pixel : 0) + c / 8;
        }
        SNN_UNROLL
        for (int k = 0; k < 9; k++) weight[k] = load(term.values + k * term.in_c + c);
    }

    // adds what an input column sends through one column of the kernel, through two of them, or through all
    SNN_INLINE void add(int64_t x, int kx, Vector& sum) const {
        each_row(x, [&](int ky, const Flags& set, const Flags& less) __attribute__((always_inline)) {
            sum = added(sum, set, less, weight[3 * ky + kx]);
        });
    }

    SNN_INLINE void add(int64_t x, int kx, Vector& sum, int other_kx, Vector& other) const {
        each_row(x, [&](int ky, const Flags& set, const Flags& less) __attribute__((always_inline)) {
            sum = added(sum, set, less, weight[3 * ky + kx]);
            other = added(other, set, less, weight[3 * ky + other_kx]);
        });
    }

    SNN_INLINE void add_to_all(int64_t x, Vector* sum) const {
        each_row(x, [&](int ky, const Flags& set, const Flags& less) __attribute__((always_inline)) {
            SNN_UNROLL
            for (int kx = 0; kx < 3; kx++) sum[kx] = added(sum[kx], set, less, weight[3 * ky + kx]);
        });
    }

   private:
    template <class Row>
    SNN_INLINE void each_row(int64_t x, const Row& row) const {
        if (x < 0 || x >= in_w) return;
        SNN_UNROLL
        for (int ky = 0; ky < 3; ky++) {
            const uint8_t* spikes = line[ky] + x * pixel;
            row(ky, mask(spikes, ky), kPlanes == 2 ? mask(spikes + plane, ky) : Flags{});
        }
    }

    SNN_INLINE Flags mask(const uint8_t* spikes, int ky) const {
        uint16_t set;
        std::memcpy(&set, spikes, sizeof set);
        return flags_of(static_cast<uint16_t>(set & keep[ky]));
    }

    SNN_INLINE static Vector added(const Vector& sum, const Flags& set, const Flags& less, const Vector& weight) {
        const Vector more = added_where(set, sum, weight);
        return kPlanes == 2 ? taken_where(less, more, weight) : more;
    }
};

inline bool walks_depthwise(const Term& term) {
    return term.k_h == 3 && term.k_w == 3 && term.dilation_w == 1 && (term.stride_w == 1 || term.stride_w == 2);
}

template <int kPlanes, class Sink>
SNN_APART void walk_depthwise(const Layer& layer, const Term& term, const int8_t* image, int64_t out_y, int64_t at,
                              int64_t c, Sink& out) {
    Sink sink = out;  // copies that no store can change
    const DepthwiseRow<kPlanes> row(term, image, out_y, c);
    const Vector limit = sink.limit(c);
    const int64_t out_w = layer.out_w, channels = layer.out_c, pad = term.pad_w;
    const auto send = [&](const Vector& sum) __attribute__((always_inline)) {
        sink(at + c, c, sum, 16, limit);
        at += channels;
    };
    if (term.stride_w == 1) {
        Vector sum[3] = {row.bias, row.bias, row.bias};  // of the outputs right, right - 1 and right - 2
        for (int64_t right = 0; right < out_w + 2; right++) {
            row.add_to_all(right - pad, sum);
            if (right >= 2) send(sum[2]);
            sum[2] = sum[1];
            sum[1] = sum[0];
            sum[0] = row.bias;
        }
    } else {  // every other column is seen by two outputs, the one between by one
        Vector now = row.bias, next = row.bias;
        row.add(-pad, 0, now);
        for (int64_t x = 1 - pad, end = x + 2 * out_w; x < end; x += 2) {
            row.add(x, 1, now);
            row.add(x + 1, 2, now, 0, next);
            send(now);
            now = next;
            next = row.bias;
        }
    }
    out = sink;
}

template <int kPlanes, class Sink>
SNN_APART void convolve_depthwise(const Layer& layer, const Term& term, const Tile& tile, const int8_t* image,
                                  Sink& out) {
    const int64_t pixel = pixel_bytes(term);
    int64_t walked = 0;  // channels that are done
    const int64_t channels = term.in_c;
    if constexpr (kPlanes > 0)
        for (; walks_depthwise(term) && walked + 16 <= channels; walked += 16)
            for (int64_t y = tile.top; y < tile.bottom; y++)
                walk_depthwise<kPlanes>(layer, term, image, y, (y - tile.top) * layer.out_w * channels, walked, out);
    if (walked == channels) return;
    Sink sink = out;  // a copy that no store can change
    each_pixel(layer, term, tile, image, [&](int64_t, const Lines& lines, const Window& columns, int64_t at) {
        depthwise_pixel<kPlanes>(term, lines, columns, pixel, at, walked, sink);
    });
    out = sink;
}

}  // namespace
}  // namespace snn
