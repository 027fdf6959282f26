// Where the current of 16 neighbouring outputs goes: `at` is its place in the tile, `c` its channel. Who computes many
// outputs of a channel asks for its `limit` once and hands it over, which saves reading it for each.

namespace snn {
namespace {

struct StoreTo {
    float* out;

    static Vector limit(int64_t) { return Vector{}; }

    void operator()(int64_t at, int64_t, const Vector& sum, int64_t valid) const { store(out + at, sum, valid); }
    void operator()(int64_t at, int64_t, const Vector& sum, int64_t valid, const Vector&) const {
        store(out + at, sum, valid);
    }
};

struct AddTo {
    float* out;

    static Vector limit(int64_t) { return Vector{}; }

    void operator()(int64_t at, int64_t c, const Vector& sum, int64_t valid, const Vector&) const {
        (*this)(at, c, sum, valid);
    }
    void operator()(int64_t at, int64_t, const Vector& sum, int64_t valid) const {
        if (valid >= 16) return store(out + at, load(out + at) + sum, 16);
        for (int64_t lane = 0; lane < valid; lane++) out[at + lane] += sum[lane];
    }
};

#if defined(SNN_AVX512)
// Integrate-and-fire neurons at once, while the current is in a register; channels come in sixteens.
struct FireInto {
    float* v;
    const float* threshold;
    bool by_channel;        // threshold (C), else as the tile
    const float* current;   // what the other summands gave, or null
    const uint8_t* scaled;  // bits of the other summand where it is spikes times a factor, or null
    const float* factor;
    bool factor_by_channel;
    uint8_t* bits;

    Vector limit(int64_t c) const { return by_channel ? load(threshold + c) : Vector{}; }

    __attribute__((always_inline)) void operator()(int64_t at, int64_t c, const Vector& given, int64_t valid) {
        (*this)(at, c, given, valid, limit(c));
    }

    __attribute__((always_inline)) void operator()(int64_t at, int64_t c, const Vector& given, int64_t,
                                                   const Vector& shared) {
        __m512 sum = reinterpret_cast<__m512>(given);
        if (current != nullptr) sum = _mm512_add_ps(sum, _mm512_loadu_ps(current + at));
        if (scaled != nullptr) {
            __mmask16 set;
            std::memcpy(&set, scaled + (at >> 3), sizeof set);
            sum = _mm512_mask_add_ps(sum, set, sum, _mm512_loadu_ps(factor + (factor_by_channel ? c : at)));
        }
        const __m512 membrane = _mm512_add_ps(_mm512_loadu_ps(v + at), sum);
        const __m512 limit = by_channel ? reinterpret_cast<__m512>(shared) : _mm512_loadu_ps(threshold + at);
        const __mmask16 fires = _mm512_cmp_ps_mask(membrane, limit, _CMP_GE_OQ);
        _mm512_storeu_ps(v + at, _mm512_mask_sub_ps(membrane, fires, membrane, limit));
        std::memcpy(bits + (at >> 3), &fires, sizeof fires);
    }
};
#endif

}  // namespace
}  // namespace snn
