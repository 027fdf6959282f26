// What a work item computes.

namespace snn {
namespace {

// The outputs of one image that a work item computes: rows [top, bottom), channels [first, first + width).
struct Tile {
    int64_t image, top, bottom, first, width, pixels, elements;
    bool whole;  // all channels

    Tile(const Layer& layer, const Plan& plan, int64_t item) {
        const int64_t block = item / (layer.batch * plan.tiles);  // images share a block's tables
        image = item / plan.tiles % layer.batch;
        top = item % plan.tiles * plan.rows;
        bottom = smaller(top + plan.rows, layer.out_h);
        first = block * plan.block;
        width = smaller(plan.block, layer.out_c - first);
        pixels = (bottom - top) * layer.out_w;
        elements = pixels * width;
        whole = width == layer.out_c;
    }

    // the tile's first pixel in (frames * batch, out_h, out_w)
    int64_t pixel(const Layer& layer, int64_t frame) const {
        return ((frame * layer.batch + image) * layer.out_h + top) * layer.out_w;
    }
};

// Calls pixel(y, lines, columns, at) for every output pixel of the tile.
template <class Pixel>
inline void each_pixel(const Layer& layer, const Term& term, const Tile& tile, const int8_t* image,
                       const Pixel& pixel) {
    int64_t at = 0;
    for (int64_t y = tile.top; y < tile.bottom; y++) {
        const Lines lines(term, image, y);
        for (int64_t x = 0; x < layer.out_w; x++, at += layer.out_c)
            pixel(y, lines, Window(x, term.stride_w, term.pad_w, term.k_w, term.dilation_w, term.in_w), at);
    }
}

}  // namespace
}  // namespace snn
