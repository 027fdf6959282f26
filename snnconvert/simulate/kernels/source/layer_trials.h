// Neurons tried with several thresholds: a block of currents is read once, and all candidates advance through time in
// registers, in the order of operations of layer_neurons.h.

namespace snn {
namespace {

// current + share * (next - current), the product and the sum rounded once
SNN_INLINE Vector moved_towards(const Vector& current, const Vector& next, float share) {
    return product_and(next - current, share, current);
}

// adds 16 values to as many sums
SNN_INLINE void add_to(double* __restrict sums, const Vector& values) {
#if defined(SNN_AVX512)
    const __m512 all = raw(values);
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(all)), high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(all, 1));
    _mm512_storeu_pd(sums, _mm512_add_pd(_mm512_loadu_pd(sums), low));
    _mm512_storeu_pd(sums + 8, _mm512_add_pd(_mm512_loadu_pd(sums + 8), high));
#elif defined(SNN_AVX2)
    const auto add_four = [sums](int first, __m128 four) {  // GCC converts them one by one
        _mm256_storeu_pd(sums + first, _mm256_add_pd(_mm256_loadu_pd(sums + first), _mm256_cvtps_pd(four)));
    };
    const auto low = (__m256)values.low, high = (__m256)values.high;
    add_four(0, _mm256_castps256_ps128(low));
    add_four(4, _mm256_extractf128_ps(low, 1));
    add_four(8, _mm256_castps256_ps128(high));
    add_four(12, _mm256_extractf128_ps(high, 1));
#else
    float apart[16];
    store(apart, values);
    for (int lane = 0; lane < 16; lane++) sums[lane] += static_cast<double>(apart[lane]);
#endif
}

// Whole units of a threshold in a membrane, as `units` finds them: a unit more or less in the quotient is mended.
SNN_INLINE Vector units_of(const Vector& v, const Vector& threshold, const Vector& inverse) {
    const Vector one = Vector{} + 1.0f;
    Vector n = whole_below(v * inverse);
    n = taken_where(below(v, n * threshold), n, one);
    return added_where(reaches(v, (n + one) * threshold), n, one);
}

// What a neuron sends, and its reset; `sent` is the net number of units, `inverse` that of the threshold.
template <int64_t kModel>
SNN_INLINE void advance(Vector& v, Vector& sent, const Vector& threshold, const Vector& inverse, float levels) {
    const Vector zero{};
    if constexpr (kModel == kIf || kModel == kTernary || kModel == kTernaryLate) {
        const Vector one = zero + 1.0f;
        const Flags set = reaches(v, threshold);
        if constexpr (kModel != kIf) {
            const Flags low = kModel == kTernary ? below(v, zero) : reaches(-threshold, v);
            const Flags back = both(low, below(zero, sent));
            v = added_where(back, v, threshold);
            sent = taken_where(back, sent, one);
        }
        v = taken_where(set, v, threshold);
        sent = added_where(set, sent, one);
    } else {
        const Vector most = zero + levels;
        Vector units = units_of(v, threshold, inverse);
        if constexpr (kModel == kGraded) units = larger_of(units, -sent);
        units = smaller_of(larger_of(units, kModel == kBurst ? zero : -most), most);
        v = v - threshold * units;
        sent = sent + units;
    }
}

// What all candidates of one vector of a block share.
struct Column {
    int64_t element, at;  // the first of its elements, and its place in a row
    int64_t valid;        // elements that there are
    const float *current, *next;
    const float *threshold, *initial, *shift;  // (candidates, padded)
    double *errors, *lacking;
};

// What goes into a membrane besides the current.
enum class Moved { kNot, kShifted, kShared };

