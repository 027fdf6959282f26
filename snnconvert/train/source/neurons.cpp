// Neurons while they are trained, all steps of a block of neurons at once: forward, and backward through time.
//
//   forward   u_t = v_{t-1} + x_t;  n_t = fire(u_t);  out_t = theta n_t;  v_t = u_t - theta n_t
//   backward  d = dL/dout_t - dL/dv_t;  dL/du_t = dL/dv_t + slope_t d;  dL/dtheta += d (n_t - slope_t u_t / theta)
//
// slope_t is the surrogate of dn/d(u / theta). The backward pass computes the membranes again instead of storing them:
// the currents are there anyway, and a block of neurons stays in the cache for all steps. See snnconvert/train/neurons.py,
// which computes the same in torch.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(_WIN32)
#define EXPORTED extern "C" __declspec(dllexport)
#else
#define EXPORTED extern "C" __attribute__((visibility("default")))
#endif
// one function compiled for several processors, where compiler and system can choose among them when it is loaded
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EVERY_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "avx2", "default"), flatten))
#else
#define FOR_EVERY_PROCESSOR
#endif

// buffers never overlap, without which loops would not become vectors
#if defined(_MSC_VER)
#define KEPT __restrict
#else
#define KEPT __restrict__
#endif

struct Neurons {
    int64_t frames, wait, batch, size;  // currents are (frames or 1, batch, size)
    int64_t constant;                   // whether there is one current for all frames
    int64_t storage;                    // of currents, outputs and their gradients: 0 float, 1 bfloat16, 2 double
    int64_t memory;                     // 0 integrate-and-fire, 1 ternary with memory
    int64_t triangle;                   // shape of the surrogate: triangle or rectangle
    double width;                       // half its width, in thresholds
    const void *current, *threshold, *initial;  // threshold and initial: (size), float or double
    void *out;
    const void *gradient;                                              // of out
    void *current_gradient, *threshold_gradient, *initial_gradient;  // the last two (size) are added to
    int64_t first, last;                                               // samples of the batch to work on
};

// A layer of linear weights and neurons of which few places, flat in (frames, batch, outputs), are active.
struct Active {
    int64_t frames, batch, inputs, outputs;  // inputs is 0 where they are the same in all frames
    int64_t storage;                         // of real numbers: 0 float, 2 double
    int64_t count, before_count;
    double slope;
    const int64_t *active, *before;  // places, ascending, of this layer and of the one that it reads
    const void *gradient, *weight;   // of the outputs at active places; (outputs, inputs)
    const int8_t *sent;              // units, (frames, batch, inputs)
    void *change;                    // by how much dL/du changes at every active place, going back in time
    void *weight_gradient, *before_gradient;  // (outputs, inputs), added to, for unit spikes; at the places `before`
};

namespace {

struct Bfloat16 {
    uint16_t bits;
};

template <typename Real>
inline void load(const Real *KEPT from, Real *KEPT to, int64_t count) {
    std::memcpy(to, from, sizeof(Real) * count);
}

inline void load(const Bfloat16 *KEPT from, float *KEPT to, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const uint32_t wide = static_cast<uint32_t>(from[i].bits) << 16;
        float value;
        std::memcpy(&value, &wide, 4);
        to[i] = value;
    }
}

template <typename Real>
inline void store(const Real *KEPT from, Real *KEPT to, int64_t count) {
    std::memcpy(to, from, sizeof(Real) * count);
}

inline void store(const float *KEPT from, Bfloat16 *KEPT to, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t wide;
        const float value = from[i];
        std::memcpy(&wide, &value, 4);
        to[i].bits = static_cast<uint16_t>((wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16);
    }
}

template <typename Real, bool Triangle>
inline Real slope(Real distance, Real width, Real height) {
    const Real away = distance < 0 ? -distance : distance;
    const Real inside = Triangle ? height * (1 - away / width) : height;
    return away < width ? inside : Real(0);
}

