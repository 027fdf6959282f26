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
        float each[16];
        store(each, sum);
        for (int64_t lane = 0; lane < valid; lane++) out[at + lane] += each[lane];
    }
};

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
        Vector sum = given;
        if (current != nullptr) sum += load(current + at);
        if (scaled != nullptr) {
            const Vector each = load(factor + (factor_by_channel ? c : at));
            sum = added_where(flags_at(scaled + (at >> 3)), sum, each);
            if (scaled_minus != nullptr) sum = taken_where(flags_at(scaled_minus + (at >> 3)), sum, each);
        }
        const Vector limit = by_channel ? shared : load(threshold + at);
        Vector membrane = load(v + at) + sum;
        const Flags fires = reaches(membrane, limit);
        store_flags(bits + (at >> 3), fires);
        if (kSigned) {
            const Vector zero{}, one = zero + 1.0f;
            const Vector before = load(sent + at);
            const Flags low = late ? reaches(-limit, membrane) : below(membrane, zero);
            const Flags less = forgets ? low : both(low, below(zero, before));
            store_flags(minus + (at >> 3), less);
            store(sent + at, taken_where(less, added_where(fires, before, one), one));
            membrane = added_where(less, membrane, limit);
        }
        store(v + at, taken_where(fires, membrane, limit));
    }
};

}  // namespace
}  // namespace snn
