// Pools over spikes; a work item is one image (max) or one image of one frame (sum).

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

inline bool inside(int64_t at, int64_t size) { return at >= 0 && at < size; }

// what is sent so far equals the maximum of what was received so far, counted in the smallest type that holds it
template <class Count>
void max_pool_as(const Pool& pool, int64_t image, Count lowest) {
    const int64_t c_n = pool.channels, in = pool.in_h * pool.in_w * c_n, out = pool.out_h * pool.out_w * c_n;
    Buffer<Count> received_buffer(in + 1), best_buffer(out + 1), now_buffer(c_n + 1);
    Count* __restrict received = received_buffer.data;
    Count* __restrict best = best_buffer.data;
    Count* __restrict now = now_buffer.data;
    for (int64_t frame = 0; frame < pool.frames; frame++) {
        const int8_t* __restrict spikes = pool.spikes + (frame * pool.batch + image) * in;
        int8_t* __restrict to = pool.pooled + (frame * pool.batch + image) * out;
        for (int64_t i = 0; i < in; i++) received[i] = static_cast<Count>(received[i] + spikes[i]);
        for (int64_t p = 0; p < pool.out_h * pool.out_w; p++) {
            const int64_t y0 = p / pool.out_w * pool.stride_h - pool.pad_h, x0 = p % pool.out_w * pool.stride_w - pool.pad_w;
            for (int64_t c = 0; c < c_n; c++) now[c] = lowest;
            for (int64_t ky = 0; ky < pool.k_h; ky++)
                for (int64_t kx = 0; kx < pool.k_w; kx++) {
                    const int64_t y = y0 + ky * pool.dilation_h, x = x0 + kx * pool.dilation_w;
                    if (!inside(y, pool.in_h) || !inside(x, pool.in_w)) continue;
                    const Count* __restrict from = received + (y * pool.in_w + x) * c_n;
                    for (int64_t c = 0; c < c_n; c++) now[c] = larger(now[c], from[c]);
                }
            Count* __restrict last = best + p * c_n;
            int8_t* __restrict sent = to + p * c_n;
            for (int64_t c = 0; c < c_n; c++) {
                sent[c] = static_cast<int8_t>(now[c] - last[c]);
                last[c] = now[c];
            }
        }
    }
}

void run_max_pool(const Pool& pool, int64_t image) {
    if (pool.reach <= INT8_MAX) return max_pool_as<int8_t>(pool, image, INT8_MIN);
    if (pool.reach <= INT16_MAX) return max_pool_as<int16_t>(pool, image, INT16_MIN);
    max_pool_as<int32_t>(pool, image, INT32_MIN);
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
