// Sums of products for depthwise least squares: 16 channels at a time, some rows in registers.

namespace snn {
namespace {

// adds to a sum the products of some rows
SNN_INLINE void add_products(float* __restrict sum, const Vector* a, const float* __restrict b, int64_t step) {
    Vector total, one;
    read(total, sum);
    SNN_UNROLL
    for (int64_t row = 0; row < Products::kAtOnce; row++) {
        read(one, b + row * step);
        total += a[row] * one;
    }
    write(sum, total);
}

// Channels from 16 * `item` on; `room` holds floats() floats.
void run_products(const Products& products, int64_t item, float* room) {
    constexpr int64_t kLanes = Products::kLanes, kAtOnce = Products::kAtOnce;
    const int64_t first = item * kLanes, lanes = smaller(kLanes, products.channels - first), terms = products.terms();
    const size_t bytes = static_cast<size_t>(lanes) * sizeof(float);
    const int64_t step = (terms + 1) * kLanes;  // of a row: its taps, the one, what is wanted
    float *cross = room, *pairs = cross + terms * kLanes, *rows = room + products.sums() * kLanes;
    const auto empty = [&] { std::memset(room, 0, static_cast<size_t>(products.sums() * kLanes) * sizeof(float)); };
    const auto settle = [&] {
        for (int64_t k = 0; k < terms; k++)
            for (int64_t c = 0; c < lanes; c++) products.cross[k * products.channels + first + c] += cross[k * kLanes + c];
        for (int64_t k = 0; products.pairs != nullptr && k < products.sums() - terms; k++)
            for (int64_t c = 0; c < lanes; c++) products.pairs[k * products.channels + first + c] += pairs[k * kLanes + c];
        empty();
    };
    empty();
    const int64_t all = products.batch * products.positions;
    for (int64_t begin = 0; begin < all; begin += kAtOnce) {
        std::memset(rows, 0, static_cast<size_t>(kAtOnce * step) * sizeof(float));
        for (int64_t row = 0; row < smaller(kAtOnce, all - begin); row++) {
            const int64_t image = (begin + row) / products.positions, position = (begin + row) % products.positions;
            const int64_t* at = products.read + position * products.taps;
            float* to = rows + row * step;
            for (int64_t k = 0; k < products.taps; k++)
                if (at[k] >= 0)
                    std::memcpy(to + k * kLanes,
                                products.values + (image * products.pixels + at[k]) * products.channels + first, bytes);
            for (int64_t c = 0; c < lanes; c++) to[products.taps * kLanes + c] = 1.0f;
            std::memcpy(to + terms * kLanes, products.wanted + (begin + row) * products.channels + first, bytes);
        }
        float* sum = pairs;
        for (int64_t i = 0; i < terms; i++) {
            Vector own[kAtOnce];
            SNN_UNROLL
            for (int64_t row = 0; row < kAtOnce; row++) read(own[row], rows + row * step + i * kLanes);
            add_products(cross + i * kLanes, own, rows + terms * kLanes, step);
            for (int64_t j = 0; products.pairs != nullptr && j <= i; j++, sum += kLanes)
                add_products(sum, own, rows + j * kLanes, step);
        }
        if ((begin + kAtOnce) % Products::kBlock == 0) settle();
    }
    settle();
}

}  // namespace
}  // namespace snn
