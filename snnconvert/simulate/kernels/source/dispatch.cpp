// Entry points: choice of the instruction set, and work shared between threads.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "layer.h"
#include "statistics.h"
#include "workers.h"

namespace snn {

Plan::Plan(const Layer& layer) : blocks(1), block(layer.out_c), tabled(false), pairs(false), table_bytes(0) {
    constexpr int64_t kLanes = 16;
    int64_t convolutions = 0, looked_up = 0, integers = 0, paired = 0;
    for (int64_t k = 0; k < layer.terms; k++) {
        const Term& term = layer.term[k];
        if (term.kind != kConvolution) continue;
        convolutions++;
        looked_up += term.tables != 0;
        integers += term.integers != nullptr;
        paired += term.integers != nullptr && term.dilation_w == 1;
    }
    tabled = convolutions > 0 && looked_up == convolutions;
    pairs = tabled && paired == convolutions && layer.out_c <= kLanes;
    if (tabled) {  // two vectors: more for the same bytes of spikes; few enough for the caches
        block = std::min(layer.out_c, (integers == convolutions ? 4 : 2) * kLanes);
        blocks = (layer.out_c + block - 1) / block;
        for (int64_t k = 0; k < layer.terms; k++) {
            const Term& term = layer.term[k];
            if (term.kind != kConvolution) continue;
            table_bytes += tables_of(term, pairs) * table_bytes_of(vectors_of(term, block, pairs));
        }
    }
    // membranes stay in the first two caches, in the first where they are nearly all; and there are some tiles for every
    // thread
    constexpr int64_t kLeast = 1024, kEach = 4;
    const int64_t most = convolutions > 0 ? 8192 : 2048;
    const auto rows_of = [&](int64_t elements) {
        return std::min(layer.out_h, std::max<int64_t>(1, elements / std::max<int64_t>(1, layer.out_w * block)));
    };
    rows = rows_of(most);
    for (int64_t elements = most; layer.threads > 1 && elements >= kLeast; elements /= 2) {
        rows = rows_of(elements);
        if (blocks * layer.batch * ((layer.out_h + rows - 1) / rows) >= kEach * layer.threads) break;
    }
    tiles = (layer.out_h + rows - 1) / rows;
}

TrialPlan::TrialPlan(const Trials& trials) {
    constexpr int64_t kWidest = 4096, kFloats = 1 << 15, kLeast = 128, kMost = 1024, kWorth = 1 << 13;
    const int64_t channels = trials.channels;
    elements = trials.batch * trials.pixels * channels;
    width = std::lcm(channels, kLanes);  // whole vectors, unless that takes very many pixels
    if (width > kWidest) width = channels;
    padded = (width + kLanes - 1) / kLanes * kLanes;
    rows = (elements + width - 1) / width;
    const int64_t worth = std::clamp<int64_t>(elements / kWorth, 1, kMostItems);  // an item has its own sums to clear
    each = std::max<int64_t>(1, (rows + worth - 1) / worth);
    items = std::max<int64_t>(1, (rows + each - 1) / each);
    block = std::clamp(kFloats / std::max<int64_t>(1, trials.frames) / kLanes * kLanes, kLeast, kMost);
}

int64_t rows_per_tile(const Pool& pool) {
    constexpr int64_t kBytes = 1 << 17;  // what was received so far stays in the second-level cache
    const int64_t row = pool.in_w * pool.channels * (pool.reach <= INT8_MAX ? 1 : pool.reach <= INT16_MAX ? 2 : 4);
    const int64_t more = kBytes / std::max<int64_t>(1, row) - (pool.k_h - 1) * pool.dilation_h - 1;
    return std::min(pool.out_h, 1 + std::max<int64_t>(0, more) / pool.stride_h);
}

namespace {

// 0 portable, 1 AVX2, 2 AVX-512
int64_t best_instructions() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi2"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) return 1;
#endif
    return 0;
}

const Kernels& kernels(int64_t instructions) {
#if defined(__x86_64__)
    switch (std::min(instructions, best_instructions())) {
        case 2: return kAvx512;
        case 1: return kAvx2;
    }
#endif
    return kPortable;
}

// Threads for items that take so many nanoseconds in all: a sleeping one needs tens of microseconds to wake up.
int64_t helped(int64_t threads, int64_t items, double nanoseconds) {
    constexpr double kWorthIt = 50e3;
    return std::max<int64_t>(1, std::min({threads, items, 1 + static_cast<int64_t>(nanoseconds / kWorthIt)}));
}

// A rough guess at a layer's time on one thread, in nanoseconds (measured at one spike in eight inputs).
double guessed_time(const Layer& layer) {
    double each = 0.15;
    for (int64_t k = 0; k < layer.terms; k++) {
        const Term& term = layer.term[k];
        if (term.kind == kConvolution)
            each += 0.004 * static_cast<double>(term.k_h * term.k_w * term.in_c / term.groups);
    }
    return each * static_cast<double>(layer.frames * layer.batch * layer.out_h * layer.out_w * layer.out_c);
}

// Calls work(item, worker) for every item; returns 0, or 1 when memory ran out.
template <class Work>
int share(int64_t items, int64_t threads, const Work& work) {
    std::atomic<int64_t> next{0};
    std::atomic<int> failed{0};
    const auto loop = [&](int64_t worker) {
        try {
            for (int64_t item = next++; item < items && !failed; item = next++) work(item, worker);
        } catch (const std::exception&) {
            failed = 1;
        }
    };
    Workers::shared().run(std::min(threads, items) - 1, loop);
    return failed;
}

int share_pixels(const Bits& bits, void (*work)(const Bits&, int64_t, int64_t)) {
    const int64_t piece = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(1, bits.channels));
    const int64_t items = (bits.pixels + piece - 1) / piece;
    const double all = 0.05 * static_cast<double>(bits.pixels * bits.channels);
    return share(items, helped(bits.threads, items, all), [&](int64_t item, int64_t) {
        work(bits, item * piece, std::min(bits.pixels, (item + 1) * piece));
    });
}