// So many candidates from `first` on through time.
template <int64_t kModel, int kMany, Moved kMoved>
SNN_APART void try_some(const Trials& trials, const TrialPlan& plan, const Column& column, int64_t first) {
    Vector v[kMany], sent[kMany], threshold[kMany], inverse[kMany];
    const Vector largest = Vector{} + std::numeric_limits<float>::max();
    SNN_UNROLL
    for (int k = 0; k < kMany; k++) {
        const int64_t at = (first + k) * plan.padded + column.at;
        v[k] = load(column.initial + at);
        threshold[k] = load(column.threshold + at);
        sent[k] = Vector{};
        inverse[k] = smaller_of((Vector{} + 1.0f) / threshold[k], largest);
    }
    const float levels = static_cast<float>(trials.levels);
    int64_t read = 0;
    for (int64_t time = 0; time < trials.frames + trials.wait; time++) {
        if (time < trials.frames) {
            const int64_t from = trials.constant ? 0 : time * plan.stride();
            const Vector current = load(column.current + from);
            SNN_UNROLL
            for (int k = 0; k < kMany; k++) {
                if constexpr (kMoved == Moved::kShared) {
                    v[k] += moved_towards(current, load(column.next + from), trials.share[first + k]);
                } else if constexpr (kMoved == Moved::kShifted) {
                    v[k] += current + load(column.shift + (first + k) * plan.padded + column.at);
                } else {
                    v[k] += current;
                }
            }
        }
        if (time < trials.wait) continue;
        SNN_UNROLL
        for (int k = 0; k < kMany; k++) advance<kModel>(v[k], sent[k], threshold[k], inverse[k], levels);
        const int64_t frame = time - trials.wait + 1;
        if (read >= trials.reads || frame != trials.read_at[read]) continue;
        const int64_t element = read * plan.elements + column.element;
        const Vector wanted = load_some(trials.target + element, column.valid);
        for (int k = 0; k < kMany; k++) {
            const Vector rate = sent[k] * (threshold[k] / static_cast<float>(frame));
            const int64_t at = (first + k) * plan.padded + column.at;
            Vector lacks = wanted - rate;
            if (column.valid < 16) {
                float each[16] = {};
                store(each, lacks, column.valid);
                lacks = load(each);
            }
            add_to(column.errors + at, lacks * lacks);
            add_to(column.lacking + at, lacks);
            if (trials.rates != nullptr && first + k + 1 == trials.candidates)
                store(trials.rates + element, rate, column.valid);
        }
        read++;
    }
}

// As many candidates side by side as there are registers for: each waits for its own last step.
template <int64_t kModel, int kMany, Moved kMoved>
inline void try_moved(const Trials& trials, const TrialPlan& plan, const Column& column, int64_t first) {
    for (; first + kMany <= trials.candidates; first += kMany)
        try_some<kModel, kMany, kMoved>(trials, plan, column, first);
    if constexpr (kMany > 1) {
        if (first < trials.candidates) try_moved<kModel, kMany / 2, kMoved>(trials, plan, column, first);
    }
}

template <int64_t kModel>
inline void try_all(const Trials& trials, const TrialPlan& plan, const Column& column) {
    constexpr int kMany = kVectorsAtOnce == 8 ? 8 : 2;  // each of three vectors
    if (trials.next != nullptr) return try_moved<kModel, 2, Moved::kShared>(trials, plan, column, 0);
    if (trials.shift != nullptr) return try_moved<kModel, 2, Moved::kShifted>(trials, plan, column, 0);
    try_moved<kModel, kMany, Moved::kNot>(trials, plan, column, 0);
}

inline void try_column(const Trials& trials, const TrialPlan& plan, const Column& column) {
#define SNN_TRY(model) \
    case model: return try_all<model>(trials, plan, column);
    switch (trials.model) { SNN_FOR_EVERY_MODEL(SNN_TRY) }
#undef SNN_TRY
}

// Copies what a block of a row is in every frame.
inline void copy_block(const Trials& trials, const TrialPlan& plan, const float* from, int64_t n, float* to) {
    const int64_t frames = trials.constant ? 1 : trials.frames, padded = (n + 15) / 16 * 16;
    for (int64_t frame = 0; frame < frames; frame++, from += plan.elements, to += plan.stride()) {
        std::memcpy(to, from, sizeof(float) * static_cast<size_t>(n));
        for (int64_t i = n; i < padded; i++) to[i] = 0.0f;
    }
}

// Rows of an item, with thresholds, starts and shifts (3, candidates, padded); `sums` (2, candidates, padded) are added to.
void run_trials(const Trials& trials, const TrialPlan& plan, const float* parameters, int64_t item, float* room,
                double* sums) {
    const int64_t each = plan.parameters(trials);
    float *current = room, *next = room + trials.frames * plan.stride();
    const int64_t first = item * plan.each * plan.width;
    const int64_t last = smaller(first + plan.each * plan.width, plan.elements);
    for (int64_t begin = first, n = 0; begin < last; begin += n) {
        n = smaller(plan.block, last - begin);
        if (plan.padded != plan.width) n = smaller(n, plan.width - begin % plan.width);  // no vector of two rows
        copy_block(trials, plan, trials.current + begin, n, current);
        if (trials.next != nullptr) copy_block(trials, plan, trials.next + begin, n, next);
        for (int64_t i = 0; i < n; i += 16) {
            Column column{};
            column.element = begin + i, column.at = (begin + i) % plan.width, column.valid = smaller(int64_t{16}, n - i);
            column.current = current + i, column.next = next + i;
            column.threshold = parameters, column.initial = parameters + each, column.shift = parameters + 2 * each;
            column.errors = sums, column.lacking = sums + each;
            try_column(trials, plan, column);
        }
    }
}

}  // namespace
}  // namespace snn
