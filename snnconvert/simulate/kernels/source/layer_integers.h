// Weights that are small integers times a step of their output: sums in 16 bits, twice the outputs in one addition.
//
// The caller makes sure that no sum of selected weights leaves 16 bits, and that step times sum plus bias is exact.

namespace snn {
namespace {

// N vectors of 32 outputs from output `c` on
template <int N, class Sink>
inline void gather_shorts(const Term& term, const Events& events, int64_t row, int64_t at, int64_t c, int64_t outputs,
                          Sink& sink) {
    constexpr int kChains = N == 1 ? 4 : N == 2 ? 2 : 1;
    Shorts sum[kChains][N] = {};
    for (int64_t i = 0; i < events.count; i += kChains)  // the list is padded with the zero row
        for (int k = 0; k < kChains; k++) {
            const int16_t* from = term.integers + static_cast<int64_t>(events.rows[i + k]) * row + c;
            for (int n = 0; n < N; n++) sum[k][n] += load_shorts(from + 32 * n);
        }
    const float *step = term.steps, *bias = term.steps + row;
    for (int n = 0; n < N; n++) {
        for (int k = 1; k < kChains; k++) sum[0][n] += sum[k][n];
        for (int half = 0; half < 2; half++) {
            const int64_t first = c + 32 * n + 16 * half;
            if (outputs <= first) return;
            sink(at + first, first, half_as_floats(sum[0][n], half) * load(step + first) + load(bias + first),
                 outputs - first);
        }
    }
}

template <class Sink>
inline void gather_all_shorts(const Term& term, const Events& events, int64_t at, int64_t outputs, Sink& sink) {
    const int64_t row = (outputs + 31) / 32 * 32;
    switch (row) {  // a stride known to the compiler
        case 32: return gather_shorts<1>(term, events, 32, at, 0, outputs, sink);
        case 64: return gather_shorts<2>(term, events, 64, at, 0, outputs, sink);
    }
    int64_t c = 0;
    for (; row - c >= 128; c += 128) gather_shorts<4>(term, events, row, at, c, outputs, sink);
    if (row - c >= 64) {
        gather_shorts<2>(term, events, row, at, c, outputs, sink);
        c += 64;
    }
    if (row - c >= 32) gather_shorts<1>(term, events, row, at, c, outputs, sink);
}

}  // namespace
}  // namespace snn
