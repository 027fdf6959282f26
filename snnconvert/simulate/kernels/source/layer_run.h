// A work item of a layer of neurons: a tile of outputs of one image walks through time.

namespace snn {
namespace {

// What a work item knows of one term.
struct Prepared {
    const Term* term;
    Geometry geometry;
    float* factor;
};

// Calls piece(at, from, n) for what lies side by side both in the tile and in the layer, (pixels, channels).
template <class Piece>
SNN_INLINE void each_piece(const Layer& layer, const Tile& tile, int64_t first_pixel, const Piece& piece) {
    const int64_t from = first_pixel * layer.out_c + tile.first;
    if (tile.whole) return piece(int64_t{0}, from, tile.elements);
    for (int64_t p = 0; p < tile.pixels; p++) piece(p * tile.width, from + p * layer.out_c, tile.width);
}

// The tile's pixels of spikes shaped like the output, as bits side by side, each pixel in whole bytes.
inline const uint8_t* bits_of(const Layer& layer, const Tile& tile, const int8_t* spikes, int64_t frame, uint8_t* room) {
    const int64_t pixel = (layer.out_c + 7) / 8, width = (tile.width + 7) / 8;
    const auto* from = reinterpret_cast<const uint8_t*>(spikes) + tile.pixel(layer, frame) * pixel + tile.first / 8;
    if (tile.whole) return from;
    for (int64_t p = 0; p < tile.pixels; p++)
        std::memcpy(room + p * width, from + p * pixel, static_cast<size_t>(width));
    return room;
}

// asks for what the next frame reads or writes
inline void fetch(const Layer& layer, const Tile& tile, const int8_t* spikes, int64_t frame, bool bits) {
    if (frame >= layer.frames || !tile.whole) return;
    const int64_t pixel = bits ? (layer.out_c + 7) / 8 : layer.out_c;
    const int8_t* from = spikes + tile.pixel(layer, frame) * pixel;
    for (int64_t i = 0; i < tile.pixels * pixel; i += 64) __builtin_prefetch(from + i, 1);
}

// current <- term, or current + term
inline void add_term(const Layer& layer, const Prepared& prepared, const Tile& tile, int64_t frame, bool first,
                     Scratch& scratch, float* current) {
    const Term& term = *prepared.term;
    if (term.kind == kConvolution) {
        if (first) {
            StoreTo sink{current};
            return convolve(layer, term, prepared.geometry, tile, frame, scratch, sink);
        }
        AddTo sink{current};
        return convolve(layer, term, prepared.geometry, tile, frame, scratch, sink);
    }
    if (term.kind == kScaledSpikes) {
        fetch(layer, tile, term.spikes, frame + 1, term.unit);
        const float* factor = prepared.factor;
        const auto add = [&](int64_t at, const int8_t* spikes, int64_t n) {
            if (first)
                for (int64_t i = 0; i < n; i++) current[at + i] = static_cast<float>(spikes[i]) * factor[at + i];
            else
                for (int64_t i = 0; i < n; i++) current[at + i] += static_cast<float>(spikes[i]) * factor[at + i];
        };
        if (term.unit) {
            const uint8_t* bits = bits_of(layer, tile, term.spikes, frame, scratch.more_bits);
            expand_pixels(bits, tile.pixels, tile.width, scratch.units);
            return add(0, scratch.units, tile.elements);
        }
        return each_piece(layer, tile, tile.pixel(layer, frame),
                          [&](int64_t at, int64_t from, int64_t n) { add(at, term.spikes + from, n); });
    }
    const int64_t first_pixel = tile.pixel(layer, term.kind == kFrames ? frame : 0);
    each_piece(layer, tile, first_pixel, [&](int64_t at, int64_t begin, int64_t n) {
        const float* from = term.values + begin;
        if (first)
            for (int64_t i = 0; i < n; i++) current[at + i] = from[i];
        else
            for (int64_t i = 0; i < n; i++) current[at + i] += from[i];
    });
}

// The convolution whose sums go into the neurons while they are in registers, or -1. It has to be the last summand; of
// two the order does not matter.
inline int64_t fused_term(const Layer& layer, const Tile& tile) {
#if defined(SNN_AVX512)
    if (layer.model != kIf || layer.wait != 0 || tile.width % 16 != 0) return -1;
    for (int64_t k = layer.terms - 1; k >= 0; k--) {
        const Term& term = layer.term[k];
        const bool whole = term.groups == 1 || term.depthwise;
        if (term.kind == kConvolution && whole && (k == layer.terms - 1 || layer.terms == 2)) return k;
    }
#else
    (void)layer, (void)tile;
#endif
    return -1;
}

#if defined(SNN_AVX512)
// Integrate-and-fire neurons whose current lies in memory: N vectors of channels from `c` on, of all pixels of a tile.
template <int N>
SNN_APART void fire_channels(const FireInto& out, const float* current, int64_t pixels, int64_t channels, int64_t c) {
    FireInto sink = out;
    Vector limit[N];
    for (int n = 0; n < N; n++) limit[n] = sink.limit(c + 16 * n);
    for (int64_t at = c; at < pixels * channels; at += channels) {
        SNN_UNROLL
        for (int n = 0; n < N; n++) sink(at + 16 * n, c + 16 * n, load(current + at + 16 * n), 16, limit[n]);
    }
}

inline void fire_from(const FireInto& sink, const float* current, int64_t pixels, int64_t channels) {
    int64_t c = 0;
    for (; c + 64 <= channels; c += 64) fire_channels<4>(sink, current, pixels, channels, c);
    for (; c < channels; c += 16) fire_channels<1>(sink, current, pixels, channels, c);
}
#endif

// Where the tile's spikes of one frame go.
class Sent {
   public:
    Sent(const Layer& layer, const Tile& tile, int64_t frame, Scratch& scratch)
        : layer_(layer), tile_(tile), frame_(frame), width_((tile.width + 7) / 8), pixel_((layer.out_c + 7) / 8) {
        const int64_t first = tile.pixel(layer, frame);
        if (layer.model == kIf) {
            to_ = reinterpret_cast<uint8_t*>(layer.spikes) + first * pixel_ + tile.first / 8;
            bits = tile.whole ? to_ : scratch.bits;
        }
    }