// What is kept of one block of neurons over all steps.
template <typename Real>
struct Block {
    std::vector<Real> u, sent, v, count, value, carried;
    int64_t width;

    explicit Block(int64_t steps) {
        width = 4096 / steps < 64 ? 64 : 4096 / steps > 512 ? 512 : 4096 / steps;
        u.resize(width * steps), sent.resize(width * steps);
        v.resize(width), count.resize(width), value.resize(width), carried.resize(width);
    }
};

// One step of firing: units into `n`, membranes and counts go on.
template <typename Real, bool Ternary>
inline void fire(Real *KEPT v, Real *KEPT count, Real *KEPT n, const Real *KEPT theta, int64_t size) {
    for (int64_t i = 0; i < size; i++) {
        Real units = v[i] >= theta[i] ? Real(1) : Real(0);
        if (Ternary) units -= (v[i] < 0 && count[i] > 0) ? Real(1) : Real(0);
        v[i] -= theta[i] * units;
        if (Ternary) count[i] += units;
        n[i] = units;
    }
}

// dL/dv of a step, and what the threshold's gradient gains by it.
template <typename Real, bool Ternary, bool Triangle>
inline void back(const Real *KEPT u, const Real *KEPT sent, const Real *KEPT n, const Real *KEPT theta,
                 const Real *KEPT gradient, Real *KEPT carried, Real *KEPT into, Real width, int64_t size) {
    const Real height = Triangle ? 1 / width : 1 / (2 * width);
    for (int64_t i = 0; i < size; i++) {
        const Real ratio = u[i] / theta[i];
        Real rise = slope<Real, Triangle>(ratio - 1, width, height);
        if (Ternary) {
            const Real fall = slope<Real, Triangle>(ratio, width, height);
            rise += sent[i] > 0 ? fall : Real(0);
        }
        const Real difference = gradient[i] - carried[i];
        into[i] += difference * (n[i] - rise * ratio);
        carried[i] += rise * difference;
    }
}

template <typename Real>
inline void add(const Real *KEPT from, Real *KEPT to, int64_t size) {
    for (int64_t i = 0; i < size; i++) to[i] += from[i];
}

template <typename Real, typename Stored, bool Ternary>
inline void forward(const Neurons &k) {
    const auto *current = static_cast<const Stored *>(k.current);
    const auto *threshold = static_cast<const Real *>(k.threshold), *initial = static_cast<const Real *>(k.initial);
    auto *out = static_cast<Stored *>(k.out);
    const int64_t steps = k.frames + k.wait, plane = k.batch * k.size;
    Block<Real> block(steps);
    for (int64_t b = k.first; b < k.last; b++)
        for (int64_t at = 0; at < k.size; at += block.width) {
            const int64_t size = k.size - at < block.width ? k.size - at : block.width;
            const Real *theta = threshold + at;
            Real *v = block.v.data(), *count = block.count.data(), *value = block.value.data();
            for (int64_t i = 0; i < size; i++) v[i] = theta[i] * initial[at + i], count[i] = 0;
            for (int64_t step = 0; step < steps; step++) {
                if (step < k.frames) {
                    if (!k.constant || step == 0) load(current + step * plane + b * k.size + at, value, size);
                    add(value, v, size);
                }
                if (step < k.wait) continue;
                Real *n = block.u.data();
                fire<Real, Ternary>(v, count, n, theta, size);
                for (int64_t i = 0; i < size; i++) n[i] *= theta[i];
                store(n, out + (step - k.wait) * plane + b * k.size + at, size);
            }
        }
}

