// The neuron models, element by element in the order of operations of snnconvert/neurons.

namespace snn {
namespace {

inline float units(float v, float threshold) {
    float n = std::floor(v / threshold);
    n = n - (n * threshold > v ? 1.0f : 0.0f);
    return n + ((n + 1.0f) * threshold <= v ? 1.0f : 0.0f);
}

template <int64_t kModel>
inline float emitted(float v, float threshold, float sent, float levels) {
    switch (kModel) {
        case kIf: return v >= threshold ? 1.0f : 0.0f;
        case kTernary: return (v >= threshold ? 1.0f : 0.0f) - ((v < 0.0f) & (sent > 0.0f) ? 1.0f : 0.0f);
        case kTernaryLate: return (v >= threshold ? 1.0f : 0.0f) - ((v <= -threshold) & (sent > 0.0f) ? 1.0f : 0.0f);
        case kBurst: return smaller(larger(units(v, threshold), 0.0f), levels);
        case kGraded: return smaller(larger(larger(units(v, threshold), -sent), -levels), levels);
        default: return smaller(larger(units(v, threshold), -levels), levels);
    }
}

template <int64_t kModel>
inline void fire_as(float* __restrict v, const float* __restrict threshold, float* __restrict sent, float levels,
                    int64_t n, int8_t* __restrict out, int64_t* spikes, int64_t* sent_units) {
    constexpr bool kMemory = kModel == kTernary || kModel == kTernaryLate || kModel == kGraded;
    int32_t count = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const float s = emitted<kModel>(v[i], threshold[i], kMemory ? sent[i] : 0.0f, levels);
        v[i] = v[i] - threshold[i] * s;
        if (kMemory) sent[i] = sent[i] + s;
        const int32_t whole = static_cast<int32_t>(s);
        out[i] = static_cast<int8_t>(whole);
        count += whole != 0;
        sum += whole < 0 ? -whole : whole;
    }
    *spikes += count;
    *sent_units += sum;
}

// the models of neurons that kernels know
#define SNN_FOR_EVERY_MODEL(DO) DO(kIf) DO(kTernary) DO(kTernaryLate) DO(kBurst) DO(kGraded) DO(kSigned)

// v -> spikes from element `at` of the tile on, and the reset; counts spikes and units
inline void fire(const Layer& layer, Scratch& scratch, int64_t at, int64_t n, int8_t* out, int64_t* spikes, int64_t* units) {
    const float levels = static_cast<float>(layer.levels);
    float *v = scratch.v + at, *threshold = scratch.threshold + at, *sent = scratch.sent + at;
#define SNN_FIRE(model) \
    case model: return fire_as<model>(v, threshold, sent, levels, n, out, spikes, units);
    switch (layer.model) { SNN_FOR_EVERY_MODEL(SNN_FIRE) }
#undef SNN_FIRE
}

}  // namespace
}  // namespace snn
