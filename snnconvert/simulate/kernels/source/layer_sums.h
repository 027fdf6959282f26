// The two kinds of sums of listed weight rows: vectors of 16 floats, or of 32 small integers.

namespace snn {
namespace {

// Sums of float weights, 16 outputs to a vector.
struct FloatSums {
    using Vectors = Vector;
    using Weight = float;
    static constexpr int kLanes = 16;

    static constexpr int kLimits = 1;  // vectors of 16 in one of these

    static Vector start(const Term& term, int64_t c) { return load(term.bias + c); }
    static Vector read(const float* from) { return load(from); }

    template <class Sink>
    SNN_INLINE static void send(Sink& sink, const Term&, int64_t, int64_t at, int64_t c, int64_t outputs,
                                const Vector& sum, const Vector* limit) {
        if (outputs > c) sink(at + c, c, sum, outputs - c, limit[0]);
    }
};

// Sums of integer weights, 32 outputs to a vector (see layer_integers.h).
struct IntegerSums {
    using Vectors = Shorts;
    using Weight = int16_t;
    static constexpr int kLanes = 32;

    static constexpr int kLimits = 2;

    static Shorts start(const Term&, int64_t) { return Shorts{}; }
    static Shorts read(const int16_t* from) { return load_shorts(from); }

    template <class Sink>
    SNN_INLINE static void send(Sink& sink, const Term& term, int64_t row, int64_t at, int64_t c, int64_t outputs,
                                const Shorts& sum, const Vector* limit) {
        const float *step = term.steps + c, *bias = term.steps + row + c;
        SNN_UNROLL
        for (int half = 0; half < 2; half++)
            if (outputs > c + 16 * half)
                sink(at + c + 16 * half, c + 16 * half,
                     half_as_floats(sum, half) * load(step + 16 * half) + load(bias + 16 * half), outputs - c - 16 * half,
                     limit[half]);
    }
};

// the limits of N vectors of outputs from `c` on
template <class Sums, int N, class Sink>
SNN_INLINE void limits_of(const Sink& sink, int64_t c, int64_t outputs, Vector (*limit)[Sums::kLimits]) {
    SNN_UNROLL
    for (int n = 0; n < N * Sums::kLimits; n++)
        limit[n / Sums::kLimits][n % Sums::kLimits] = outputs > c + 16 * n ? sink.limit(c + 16 * n) : Vector{};
}

}  // namespace
}  // namespace snn
