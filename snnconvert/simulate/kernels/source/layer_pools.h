// Pools over spikes; a work item is one image (max) or one image of one frame (sum).

namespace snn {
namespace {

struct Buffer {
    explicit Buffer(int64_t n) : data(static_cast<int32_t*>(std::calloc(static_cast<size_t>(n), sizeof(int32_t)))) {
        if (data == nullptr) throw std::bad_alloc();
    }
    ~Buffer() { std::free(data); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    int32_t* data;
};

inline bool inside(int64_t at, int64_t size) { return at >= 0 && at < size; }

// what is sent so far equals the maximum of what was received so far
void run_max_pool(const Pool& pool, int64_t image) {
    const int64_t c_n = pool.channels, in = pool.in_h * pool.in_w * c_n, out = pool.out_h * pool.out_w * c_n;
    Buffer received(in + 1), best(out + 1), now(c_n + 1);
    for (int64_t frame = 0; frame < pool.frames; frame++) {
        const int8_t* spikes = pool.spikes + (frame * pool.batch + image) * in;
        int8_t* to = pool.pooled + (frame * pool.batch + image) * out;
        for (int64_t i = 0; i < in; i++) received.data[i] += spikes[i];
        for (int64_t p = 0; p < pool.out_h * pool.out_w; p++) {
            const int64_t y0 = p / pool.out_w * pool.stride_h - pool.pad_h, x0 = p % pool.out_w * pool.stride_w - pool.pad_w;
            for (int64_t c = 0; c < c_n; c++) now.data[c] = INT32_MIN;
            for (int64_t ky = 0; ky < pool.k_h; ky++)
                for (int64_t kx = 0; kx < pool.k_w; kx++) {
                    const int64_t y = y0 + ky * pool.dilation_h, x = x0 + kx * pool.dilation_w;
                    if (!inside(y, pool.in_h) || !inside(x, pool.in_w)) continue;
                    const int32_t* from = received.data + (y * pool.in_w + x) * c_n;
                    for (int64_t c = 0; c < c_n; c++) now.data[c] = larger(now.data[c], from[c]);
                }
            int32_t* last = best.data + p * c_n;
            for (int64_t c = 0; c < c_n; c++) {
                to[p * c_n + c] = static_cast<int8_t>(now.data[c] - last[c]);
                last[c] = now.data[c];
            }
        }
    }
}

void run_sum_pool(const Pool& pool, int64_t item) {
    const int64_t c_n = pool.channels;
    const int8_t* spikes = pool.spikes + item * pool.in_h * pool.in_w * c_n;
    int8_t* to = pool.pooled + item * pool.out_h * pool.out_w * c_n;
    for (int64_t p = 0; p < pool.out_h * pool.out_w; p++, to += c_n) {
        const int64_t y0 = p / pool.out_w * pool.stride_h - pool.pad_h, x0 = p % pool.out_w * pool.stride_w - pool.pad_w;
        std::memset(to, 0, static_cast<size_t>(c_n));
        for (int64_t y = larger<int64_t>(y0, 0); y < smaller(y0 + pool.k_h, pool.in_h); y++)
            for (int64_t x = larger<int64_t>(x0, 0); x < smaller(x0 + pool.k_w, pool.in_w); x++) {
                const int8_t* from = spikes + (y * pool.in_w + x) * c_n;
                for (int64_t c = 0; c < c_n; c++) to[c] = static_cast<int8_t>(to[c] + from[c]);
            }
    }
}

}  // namespace
}  // namespace snn
