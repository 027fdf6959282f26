// Which inputs an output sees.

namespace snn {
namespace {

// The part of the kernel that lies inside the input at one output position along one axis.
struct Window {
    int64_t first, last, origin;

    Window(int64_t out, int64_t stride, int64_t pad, int64_t kernel, int64_t dilation, int64_t size)
        : first(0), last(kernel), origin(out * stride - pad) {
        while (first < last && origin + first * dilation < 0) first++;
        while (first < last && origin + (last - 1) * dilation >= size) last--;
    }
};

// The input rows that one row of output pixels sees: kernel rows [first, last), `step` apart in memory.
struct Lines {
    int64_t first, last, step;
    const int8_t* start;

    Lines(const Term& term, const int8_t* image, int64_t out_y) {
        const Window rows(out_y, term.stride_h, term.pad_h, term.k_h, term.dilation_h, term.in_h);
        first = rows.first;
        last = rows.last;
        step = term.dilation_h * term.in_w * pixel_bytes(term);
        start = image + rows.origin * term.in_w * pixel_bytes(term) + first * step;
    }
};

}  // namespace
}  // namespace snn
