// Pools over spikes; a work item is some rows of an image (max) or an image in one frame (sum).

namespace snn {
namespace {

template <class Count>
struct Buffer {
    explicit Buffer(int64_t n) : data(static_cast<Count*>(std::calloc(static_cast<size_t>(n), sizeof(Count)))) {
        if (data == nullptr) throw std::bad_alloc();
    }
    ~Buffer() { std::free(data); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Count* data;
};

// what is sent so far equals the maximum of what was received so far, counted in the smallest type that holds it
template <class Count>
void max_pool_as(const Pool& pool, int64_t item, Count lowest) {
    const int64_t c_n = pool.channels, line = pool.in_w * c_n, out_line = pool.out_w * c_n;
    const int64_t rows = rows_per_tile(pool), tiles = (pool.out_h + rows - 1) / rows, image = item / tiles;
    const int64_t top = item % tiles * rows, bottom = smaller(top + rows, pool.out_h);
    const int64_t first = larger<int64_t>(0, top * pool.stride_h - pool.pad_h);  // input rows [first, last)
    const int64_t reach = (bottom - 1) * pool.stride_h - pool.pad_h + (pool.k_h - 1) * pool.dilation_h + 1;
    const int64_t last = larger(first, smaller(reach, pool.in_h)), in = (last - first) * line;
    constexpr int64_t kLanes = kRegister / sizeof(Count);
    typedef Count Block __attribute__((vector_size(kRegister)));
    typedef int8_t Increment __attribute__((vector_size(kLanes)));
    Buffer<Count> received_buffer(in + 1), best_buffer((bottom - top) * out_line + 1);
    const int64_t pixel = pool.planes * bytes_for(c_n);  // bytes of one, if spikes are bits
    Buffer<int8_t> units(pool.planes > 0 ? in + 1 : 1), sent_units(pool.planes > 0 ? (bottom - top) * out_line + 1 : 1);
    Count* __restrict received = received_buffer.data;
    for (int64_t frame = 0; frame < pool.frames; frame++) {
        const int64_t sample = frame * pool.batch + image;
        const int64_t in_pixel = (sample * pool.in_h + first) * pool.in_w, out_pixel = (sample * pool.out_h + top) * pool.out_w;
        const int8_t* __restrict spikes = pool.spikes + in_pixel * c_n;
        int8_t* __restrict sent = static_cast<int8_t*>(pool.pooled) + out_pixel * c_n;
        if (pool.planes > 0) {
            const auto* bits = reinterpret_cast<const uint8_t*>(pool.spikes) + in_pixel * pixel;
            expand_pixels(bits, (last - first) * pool.in_w, c_n, pool.planes, units.data);
            spikes = units.data;
            sent = sent_units.data;
        }
        Count* __restrict best = best_buffer.data;
        for (int64_t i = 0; i < in; i++) received[i] = static_cast<Count>(received[i] + spikes[i]);
        for (int64_t out_y = top; out_y < bottom; out_y++) {
            const Window down(out_y, pool.stride_h, pool.pad_h, pool.k_h, pool.dilation_h, pool.in_h);
            for (int64_t out_x = 0; out_x < pool.out_w; out_x++, sent += c_n, best += c_n) {
                const Window across(out_x, pool.stride_w, pool.pad_w, pool.k_w, pool.dilation_w, pool.in_w);
                const Count* seen = received + ((down.origin - first) * pool.in_w + across.origin) * c_n;
                int64_t c = 0;
                for (; c + kLanes <= c_n; c += kLanes) {
                    Block now = Block{} + lowest;
                    for (int64_t ky = down.first; ky < down.last; ky++)
                        for (int64_t kx = across.first; kx < across.last; kx++) {
                            const int64_t at = (ky * pool.dilation_h * pool.in_w + kx * pool.dilation_w) * c_n + c;
                            Block more;
                            std::memcpy(&more, seen + at, sizeof more);
                            now = now > more ? now : more;
                        }
                    Block before;
                    std::memcpy(&before, best + c, sizeof before);
                    std::memcpy(best + c, &now, sizeof now);
                    const Increment increment = __builtin_convertvector(now - before, Increment);
                    std::memcpy(sent + c, &increment, sizeof increment);
                }
                for (; c < c_n; c++) {
                    Count now = lowest;
                    for (int64_t ky = down.first; ky < down.last; ky++)
                        for (int64_t kx = across.first; kx < across.last; kx++)
                            now = larger(now, seen[(ky * pool.dilation_h * pool.in_w + kx * pool.dilation_w) * c_n + c]);
                    sent[c] = static_cast<int8_t>(now - best[c]);
                    best[c] = now;
                }
            }
        }
        if (pool.planes > 0)
            condense_pixels(sent_units.data, (bottom - top) * pool.out_w, c_n, pool.planes,
                            static_cast<uint8_t*>(pool.pooled) + out_pixel * pixel);
    }
}

void run_max_pool(const Pool& pool, int64_t item) {
    if (pool.reach <= INT8_MAX) return max_pool_as<int8_t>(pool, item, INT8_MIN);
    if (pool.reach <= INT16_MAX) return max_pool_as<int16_t>(pool, item, INT16_MIN);
    max_pool_as<int32_t>(pool, item, INT32_MIN);
}

void run_sum_pool(const Pool& pool, int64_t item) {
    const int64_t c_n = pool.channels, bytes = pool.planes * bytes_for(c_n), outputs = pool.out_h * pool.out_w;
    const auto* spikes = reinterpret_cast<const uint8_t*>(pool.spikes) + item * pool.in_h * pool.in_w * bytes;
    Buffer<int8_t> units(c_n + 1);
    Buffer<int32_t> sums(c_n + 1);
    const bool small = pool.k_h * pool.k_w <= INT8_MAX;
    for (int64_t p = 0; p < outputs; p++) {
        const int64_t y0 = p / pool.out_w * pool.stride_h - pool.pad_h, x0 = p % pool.out_w * pool.stride_w - pool.pad_w;
        std::memset(sums.data, 0, sizeof(int32_t) * static_cast<size_t>(c_n));
        for (int64_t y = larger<int64_t>(y0, 0); y < smaller(y0 + pool.k_h, pool.in_h); y++)
            for (int64_t x = larger<int64_t>(x0, 0); x < smaller(x0 + pool.k_w, pool.in_w); x++) {
                expand_pixels(spikes + (y * pool.in_w + x) * bytes, 1, c_n, pool.planes, units.data);
                for (int64_t c = 0; c < c_n; c++) sums.data[c] += units.data[c];
            }
        const int64_t at = (item * outputs + p) * c_n;
        for (int64_t c = 0; c < c_n && small; c++) static_cast<int8_t*>(pool.pooled)[at + c] = static_cast<int8_t>(sums.data[c]);
        for (int64_t c = 0; c < c_n && !small; c++) static_cast<float*>(pool.pooled)[at + c] = static_cast<float>(sums.data[c]);
    }
}

}  // namespace
}  // namespace snn
