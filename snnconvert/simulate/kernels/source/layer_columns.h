// Kernels three columns wide with a stride of one or two across: a spike goes to the outputs of a row that see it (three;
// or one and two in turn), whose sums stay in registers while the row is walked along.
//
// The spikes of a tile's input rows are listed once in each frame, column by column and row by row: what an output row
// sees of a column is one piece of the list.

namespace snn {
namespace {

struct Columns {
    int64_t top = 0, rows = 0;    // input rows, those outside the image left out
    uint16_t* entries = nullptr;  // row * channels + channel
    int32_t* starts = nullptr;    // (in_w, rows + 1): first entry of a pixel

    static bool serve(const Term& term, int64_t out_rows) {
        return term.planes > 0 && term.columns != nullptr && ((out_rows - 1) * term.stride_h + term.k_h) * term.in_c < 65536;
    }

    Columns() = default;
    Columns(const Term& term, int64_t tile_top, int64_t tile_bottom)
        : top(larger<int64_t>(tile_top * term.stride_h - term.pad_h, 0)) {
        const int64_t reach = (tile_bottom - 1) * term.stride_h - term.pad_h + term.k_h;
        rows = larger<int64_t>(smaller(reach, term.in_h) - top, 0);
    }

    int64_t room_for_starts(const Term& term) const { return term.in_w * (rows + 1); }
    int64_t floats(const Term& term) const {
        return room_for_starts(term) + (rows * term.in_w * term.in_c + 2 * kSlack) / 2;
    }

    void place(const Term& term, float* to) {
        starts = reinterpret_cast<int32_t*>(to);
        entries = reinterpret_cast<uint16_t*>(starts + room_for_starts(term));
    }

    SNN_APART void fill(const Term& term, const int8_t* image) const {
        Decoder<true> decoder(entries, nullptr);
        const int64_t in_w = term.in_w, in_c = term.in_c, bytes = bytes_for(in_c), line = in_w * bytes, height = rows;
        int32_t* start = starts;
        for (int64_t x = 0; x < in_w; x++) {
            const int8_t* pixel = image + top * line + x * bytes;
            int64_t y = 0;
            if (in_c == 32)  // a row's entries follow on those of the row above
                for (; y + 2 <= height; y += 2, pixel += 2 * line) {
                    uint32_t above, below;
                    std::memcpy(&above, pixel, sizeof above);
                    std::memcpy(&below, pixel + line, sizeof below);
                    const auto before = static_cast<int32_t>(decoder.count());
                    decoder.add(static_cast<uint64_t>(below) << 32 | above, y * 32);
                    *start++ = before;
                    *start++ = before + __builtin_popcount(above);
                }
            for (; y < height; y++, pixel += line) {
                *start++ = static_cast<int32_t>(decoder.count());
                decoder.add(pixel, in_c, y * in_c);
            }
            *start++ = static_cast<int32_t>(decoder.count());
        }
    }

    // Output row `out_y`, outputs [c, c + N vectors) of its pixels; `at`: the first pixel. kRow: as in `gather`.
    template <class Sums, int N, int64_t kRow, class Sink>
    SNN_APART void walk(const Layer& layer, const Term& term, int64_t out_y, int64_t padded, int64_t at, int64_t c,
                        Sink& out) const {
        using Vectors = typename Sums::Vectors;
        constexpr int kLanes = Sums::kLanes;
        Sink sink = out;  // a copy whose members nothing else can change
        const int64_t row = kRow != 0 ? kRow : padded, in_w = term.in_w, out_w = layer.out_w, out_c = layer.out_c;
        const Window seen(out_y, term.stride_h, term.pad_h, term.k_h, 1, term.in_h);
        const int64_t first = seen.origin + seen.first - top, last = seen.origin + seen.last - top;
        const int64_t pad = term.pad_w, per_column = rows + 1;
        const auto* weights = static_cast<const typename Sums::Weight*>(term.columns) + c +
                              (top - seen.origin) * term.in_c * 3 * row;
        const uint16_t* list = entries;
        const int32_t *from = starts + first, *to = starts + last;
        Vectors sum[3][N], start[N];
        Vector limit[N][Sums::kLimits];
        limits_of<Sums, N>(sink, c, out_c, limit);
        SNN_UNROLL
        for (int n = 0; n < N; n++) sum[0][n] = sum[1][n] = sum[2][n] = start[n] = Sums::start(term, c + kLanes * n);
        for (int64_t right = 0; right < out_w + 2; right++) {  // the outputs right, right - 1 and right - 2
            if (right >= pad && right < in_w + pad && first < last) {
                const uint16_t* end = list + *to;
                for (const uint16_t* entry = list + *from; entry < end; entry++) {
                    const auto* added = weights + static_cast<int64_t>(*entry) * 3 * row;
                    SNN_UNROLL
                    for (int n = 0; n < N; n++) {
                        sum[0][n] += Sums::read(added + kLanes * n);
                        sum[1][n] += Sums::read(added + row + kLanes * n);
                        sum[2][n] += Sums::read(added + 2 * row + kLanes * n);
                    }
                }
                from += per_column;
                to += per_column;
            }
            if (right >= 2) {
                SNN_UNROLL
                for (int n = 0; n < N; n++) Sums::send(sink, term, row, at, c + kLanes * n, out_c, sum[2][n], limit[n]);
                at += out_c;
            }
            SNN_UNROLL
            for (int n = 0; n < N; n++) {
                sum[2][n] = sum[1][n];
                sum[1][n] = sum[0][n];
                sum[0][n] = start[n];
            }
        }
        out = sink;
    }