    uint8_t* bits = nullptr;  // of model kIf: the pixels side by side

    // after `bits` is written
    void finish(int64_t* counts) const {
        const int64_t fired = count_bits(bits, tile_.pixels * width_);
        counts[frame_] += fired;
        counts[layer_.frames + frame_] += fired;
        if (tile_.whole) return;
        for (int64_t p = 0; p < tile_.pixels; p++)
            std::memcpy(to_ + p * pixel_, bits + p * width_, static_cast<size_t>(width_));
    }

   private:
    const Layer& layer_;
    const Tile& tile_;
    int64_t frame_, width_, pixel_;
    uint8_t* to_ = nullptr;
};

void run_layer(const Layer& layer, const Plan& plan, int64_t item, Workspace& workspace, int64_t* counts) {
    const Tile tile(layer, plan, item);
    const int64_t n = tile.elements, fused = fused_term(layer, tile);
    const auto is_scaled = [&](int64_t k) { return layer.term[k].kind == kScaledSpikes && layer.term[k].unit; };
    const int64_t scaled = fused >= 0 && layer.terms == 2 && is_scaled(1 - fused) ? 1 - fused : -1;
#if defined(SNN_AVX512)
    const bool in_memory = layer.model == kIf && layer.wait == 0 && tile.whole && tile.width % 16 == 0 &&
                           layer.terms == 1 && (layer.term[0].kind == kFrames || layer.term[0].kind == kConstant);
#endif
    Prepared prepared[kMostTerms];
    int64_t reach = 0, extra = 0;
    for (int64_t k = 0; k < layer.terms; k++) {
        const Term& term = layer.term[k];
        prepared[k].term = &term;
        prepared[k].factor = nullptr;
        if (term.kind == kScaledSpikes) extra += (n + 15) / 16 * 16;
        if (term.kind != kConvolution) continue;
        prepared[k].geometry = Geometry(layer, plan, term, tile.width, tile.top, tile.bottom);
        reach = larger(reach, prepared[k].geometry.weight_rows);
        extra += prepared[k].geometry.room(term);
    }
    Scratch scratch(n, reach, extra, tile.pixels);
    const auto spread = [&](const float* from, int64_t stride, float* to) {
        for (int64_t p = 0; p < tile.pixels; p++)
            std::memcpy(to + p * tile.width, from + (stride ? (tile.top * layer.out_w + p) * stride : 0) + tile.first,
                        sizeof(float) * static_cast<size_t>(tile.width));
    };
    spread(layer.initial, layer.initial_stride, scratch.v);
#if defined(SNN_AVX512)
    const bool by_channel = (fused >= 0 || in_memory) && layer.threshold_stride == 0;
#else
    const bool by_channel = false;
#endif
    if (!by_channel) spread(layer.threshold, layer.threshold_stride, scratch.threshold);
    if (layer.model != kIf) std::memset(scratch.sent, 0, sizeof(float) * static_cast<size_t>(n));
    float* free = scratch.extras;
    char* tables = workspace.tables;
    for (int64_t k = 0; k < layer.terms; k++) {
        const Term& term = layer.term[k];
        if (term.kind == kScaledSpikes) {
            prepared[k].factor = free;
            spread(term.values, term.factor_stride, free);
            free += (n + 15) / 16 * 16;
        } else if (term.kind == kConvolution) {
            prepared[k].geometry.prepare(term, free);
            free += prepared[k].geometry.room(term);
            if (plan.tabled) {
                Tables& own = prepared[k].geometry.tables;
                own.sums = tables;
                if (workspace.block != tile.first) own.fill(term, layer.out_c, tile.first, tables);
                tables += own.all_bytes(term);
            }
        }
    }
    workspace.block = tile.first;
    for (int64_t step = 0; step < layer.frames + layer.wait; step++) {
        const int64_t frame = step - layer.wait;
        const bool sends = layer.model != kNone && frame >= 0;
        const Sent sent(layer, tile, sends ? frame : 0, scratch);
        if (sends) fetch(layer, tile, layer.spikes, frame + 1, layer.model == kIf);
        if (step < layer.frames) {
#if defined(SNN_AVX512)
            if (in_memory) {
                const Term& term = layer.term[0];
                const int64_t pixel = tile.pixel(layer, term.kind == kFrames ? step : 0);
                const FireInto sink{scratch.v, by_channel ? layer.threshold : scratch.threshold, by_channel, nullptr,
                                    nullptr, nullptr, false, sent.bits};
                fire_from(sink, term.values + pixel * layer.out_c, tile.pixels, layer.out_c);
                sent.finish(counts);
                continue;
            }
#endif
            const bool direct = layer.model == kNone && tile.whole;
            float* current = direct ? layer.current + tile.pixel(layer, step) * layer.out_c : scratch.current;
            bool first = true;
            for (int64_t k = 0; k < layer.terms; k++) {
                if (k == fused || k == scaled) continue;
                add_term(layer, prepared[k], tile, step, first, scratch, current);
                first = false;
            }
            if (layer.model == kNone) {
                if (direct) continue;
                each_piece(layer, tile, tile.pixel(layer, step), [&](int64_t at, int64_t to, int64_t count) {
                    std::memcpy(layer.current + to, current + at, sizeof(float) * static_cast<size_t>(count));
                });
                continue;
            }
#if defined(SNN_AVX512)
            if (fused >= 0) {
                FireInto sink{scratch.v, by_channel ? layer.threshold : scratch.threshold, by_channel,
                              first ? nullptr : current, nullptr, nullptr, false, sent.bits};
                if (scaled >= 0) {
                    const Term& other = layer.term[scaled];
                    sink.scaled = bits_of(layer, tile, other.spikes, step, scratch.more_bits);
                    sink.factor_by_channel = other.factor_stride == 0;
                    sink.factor = sink.factor_by_channel ? other.values : prepared[scaled].factor;
                    fetch(layer, tile, other.spikes, step + 1, true);
                }
                convolve(layer, *prepared[fused].term, prepared[fused].geometry, tile, step, scratch, sink);
                sent.finish(counts);
                continue;
            }
#endif
            for (int64_t i = 0; i < n; i++) scratch.v[i] += current[i];
        }
        if (!sends) continue;
        if (layer.model == kIf) {
            fire_units(scratch, n);
            condense_pixels(scratch.units, tile.pixels, tile.width, sent.bits);
            sent.finish(counts);
            continue;
        }
        each_piece(layer, tile, tile.pixel(layer, frame), [&](int64_t at, int64_t to, int64_t count) {
            fire(layer, scratch, at, count, layer.spikes + to, counts + frame);
        });
    }
}

}  // namespace
}  // namespace snn
