// Where the current of 16 neighbouring outputs goes: `at` is its place in the tile, `c` its channel.

namespace snn {
namespace {

struct StoreTo {
    float* out;

    void operator()(int64_t at, int64_t, const Vector& sum, int64_t valid) const { store(out + at, sum, valid); }
};

struct AddTo {
    float* out;

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
    bool by_channel;       // threshold (C), else as the tile
    const float* current;  // what the other summands gave, or null
    const int8_t* scaled;  // the other summand where it is spikes times a factor, or null
    const float* factor;
    bool factor_by_channel;
    int8_t* spikes;
    __m512i fired;  // how often each lane has

    __attribute__((always_inline)) void operator()(int64_t at, int64_t c, Vector sum, int64_t) {
        if (current != nullptr) sum += load(current + at);
        if (scaled != nullptr) sum += widen(scaled + at) * load(factor + (factor_by_channel ? c : at));
        const __m512 membrane = reinterpret_cast<__m512>(load(v + at) + sum);
        const __m512 limit = reinterpret_cast<__m512>(load(threshold + (by_channel ? c : at)));
        const __mmask16 fires = _mm512_cmp_ps_mask(membrane, limit, _CMP_GE_OQ);
        _mm512_storeu_ps(v + at, _mm512_mask_sub_ps(membrane, fires, membrane, limit));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(spikes + at), _mm_maskz_mov_epi8(fires, _mm_set1_epi8(1)));
        fired = _mm512_mask_add_epi32(fired, fires, fired, _mm512_set1_epi32(1));
    }
};
#endif

}  // namespace
}  // namespace snn