template <typename Real, typename Stored, bool Ternary>
inline void backward(const Neurons &k) {
    const auto *current = static_cast<const Stored *>(k.current), *gradient = static_cast<const Stored *>(k.gradient);
    const auto *threshold = static_cast<const Real *>(k.threshold), *initial = static_cast<const Real *>(k.initial);
    auto *current_gradient = static_cast<Stored *>(k.current_gradient);
    auto *threshold_gradient = static_cast<Real *>(k.threshold_gradient);
    auto *initial_gradient = static_cast<Real *>(k.initial_gradient);
    const int64_t steps = k.frames + k.wait, plane = k.batch * k.size;
    const Real width = static_cast<Real>(k.width);
    Block<Real> block(steps);
    std::vector<Real> units(block.width * steps);
    for (int64_t b = k.first; b < k.last; b++)
        for (int64_t at = 0; at < k.size; at += block.width) {
            const int64_t size = k.size - at < block.width ? k.size - at : block.width;
            const Real *theta = threshold + at, *start = initial + at;
            Real *v = block.v.data(), *count = block.count.data(), *value = block.value.data();
            for (int64_t i = 0; i < size; i++) v[i] = theta[i] * start[i], count[i] = 0;
            for (int64_t step = 0; step < steps; step++) {
                if (step < k.frames) {
                    if (!k.constant || step == 0) load(current + step * plane + b * k.size + at, value, size);
                    add(value, v, size);
                }
                if (step < k.wait) continue;
                const int64_t row = step * block.width;
                std::memcpy(block.u.data() + row, v, sizeof(Real) * size);
                if (Ternary) std::memcpy(block.sent.data() + row, count, sizeof(Real) * size);
                fire<Real, Ternary>(v, count, units.data() + row, theta, size);
            }
            Real *carried = block.carried.data();  // dL/dv, and for a constant current the sum over steps in `value`
            Real *sum = count;
            for (int64_t i = 0; i < size; i++) carried[i] = 0, sum[i] = 0;
            for (int64_t step = steps - 1; step >= 0; step--) {
                if (step >= k.wait) {
                    const int64_t row = step * block.width;
                    const Real *u = block.u.data() + row, *sent = block.sent.data() + row, *n = units.data() + row;
                    load(gradient + (step - k.wait) * plane + b * k.size + at, value, size);
                    Real *into = threshold_gradient + at;
                    if (k.triangle)
                        back<Real, Ternary, true>(u, sent, n, theta, value, carried, into, width, size);
                    else
                        back<Real, Ternary, false>(u, sent, n, theta, value, carried, into, width, size);
                }
                if (step < k.frames) {
                    if (k.constant)
                        add<Real>(carried, sum, size);
                    else
                        store(carried, current_gradient + step * plane + b * k.size + at, size);
                }
            }
            if (k.constant) store(sum, current_gradient + b * k.size + at, size);
            for (int64_t i = 0; i < size; i++) {
                threshold_gradient[at + i] += start[i] * carried[i];
                initial_gradient[at + i] += theta[i] * carried[i];
            }
        }
}

FOR_EVERY_PROCESSOR void forward_if_float(const Neurons &k) { forward<float, float, false>(k); }
FOR_EVERY_PROCESSOR void forward_if_bfloat16(const Neurons &k) { forward<float, Bfloat16, false>(k); }
FOR_EVERY_PROCESSOR void forward_if_double(const Neurons &k) { forward<double, double, false>(k); }
FOR_EVERY_PROCESSOR void forward_ternary_float(const Neurons &k) { forward<float, float, true>(k); }
FOR_EVERY_PROCESSOR void forward_ternary_bfloat16(const Neurons &k) { forward<float, Bfloat16, true>(k); }
FOR_EVERY_PROCESSOR void forward_ternary_double(const Neurons &k) { forward<double, double, true>(k); }
FOR_EVERY_PROCESSOR void backward_if_float(const Neurons &k) { backward<float, float, false>(k); }
FOR_EVERY_PROCESSOR void backward_if_bfloat16(const Neurons &k) { backward<float, Bfloat16, false>(k); }
FOR_EVERY_PROCESSOR void backward_if_double(const Neurons &k) { backward<double, double, false>(k); }
FOR_EVERY_PROCESSOR void backward_ternary_float(const Neurons &k) { backward<float, float, true>(k); }
FOR_EVERY_PROCESSOR void backward_ternary_bfloat16(const Neurons &k) { backward<float, Bfloat16, true>(k); }
FOR_EVERY_PROCESSOR void backward_ternary_double(const Neurons &k) { backward<double, double, true>(k); }