// Thresholds, starts and shifts of candidates for every value of a row, (3, candidates, padded).
std::vector<float> laid_out(const Trials& trials, const TrialPlan& plan) {
    const float* given[3] = {trials.threshold, trials.initial, trials.shift};
    const float fill[3] = {1.0f, 0.0f, 0.0f};
    std::vector<float> all;
    all.reserve(static_cast<size_t>(3 * plan.parameters(trials)));
    for (int which = 0; which < 3; which++)
        for (int64_t k = 0; k < trials.candidates; k++) {
            const float* from = given[which] == nullptr ? nullptr : given[which] + k * trials.channels;
            for (int64_t pixel = 0; from != nullptr && pixel < plan.width; pixel += trials.channels)
                all.insert(all.end(), from, from + trials.channels);
            all.resize(static_cast<size_t>((which * trials.candidates + k + 1) * plan.padded), fill[which]);
        }
    return all;
}

// Memory that a thread keeps for its tables; aligned to an entry.
char* room_for_tables(int64_t bytes) {
    struct Free {
        void operator()(char* memory) const { std::free(memory); }
    };
    thread_local std::unique_ptr<char, Free> memory;
    thread_local int64_t room = 0;
    if (room < bytes) {
        memory.reset();
        room = 0;
        memory.reset(static_cast<char*>(std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64))));
        if (memory == nullptr) throw std::bad_alloc();
        room = bytes;
    }
    return memory.get();
}

}  // namespace
}  // namespace snn

#define SNN_EXPORT __attribute__((visibility("default")))

