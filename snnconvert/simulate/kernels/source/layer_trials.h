// Neurons tried with several thresholds: a block of currents is read once, and all candidates advance through time in
// registers, in the order of operations of layer_neurons.h.

namespace snn {
namespace {

typedef int32_t Mask __attribute__((vector_size(64), aligned(4), may_alias));

SNN_INLINE Vector where(const Mask& set, const Vector& values) { return (Vector)((Mask)values & set); }

// current + share * (next - current), the product and the sum rounded once
SNN_INLINE Vector moved_towards(const Vector& current, const Vector& next, float share) {
    const Vector step = next - current;
#if defined(SNN_AVX512)
    return reinterpret_cast<Vector>(_mm512_fmadd_ps(reinterpret_cast<__m512>(step), _mm512_set1_ps(share),
                                                    reinterpret_cast<__m512>(current)));
#else
    Vector sum;
    for (int lane = 0; lane < 16; lane++) sum[lane] = std::fma(step[lane], share, current[lane]);
    return sum;
#endif
}

// What a neuron sends, and its reset; `sent` is the net number of units.
template <int64_t kModel>
SNN_INLINE void advance(Vector& v, Vector& sent, const Vector& threshold, float levels) {
    const Vector zero{}, one = zero + 1.0f;
    if constexpr (kModel == kIf) {
        const Mask set = v >= threshold;
        v -= where(set, threshold);
        sent += where(set, one);
    } else if constexpr (kModel == kTernary || kModel == kTernaryLate) {
        const Mask set = v >= threshold;
        const Mask low = kModel == kTernary ? v < zero : v <= -threshold;
        const Mask back = low & (sent > zero);
        v = v - where(set, threshold) + where(back, threshold);
        sent += where(set, one) - where(back, one);
    } else {
        constexpr bool kMemory = kModel == kGraded;
        float membrane[16], limit[16], total[16];
        std::memcpy(membrane, &v, sizeof v);
        std::memcpy(limit, &threshold, sizeof v);
        std::memcpy(total, &sent, sizeof v);
        for (int lane = 0; lane < 16; lane++) {
            const float s = emitted<kModel>(membrane[lane], limit[lane], kMemory ? total[lane] : 0.0f, levels);
            membrane[lane] = membrane[lane] - limit[lane] * s;
            total[lane] = total[lane] + s;
        }
        std::memcpy(&v, membrane, sizeof v);
        std::memcpy(&sent, total, sizeof v);
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

// So many candidates from `first` on through time.
template <int64_t kModel, int kMany>
SNN_APART void try_some(const Trials& trials, const TrialPlan& plan, const Column& column, int64_t first) {
    Vector v[kMany], sent[kMany], threshold[kMany], shift[kMany];
    SNN_UNROLL
    for (int k = 0; k < kMany; k++) {
        const int64_t at = (first + k) * plan.padded + column.at;
        v[k] = load(column.initial + at);
        threshold[k] = load(column.threshold + at);
        shift[k] = load(column.shift + at);
        sent[k] = Vector{};
    }
    const float levels = static_cast<float>(trials.levels);
    int64_t read = 0;
    for (int64_t time = 0; time < trials.frames + trials.wait; time++) {
        if (time < trials.frames) {
            const int64_t from = trials.constant ? 0 : time * plan.block;
            const Vector current = load(column.current + from);
            if (trials.next != nullptr) {
                const Vector next = load(column.next + from);
                SNN_UNROLL
                for (int k = 0; k < kMany; k++) v[k] += moved_towards(current, next, trials.share[first + k]);
            } else if (trials.shift != nullptr) {
                SNN_UNROLL
                for (int k = 0; k < kMany; k++) v[k] += current + shift[k];
            } else {
                SNN_UNROLL
                for (int k = 0; k < kMany; k++) v[k] += current;
            }
        }
        if (time < trials.wait) continue;
        SNN_UNROLL
        for (int k = 0; k < kMany; k++) advance<kModel>(v[k], sent[k], threshold[k], levels);
        const int64_t frame = time - trials.wait + 1;
        if (read >= trials.reads || frame != trials.read_at[read]) continue;
        const int64_t element = read * plan.elements + column.element;
        for (int k = 0; k < kMany; k++) {
            const Vector rate = sent[k] * (threshold[k] / static_cast<float>(frame));
            const int64_t at = (first + k) * plan.padded + column.at;
            for (int64_t lane = 0; lane < column.valid; lane++) {
                const float lacks = trials.target[element + lane] - rate[lane];
                column.errors[at + lane] += static_cast<double>(lacks * lacks);
                column.lacking[at + lane] += static_cast<double>(lacks);
                if (trials.rates != nullptr && first + k + 1 == trials.candidates)
                    trials.rates[element + lane] = rate[lane];
            }
        }
        read++;
    }
}

template <int64_t kModel>
inline void try_all(const Trials& trials, const TrialPlan& plan, const Column& column) {
    int64_t first = 0;
    for (; first + 4 <= trials.candidates; first += 4) try_some<kModel, 4>(trials, plan, column, first);
    for (; first + 2 <= trials.candidates; first += 2) try_some<kModel, 2>(trials, plan, column, first);
    if (first < trials.candidates) try_some<kModel, 1>(trials, plan, column, first);
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
    for (int64_t frame = 0; frame < frames; frame++, from += plan.elements, to += plan.block) {
        std::memcpy(to, from, sizeof(float) * static_cast<size_t>(n));
        for (int64_t i = n; i < padded; i++) to[i] = 0.0f;
    }
}

// Rows of an item; `sums` (2, candidates, padded) are added to.
void run_trials(const Trials& trials, const TrialPlan& plan, int64_t item, float* room, double* sums) {
    float* parameters[3];
    const float* given[3] = {trials.threshold, trials.initial, trials.shift};
    const float fill[3] = {1.0f, 0.0f, 0.0f};
    for (int which = 0; which < 3; which++, room += plan.parameters(trials)) {
        parameters[which] = room;
        for (int64_t k = 0; k < trials.candidates; k++)
            for (int64_t i = 0; i < plan.padded; i++) {
                const bool there = given[which] != nullptr && i < plan.width;
                room[k * plan.padded + i] = there ? given[which][k * trials.channels + i % trials.channels] : fill[which];
            }
    }
    float *current = room, *next = room + trials.frames * plan.block;
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
            column.threshold = parameters[0], column.initial = parameters[1], column.shift = parameters[2];
            column.errors = sums, column.lacking = sums + plan.parameters(trials);
            try_column(trials, plan, column);
        }
    }
}

}  // namespace
}  // namespace snn