using Entry = void (*)(const Neurons &);

Entry chosen(const Neurons &k, bool back) {
    static const Entry entries[2][2][3] = {
        {{forward_if_float, forward_if_bfloat16, forward_if_double},
         {forward_ternary_float, forward_ternary_bfloat16, forward_ternary_double}},
        {{backward_if_float, backward_if_bfloat16, backward_if_double},
         {backward_ternary_float, backward_ternary_bfloat16, backward_ternary_double}}};
    return entries[back][k.memory != 0][k.storage];
}

template <typename Real>
inline void add_multiple(const Real *KEPT from, Real factor, Real *KEPT to, int64_t size) {
    for (int64_t i = 0; i < size; i++) to[i] += factor * from[i];
}

inline void add_units(const int8_t *KEPT from, float *KEPT to, int64_t size) {
    for (int64_t i = 0; i < size; i++) to[i] += from[i];
}

inline void add_units(const int8_t *KEPT from, double *KEPT to, int64_t size) {
    for (int64_t i = 0; i < size; i++) to[i] += from[i];
}

// Back through a layer of which few places are active; see snnconvert/train/sparse.py.
template <typename Real>
inline void sparse(const Active &k) {
    const auto *gradient = static_cast<const Real *>(k.gradient), *weight = static_cast<const Real *>(k.weight);
    auto *change = static_cast<Real *>(k.change), *into = static_cast<Real *>(k.weight_gradient);
    auto *before = static_cast<Real *>(k.before_gradient);
    const int64_t neurons = k.batch * k.outputs, sources = k.batch * k.inputs;
    const Real slope = static_cast<Real>(k.slope);
    std::vector<Real> carried(neurons), rows(k.inputs ? sources : 0);
    int64_t at = k.count, source = k.before_count;
    for (int64_t step = k.frames - 1; step >= 0; step--) {
        for (; at > 0 && k.active[at - 1] >= step * neurons; at--) {
            const int64_t place = k.active[at - 1] - step * neurons;
            const Real c = slope * (gradient[at - 1] - carried[place]);
            carried[place] += c, change[at - 1] = c;
            if (k.inputs)
                add_multiple(weight + place % k.outputs * k.inputs, c, &rows[place / k.outputs * k.inputs], k.inputs);
        }
        for (; source > 0 && k.before[source - 1] >= step * sources; source--)
            before[source - 1] = rows[k.before[source - 1] - step * sources];
    }
    if (!k.inputs) return;
    std::fill(rows.begin(), rows.end(), Real(0));  // now what every input has sent so far
    for (int64_t step = 0; step < k.frames; step++) {
        add_units(k.sent + step * sources, rows.data(), sources);
        for (; at < k.count && k.active[at] < (step + 1) * neurons; at++) {
            const int64_t place = k.active[at] - step * neurons;
            add_multiple(&rows[place / k.outputs * k.inputs], change[at], into + place % k.outputs * k.inputs, k.inputs);
        }
    }
}

FOR_EVERY_PROCESSOR void sparse_float(const Active &k) { sparse<float>(k); }
FOR_EVERY_PROCESSOR void sparse_double(const Active &k) { sparse<double>(k); }

}  // namespace

EXPORTED int64_t snnconvert_train_version() { return 2; }
EXPORTED void snnconvert_train_sparse(const Active *k) { (k->storage == 2 ? sparse_double : sparse_float)(*k); }
EXPORTED void snnconvert_train_forward(const Neurons *k) { chosen(*k, false)(*k); }
EXPORTED void snnconvert_train_backward(const Neurons *k) { chosen(*k, true)(*k); }

// what Python looks for when it is asked to import the file; it is loaded as a plain library instead
EXPORTED void *PyInit__native() { return nullptr; }