    // The same with a stride of two: every other column is seen by two outputs, the one between by one.
    template <class Sums, int N, int64_t kRow, class Sink>
    SNN_APART void walk_by_two(const Layer& layer, const Term& term, int64_t out_y, int64_t padded, int64_t at, int64_t c,
                               Sink& out) const {
        using Vectors = typename Sums::Vectors;
        constexpr int kLanes = Sums::kLanes;
        Sink sink = out;
        const int64_t row = kRow != 0 ? kRow : padded, in_w = term.in_w, out_w = layer.out_w, out_c = layer.out_c;
        const Window seen(out_y, term.stride_h, term.pad_h, term.k_h, 1, term.in_h);
        const int64_t first = seen.origin + seen.first - top, last = seen.origin + seen.last - top;
        const int64_t per_column = rows + 1;
        const auto* weights = static_cast<const typename Sums::Weight*>(term.columns) + c +
                              (top - seen.origin) * term.in_c * 3 * row;
        Vectors now[N], next[N], start[N];
        Vector limit[N][Sums::kLimits];
        limits_of<Sums, N>(sink, c, out_c, limit);
        SNN_UNROLL
        for (int n = 0; n < N; n++) now[n] = next[n] = start[n] = Sums::start(term, c + kLanes * n);
        // calls add(weights of a spike) for those of a column
        const auto column = [&](int64_t x, const auto& add) {
            if (x < 0 || x >= in_w || first >= last) return;
            const int32_t* bounds = starts + x * per_column;
            const uint16_t* end = entries + bounds[last];
            for (const uint16_t* entry = entries + bounds[first]; entry < end; entry++)
                add(weights + static_cast<int64_t>(*entry) * 3 * row);
        };
        column(-term.pad_w, [&](const auto* added) __attribute__((always_inline)) {
            SNN_UNROLL
            for (int n = 0; n < N; n++) now[n] += Sums::read(added + kLanes * n);
        });
        for (int64_t x = 1 - term.pad_w, end = x + 2 * out_w; x < end; x += 2, at += out_c) {
            column(x, [&](const auto* added) __attribute__((always_inline)) {
                SNN_UNROLL
                for (int n = 0; n < N; n++) now[n] += Sums::read(added + row + kLanes * n);
            });
            column(x + 1, [&](const auto* added) __attribute__((always_inline)) {
                SNN_UNROLL
                for (int n = 0; n < N; n++) {
                    now[n] += Sums::read(added + 2 * row + kLanes * n);
                    next[n] += Sums::read(added + kLanes * n);
                }
            });
            SNN_UNROLL
            for (int n = 0; n < N; n++) {
                Sums::send(sink, term, row, at, c + kLanes * n, out_c, now[n], limit[n]);
                now[n] = next[n];
                next[n] = start[n];
            }
        }
        out = sink;
    }

    template <class Sums, int N, int64_t kRow, class Sink>
    void along(const Layer& layer, const Term& term, int64_t out_y, int64_t padded, int64_t at, int64_t c,
               Sink& out) const {
        if (term.stride_w == 2) return walk_by_two<Sums, N, kRow>(layer, term, out_y, padded, at, c, out);
        walk<Sums, N, kRow>(layer, term, out_y, padded, at, c, out);
    }
};

}  // namespace
}  // namespace snn
