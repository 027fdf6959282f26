// Kernels larger than 1 x 1: the spikes of an input row are listed once, and every output pixel that sees some of them
// copies its part of the list.

namespace snn {
namespace {

// The spikes of one tile's input rows in one frame: entry = column * channels + channel, row by row.
struct Lists {
    int64_t top = 0, rows = 0;   // input rows, those outside the image left out
    int64_t capacity = 0;        // entries of one row
    uint16_t* entries = nullptr;
    int8_t* values = nullptr;    // unless all spikes are units
    int32_t* starts = nullptr;   // (rows, in_w + 1): first entry of a pixel

    static bool serve(const Term& term) {
        return term.groups == 1 && term.dilation_w == 1 && term.k_h * term.k_w > 1 && term.stride_w < term.k_w &&
               term.in_w * term.in_c < 65536;
    }

    Lists() = default;
    Lists(const Term& term, int64_t tile_top, int64_t tile_bottom)
        : top(larger<int64_t>(tile_top * term.stride_h - term.pad_h, 0)),
          capacity((term.in_w * term.in_c + 3 * kSlack + 63) / 64 * 64) {
        const int64_t reach = (tile_bottom - 1) * term.stride_h - term.pad_h + (term.k_h - 1) * term.dilation_h + 1;
        rows = larger<int64_t>(smaller(reach, term.in_h) - top, 0);
    }

    int64_t floats(const Term& term) const { return (rows * (3 * capacity + 4 * (term.in_w + 1)) + 3) / 4 + 16; }

    void place(float* to) {
        entries = reinterpret_cast<uint16_t*>(to);
        values = reinterpret_cast<int8_t*>(entries + rows * capacity);
        starts = reinterpret_cast<int32_t*>(values + rows * capacity);
    }

    template <bool Unit>
    void fill(const Term& term, const int8_t* image) const {
        for (int64_t y = 0; y < rows; y++) {
            const int8_t* line = image + (top + y) * term.in_w * pixel_bytes(term);
            Decoder<Unit> decoder(entries + y * capacity, values + y * capacity);
            int32_t* start = starts + y * (term.in_w + 1);
            for (int64_t x = 0; x < term.in_w; x++) {
                start[x] = static_cast<int32_t>(decoder.count());
                decoder.add(line + x * pixel_bytes(term), term.in_c, x * term.in_c);
            }
            start[term.in_w] = static_cast<int32_t>(decoder.count());
        }
    }

    // the spikes that one output pixel sees, as weight rows
    template <bool Unit>
    Events seen(const Term& term, int64_t out_y, const Window& columns, int64_t zero_row, Scratch& scratch) const {
        const Window lines(out_y, term.stride_h, term.pad_h, term.k_h, term.dilation_h, term.in_h);
        const int64_t wide = term.k_w * term.in_c;
        uint16_t* end = scratch.rows;
        int8_t* values_end = scratch.values;
        for (int64_t ky = lines.first; ky < lines.last && columns.first < columns.last; ky++) {
            const int64_t y = lines.origin + ky * term.dilation_h - top;
            const int32_t* start = starts + y * (term.in_w + 1) + columns.origin;
            const int64_t first = start[columns.first], count = start[columns.last] - first;
            const uint16_t* from = entries + y * capacity + first;
            const auto shift = static_cast<uint16_t>(ky * wide - columns.origin * term.in_c);
            constexpr int64_t kEach = kRegister / 2;
            for (int64_t i = 0; i < count; i += kEach) {  // may copy too much: overwritten, or beyond the end
                typedef uint16_t Rows __attribute__((vector_size(kRegister)));
                Rows rows;
                std::memcpy(&rows, from + i, sizeof rows);
                rows += shift;
                std::memcpy(end + i, &rows, sizeof rows);
            }
            if (!Unit) {
                std::memcpy(values_end, values + y * capacity + first, static_cast<size_t>(count));
                values_end += count;
            }
            end += count;
        }
        for (int k = 0; k < 4; k++) {
            end[k] = static_cast<uint16_t>(zero_row);
            if (!Unit) values_end[k] = 0;
        }
        return {scratch.rows, scratch.values, end - scratch.rows};
    }
};

}  // namespace
}  // namespace snn