extern "C" {

SNN_EXPORT int64_t snnconvert_version() { return 14; }

SNN_EXPORT int64_t snnconvert_instructions() { return snn::best_instructions(); }

SNN_EXPORT int snnconvert_layer(const snn::Layer* layer, int64_t instructions) {
    const snn::Kernels& kernels = snn::kernels(instructions);
    try {
        const snn::Plan plan(*layer);
        const int64_t items = plan.items(*layer);
        const int64_t threads = snn::helped(layer->threads, items, snn::guessed_time(*layer));
        const int64_t row = 2 * layer->frames + 16;  // workers count on cache lines of their own
        std::vector<int64_t> counts(static_cast<size_t>(threads * row), 0);
        std::vector<snn::Workspace> spaces(static_cast<size_t>(threads));
        const int failed = snn::share(items, threads, [&](int64_t item, int64_t worker) {
            snn::Workspace& space = spaces[static_cast<size_t>(worker)];
            if (plan.tabled && space.tables == nullptr) space.tables = snn::room_for_tables(plan.table_bytes);
            kernels.layer(*layer, plan, item, space, counts.data() + worker * row);
        });
        for (int64_t worker = 0; worker < threads; worker++)
            for (int64_t i = 0; i < 2 * layer->frames; i++) layer->counts[i] += counts[worker * row + i];
        return failed;
    } catch (const std::exception&) {
        return 1;
    }
}

// units to bits, or bits to units
SNN_EXPORT int snnconvert_condense(const snn::Bits* bits, int64_t instructions) {
    return snn::share_pixels(*bits, snn::kernels(instructions).condense);
}

SNN_EXPORT int snnconvert_expand(const snn::Bits* bits, int64_t instructions) {
    return snn::share_pixels(*bits, snn::kernels(instructions).expand);
}

SNN_EXPORT int snnconvert_parts(const snn::Parts* parts, int64_t instructions) {
    const snn::Kernels& kernels = snn::kernels(instructions);
    const int64_t inputs = std::max<int64_t>(1, parts->parts * parts->channels);
    const int64_t piece = std::max<int64_t>(1, (1 << 16) / inputs), items = (parts->pixels + piece - 1) / piece;
    const double all = 0.1 * static_cast<double>(parts->pixels * inputs);
    return snn::share(items, snn::helped(parts->threads, items, all), [&](int64_t item, int64_t) {
        kernels.parts(*parts, item * piece, std::min(parts->pixels, (item + 1) * piece));
    });
}

SNN_EXPORT int snnconvert_max_pool(const snn::Pool* pool, int64_t instructions) {
    const snn::Kernels& kernels = snn::kernels(instructions);
    const double each = 0.3 * static_cast<double>(pool->k_h * pool->k_w * pool->frames);
    const int64_t outputs = pool->batch * pool->out_h * pool->out_w * pool->channels;
    const int64_t rows = snn::rows_per_tile(*pool), items = pool->batch * ((pool->out_h + rows - 1) / rows);
    const int64_t threads = snn::helped(pool->threads, items, each * static_cast<double>(outputs));
    return snn::share(items, threads, [&](int64_t item, int64_t) { kernels.max_pool(*pool, item); });
}

SNN_EXPORT int snnconvert_sum_pool(const snn::Pool* pool, int64_t instructions) {
    const snn::Kernels& kernels = snn::kernels(instructions);
    const int64_t items = pool->frames * pool->batch;
    const double each = 0.05 * static_cast<double>(pool->k_h * pool->k_w * pool->out_h * pool->out_w * pool->channels);
    return snn::share(items, snn::helped(pool->threads, items, each * static_cast<double>(items)),
                      [&](int64_t item, int64_t) { kernels.sum_pool(*pool, item); });
}

SNN_EXPORT int snnconvert_trials(const snn::Trials* trials, int64_t instructions) {
    const snn::Kernels& kernels = snn::kernels(instructions);
    const snn::TrialPlan plan(*trials);
    const double each = 0.1 * static_cast<double>(trials->candidates * trials->frames);
    const int64_t threads = snn::helped(trials->threads, plan.items, each * static_cast<double>(plan.elements));
    try {
        std::vector<std::vector<float>> rooms(static_cast<size_t>(threads));
        const int64_t sums = plan.sums(*trials);
        const std::vector<float> parameters = snn::laid_out(*trials, plan);
        std::vector<double> found(static_cast<size_t>(plan.items * sums), 0.0);
        const int failed = snn::share(plan.items, threads, [&](int64_t item, int64_t worker) {
            std::vector<float>& room = rooms[static_cast<size_t>(worker)];
            room.resize(static_cast<size_t>(plan.floats(*trials)));
            kernels.trials(*trials, plan, parameters.data(), item, room.data(), found.data() + item * sums);
        });
        for (int64_t item = 0; item < plan.items; item++)
            for (int64_t k = 0; k < trials->candidates; k++)
                for (int64_t pixel = 0; pixel < plan.width; pixel += trials->channels) {
                    const double* from = found.data() + item * sums + k * plan.padded + pixel;
                    double *errors = trials->errors + k * trials->channels, *lacking = trials->lacking + k * trials->channels;
                    for (int64_t c = 0; c < trials->channels; c++) {
                        errors[c] += from[c];
                        lacking[c] += from[plan.parameters(*trials) + c];
                    }
                }
        return failed;
    } catch (const std::exception&) {
        return 1;
    }
}

SNN_EXPORT int snnconvert_sums(const snn::Sums* sums, int64_t) {
    const int64_t piece = std::max<int64_t>(1, (1 << 12) / std::max<int64_t>(1, sums->planes * sums->bytes()));
    const int64_t pieces = (sums->pixels + piece - 1) / piece, items = sums->batch * pieces;
    const double each = 0.3 + 0.06 * static_cast<double>(sums->frames);
    const double all = each * static_cast<double>(sums->batch * sums->pixels * sums->channels);
    return snn::share(items, snn::helped(sums->threads, items, all), [&](int64_t item, int64_t) {
        const int64_t first = item % pieces * piece;
        snn::sum_pixels(*sums, item / pieces, first, std::min(sums->pixels, first + piece));
    });
}

SNN_EXPORT int snnconvert_histogram(const snn::Histogram* histogram, int64_t) {
    constexpr int64_t kAtOnce = snn::Histogram::kAtOnce;
    const int64_t channels = histogram->channels, items = (channels + kAtOnce - 1) / kAtOnce;
    const double all = 2.0 * static_cast<double>(histogram->outer * channels * histogram->inner);
    return snn::share(items, snn::helped(histogram->threads, items, all), [&](int64_t item, int64_t) {
        snn::count_channels(*histogram, item * kAtOnce, std::min(channels, (item + 1) * kAtOnce));
    });
}

SNN_EXPORT int snnconvert_products(const snn::Products* products, int64_t instructions) {
    const snn::Kernels& kernels = snn::kernels(instructions);
    constexpr int64_t kLanes = snn::Products::kLanes;
    const int64_t items = (products->channels + kLanes - 1) / kLanes;
    const double each = 0.1 * static_cast<double>(products->batch * products->positions * kLanes);
    const double all = each * static_cast<double>(items * products->sums());
    const int64_t threads = snn::helped(products->threads, items, all);
    try {
        std::vector<float> rooms(static_cast<size_t>(threads * products->floats()));
        return snn::share(items, threads, [&](int64_t item, int64_t worker) {
            kernels.products(*products, item, rooms.data() + worker * products->floats());
        });
    } catch (const std::exception&) {
        return 1;
    }
}

SNN_EXPORT int snnconvert_windows(const snn::WindowLayer* layer, int64_t instructions) {
    const snn::Kernels& kernels = snn::kernels(instructions);
    constexpr int64_t kElements = 1024;
    const int64_t channels = layer->channels;
    snn::WindowPlan plan{};
    plan.tile_pixels = std::min(layer->pixels, std::max<int64_t>(1, kElements / std::max<int64_t>(1, channels)));
    plan.by_bit = !layer->uniform && layer->levels < 256;
    plan.counters = layer->weight != nullptr ? 1 : plan.by_bit ? layer->window : layer->levels + 1;
    const int64_t items = layer->batch * ((layer->pixels + plan.tile_pixels - 1) / plan.tile_pixels);
    const double each = 0.5 + 0.5 * static_cast<double>(layer->terms);
    const double elements = static_cast<double>(layer->frames * layer->batch * layer->pixels * channels);
    const int64_t threads = snn::helped(layer->threads, items, each * elements);
    try {
        std::vector<std::vector<double>> spread;
        const auto cover = [&](const double* from, int64_t stride) {  // (C) as (tile, C), (pixels, C) as it is
            const int64_t rows = stride ? layer->pixels : plan.tile_pixels;
            spread.emplace_back(static_cast<size_t>(rows * channels));
            for (int64_t p = 0; p < rows; p++)
                std::copy(from + p * stride, from + p * stride + channels, spread.back().begin() + p * channels);
            return spread.back().data();
        };
        plan.threshold = cover(layer->threshold, layer->threshold_stride);
        double* reciprocal = cover(layer->threshold, layer->threshold_stride);
        for (double& value : spread.back()) value = 1.0 / value;
        plan.reciprocal = reciprocal;
        plan.initial = cover(layer->initial, layer->initial_stride);
        std::vector<const double*> factors(static_cast<size_t>(layer->terms), nullptr);
        for (int64_t k = 0; k < layer->terms; k++)
            if (layer->term[k].kind == snn::kScaledUnits)
                factors[static_cast<size_t>(k)] = cover(layer->term[k].factor, layer->term[k].factor_stride);
        plan.factor = factors.data();
        const int64_t row = layer->frames * plan.counters + 16;
        std::vector<int64_t> counts(static_cast<size_t>(threads * row), 0);
        const int failed = snn::share(items, threads, [&](int64_t item, int64_t worker) {
            kernels.windows(*layer, plan, item, counts.data() + worker * row);
        });
        for (int64_t worker = 0; worker < threads; worker++)
            for (int64_t i = 0; i < layer->frames * plan.counters; i++) {
                const int64_t count = counts[static_cast<size_t>(worker * row + i)];
                if (layer->weight != nullptr || plan.by_bit) {
                    layer->counts[i] += count;
                    continue;
                }
                const int64_t code = i % plan.counters;  // of codes to spikes
                for (int64_t phase = 0; phase < layer->window; phase++)
                    if (layer->uniform ? code > phase : code >> (layer->window - 1 - phase) & 1)
                        layer->counts[i / plan.counters * layer->window + phase] += count;
            }
        return failed;
    } catch (const std::exception&) {
        return 1;
    }
}

}  // extern "C"
