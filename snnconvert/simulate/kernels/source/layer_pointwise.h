// Kernels of 1 x 1: the spikes of a few pixels are listed ahead, so that the processor need not wait for a list's length.

namespace snn {
namespace {

struct Pointwise {
    uint16_t* entries = nullptr;  // (kPixels, capacity): channels, padded with the zero row to a multiple of four
    int64_t capacity = 0;

    static constexpr int kPixels = 16;

    static bool serve(const Term& term) {
        return term.planes > 0 && term.groups == 1 && term.k_h == 1 && term.k_w == 1;
    }

    Pointwise() = default;
    explicit Pointwise(const Term& term) : capacity((term.in_c + 2 * kSlack + 31) / 32 * 32) {}

    int64_t floats() const { return kPixels * capacity / 2; }
    void place(float* to) { entries = reinterpret_cast<uint16_t*>(to); }

    // Lists what `pixels` outputs see, the first at row `y` and column `x`; `counts`: how much.
    SNN_APART void list(const Term& term, const int8_t* image, int64_t out_w, int64_t y, int64_t x, int64_t pixels,
                        int32_t* counts) const {
        const int64_t in_c = term.in_c, in_w = term.in_w, in_h = term.in_h;
        for (int64_t p = 0; p < pixels; p++) {
            Decoder<true> decoder(entries + p * capacity, nullptr);
            const int64_t row = y * term.stride_h - term.pad_h, column = x * term.stride_w - term.pad_w;
            if (row >= 0 && row < in_h && column >= 0 && column < in_w)
                decoder.add(image + (row * in_w + column) * pixel_bytes(term), in_c, 0);
            counts[p] = static_cast<int32_t>(decoder.finish(in_c).count);
            if (++x == out_w) x = 0, y++;
        }
    }

    // Outputs [c, c + N vectors) of `pixels` pixels, the first of them at `at`. kRow: as in `gather`.
    template <class Sums, int N, int64_t kRow, class Sink>
    SNN_APART void gather(const Term& term, const typename Sums::Weight* all, int64_t padded, const int32_t* counts,
                          int64_t pixels, int64_t at, int64_t c, int64_t out_c, Sink& out) const {
        constexpr int kLanes = Sums::kLanes, kChains = 2 * N <= kVectorsAtOnce && N <= 2 ? 2 : 1;
        Sink sink = out;  // a copy that no store can change
        const int64_t row = kRow != 0 ? kRow : padded;
        const auto* weights = all + c;
        Vector limit[N][Sums::kLimits];
        limits_of<Sums, N>(sink, c, out_c, limit);
        const uint16_t* list = entries;
        for (int64_t p = 0; p < pixels; p++, list += capacity, at += out_c) {
            typename Sums::Vectors sum[kChains][N] = {};
            SNN_UNROLL
            for (int n = 0; n < N; n++) sum[0][n] = Sums::start(term, c + kLanes * n);
            for (int64_t i = 0; i < counts[p]; i += 4) {
                uint64_t four;
                std::memcpy(&four, list + i, sizeof four);
                SNN_UNROLL
                for (int k = 0; k < 4; k++) {
                    const auto* from = weights + static_cast<int64_t>(four >> (16 * k) & 0xffff) * row;
                    SNN_UNROLL
                    for (int n = 0; n < N; n++) sum[k % kChains][n] += Sums::read(from + kLanes * n);
                }
            }
            SNN_UNROLL
            for (int n = 0; n < N; n++) {
                if (kChains == 2) sum[0][n] += sum[kChains - 1][n];
                Sums::send(sink, term, row, at, c + kLanes * n, out_c, sum[0][n], limit[n]);
            }
        }
        out = sink;
    }

    template <class Sums, class Sink>
    SNN_INLINE void gather_all(const Term& term, const typename Sums::Weight* weights, const int32_t* counts,
                               int64_t pixels, int64_t at, int64_t out_c, Sink& sink) const {
        constexpr int64_t kLanes = Sums::kLanes;
        const int64_t row = (out_c + kLanes - 1) / kLanes * kLanes;
        switch (row / kLanes) {  // a stride known to the compiler
            case 1: return gather<Sums, 1, kLanes>(term, weights, row, counts, pixels, at, 0, out_c, sink);
            case 2: return gather<Sums, 2, 2 * kLanes>(term, weights, row, counts, pixels, at, 0, out_c, sink);
            case 3: return gather<Sums, 3, 3 * kLanes>(term, weights, row, counts, pixels, at, 0, out_c, sink);
            case 4: return gather<Sums, 4, 4 * kLanes>(term, weights, row, counts, pixels, at, 0, out_c, sink);
        }
        int64_t c = 0;
        if constexpr (kVectorsAtOnce >= 8)
            for (; row - c >= 8 * kLanes; c += 8 * kLanes)
                gather<Sums, 8, 0>(term, weights, row, counts, pixels, at, c, out_c, sink);
        for (; row - c >= 4 * kLanes; c += 4 * kLanes)
            gather<Sums, 4, 0>(term, weights, row, counts, pixels, at, c, out_c, sink);
        for (; row - c >= kLanes; c += kLanes)
            gather<Sums, 1, 0>(term, weights, row, counts, pixels, at, c, out_c, sink);
    }

    template <class Sink>
    void convolve(const Layer& layer, const Term& term, const int8_t* image, int64_t top, int64_t bottom,
                  Sink& sink) const {
        const int64_t all = (bottom - top) * layer.out_w, out_c = layer.out_c;
        int32_t counts[kPixels];
        for (int64_t p = 0; p < all; p += kPixels) {
            const int64_t pixels = smaller<int64_t>(kPixels, all - p);
            list(term, image, layer.out_w, top + p / layer.out_w, p % layer.out_w, pixels, counts);
            if (term.integers != nullptr)
                gather_all<IntegerSums>(term, term.integers, counts, pixels, p * out_c, out_c, sink);
            else
                gather_all<FloatSums>(term, term.values, counts, pixels, p * out_c, out_c, sink);
        }
    }
};

}  // namespace
}  // namespace snn
