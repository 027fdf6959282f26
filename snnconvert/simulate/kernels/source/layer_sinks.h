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
// Neurons at once, while the current is in a register: of spikes of 0 and 1, or of -1, 0 and 1 (kTernary, kTernaryLate, and
// kGraded and kSigned of one unit), of which all but kSigned only take back what they have sent. Channels come in sixteens.
template <bool kSigned>
struct FireInto {
    float* v;
    float* sent;      // ternary: how much more was sent than taken back
    bool late;        // ternary: takes back at minus the threshold, not below zero
    bool forgets;     // ternary: sends -1 whatever it has sent
    uint8_t* bits;
    uint8_t* minus;   // ternary: the second plane
    const float* threshold;
    bool by_channel;            // threshold (C), else as the tile
    const float* current;       // what the other summands gave, or null
    const uint8_t* scaled;      // bits of the other summand where it is spikes times a factor, or null
    const uint8_t* scaled_minus;  // and its second plane, or null
    const float* factor;
    bool factor_by_channel;

    Vector limit(int64_t c) const { return by_channel ? load(threshold + c) : Vector{}; }

    __attribute__((always_inline)) void operator()(int64_t at, int64_t c, const Vector& given, int64_t valid) {
        (*this)(at, c, given, valid, limit(c));
    }

    __attribute__((always_inline)) void operator()(int64_t at, int64_t c, const Vector& given, int64_t,
                                                   const Vector& shared) {
        __m512 sum = reinterpret_cast<__m512>(given);
        if (current != nullptr) sum = _mm512_add_ps(sum, _mm512_loadu_ps(current + at));
        if (scaled != nullptr) {
            const __m512 each = _mm512_loadu_ps(factor + (factor_by_channel ? c : at));
            sum = _mm512_mask_add_ps(sum, mask(scaled, at), sum, each);
            if (scaled_minus != nullptr) sum = _mm512_mask_sub_ps(sum, mask(scaled_minus, at), sum, each);
        }
        const __m512 limit = by_channel ? reinterpret_cast<__m512>(shared) : _mm512_loadu_ps(threshold + at);
        __m512 membrane = _mm512_add_ps(_mm512_loadu_ps(v + at), sum);
        const __mmask16 fires = _mm512_cmp_ps_mask(membrane, limit, _CMP_GE_OQ);
        std::memcpy(bits + (at >> 3), &fires, sizeof fires);
        if (kSigned) {
            const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1.0f);
            __m512 before = _mm512_loadu_ps(sent + at);
            const __mmask16 low = late ? _mm512_cmp_ps_mask(membrane, _mm512_sub_ps(zero, limit), _CMP_LE_OQ)
                                       : _mm512_cmp_ps_mask(membrane, zero, _CMP_LT_OQ);
            const __mmask16 less = forgets ? low : _mm512_mask_cmp_ps_mask(low, before, zero, _CMP_GT_OQ);
            std::memcpy(minus + (at >> 3), &less, sizeof less);
            before = _mm512_mask_add_ps(before, fires, before, one);
            _mm512_storeu_ps(sent + at, _mm512_mask_sub_ps(before, less, before, one));
            membrane = _mm512_mask_add_ps(membrane, less, membrane, limit);
        }
        _mm512_storeu_ps(v + at, _mm512_mask_sub_ps(membrane, fires, membrane, limit));
    }

   private:
    static __mmask16 mask(const uint8_t* plane, int64_t at) {
        __mmask16 set;
        std::memcpy(&set, plane + (at >> 3), sizeof set);
        return set;
    }
};
#endif

}  // namespace
}  // namespace snn
