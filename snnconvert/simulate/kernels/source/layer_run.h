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

// Copies `count` pieces of `size` bytes that are `from_step` and `to_step` bytes apart.
inline void copy_pieces(const uint8_t* from, int64_t from_step, uint8_t* to, int64_t to_step, int64_t size, int64_t count) {
    const auto copy = [&](auto known) {  // sizes known to the compiler
        for (int64_t i = 0; i < count; i++, from += from_step, to += to_step) std::memcpy(to, from, sizeof known);
    };
    switch (size) {
        case 2: return copy(uint16_t{});
        case 4: return copy(uint32_t{});
        case 8: return copy(uint64_t{});
    }
    for (int64_t i = 0; i < count; i++, from += from_step, to += to_step)
        std::memcpy(to, from, static_cast<size_t>(size));
}

// Bytes of one plane of a tile.
inline int64_t plane_bytes(const Tile& tile) { return tile.pixels * bytes_for(tile.width); }

// The tile's pixels of spikes shaped like the output, as planes of bits, each pixel in whole bytes, planes one after the other.
inline const uint8_t* bits_of(const Layer& layer, const Tile& tile, const Term& term, int64_t frame, uint8_t* room) {
    const int64_t plane = bytes_for(layer.out_c), pixel = term.planes * plane, width = bytes_for(tile.width);
    const auto* from = reinterpret_cast<const uint8_t*>(term.spikes) + tile.pixel(layer, frame) * pixel + tile.first / 8;
    if (tile.whole && term.planes == 1) return from;
    for (int64_t k = 0; k < term.planes; k++)
        copy_pieces(from + k * plane, pixel, room + k * plane_bytes(tile), width, width, tile.pixels);
    return room;
}

// Calls row(element, byte of its plane, n) for what lies side by side in a plane of the tile.
template <class Row>
SNN_INLINE void in_rows(const Tile& tile, const Row& row) {
    if (tile.width % 8 == 0) return row(int64_t{0}, int64_t{0}, tile.elements);
    for (int64_t p = 0; p < tile.pixels; p++) row(p * tile.width, p * bytes_for(tile.width), tile.width);
}

// asks for what the next frame reads or writes
inline void fetch(const Layer& layer, const Tile& tile, const int8_t* spikes, int64_t frame, int64_t planes) {
    if (frame >= layer.frames || !tile.whole) return;
    const int64_t pixel = planes > 0 ? planes * bytes_for(layer.out_c) : layer.out_c;
    const int8_t* from = spikes + tile.pixel(layer, frame) * pixel;
    for (int64_t i = 0; i < tile.pixels * pixel; i += 64) __builtin_prefetch(from + i, 1);
}

// current <- values * scale + shift in the type T, or current + them
template <class T, class Value>
inline void add_shifted(const Layer& layer, const Term& term, const Tile& tile, int64_t frame, bool first, float* current) {
    const int64_t own = tile.top * layer.out_w;
    const auto* from = reinterpret_cast<const Value*>(term.values) + tile.pixel(layer, frame) * layer.out_c + tile.first;
    for (int64_t p = 0; p < tile.pixels; p++, from += layer.out_c, current += tile.width) {
        const int64_t at = tile.first + (own + p) * term.factor_stride;
        const T *scale = static_cast<const T*>(term.scale) + at, *shift = static_cast<const T*>(term.shift) + at;
        const auto at_place = [&](int64_t i) { return static_cast<float>(static_cast<T>(from[i]) * scale[i] + shift[i]); };
        if (first)
            for (int64_t i = 0; i < tile.width; i++) current[i] = at_place(i);
        else
            for (int64_t i = 0; i < tile.width; i++) current[i] += at_place(i);
    }
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
        fetch(layer, tile, term.spikes, frame + 1, term.planes);
        const float* factor = prepared.factor;
        const auto add = [&](int64_t at, const int8_t* spikes, int64_t n) {
            if (first)
                for (int64_t i = 0; i < n; i++) current[at + i] = static_cast<float>(spikes[i]) * factor[at + i];
            else
                for (int64_t i = 0; i < n; i++) current[at + i] += static_cast<float>(spikes[i]) * factor[at + i];
        };
        if (term.planes > 0) {
            const uint8_t* bits = bits_of(layer, tile, term, frame, scratch.more_bits);
            const uint8_t* minus = term.planes == 2 ? bits + plane_bytes(tile) : nullptr;
            in_rows(tile, [&](int64_t at, int64_t byte, int64_t n) {
                expand(bits + byte, minus != nullptr ? minus + byte : nullptr, n, scratch.units + at);
            });
            return add(0, scratch.units, tile.elements);
        }
        return each_piece(layer, tile, tile.pixel(layer, frame),
                          [&](int64_t at, int64_t from, int64_t n) { add(at, term.spikes + from, n); });
    }
    if (term.kind == kShifted) {
        const auto add = [&](auto type) {
            using T = decltype(type);
            if (term.double_values) return add_shifted<T, double>(layer, term, tile, frame, first, current);
            add_shifted<T, float>(layer, term, tile, frame, first, current);
        };
        return term.double_scale ? add(double{}) : add(float{});
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

// Planes of what the neurons send, 0 for units.
inline int64_t planes_of(const Layer& layer) {
    switch (layer.model) {
        case kIf: return 1;
        case kTernary: case kTernaryLate: return 2;
        case kBurst: return layer.levels == 1 ? 1 : 0;
        case kGraded: case kSigned: return layer.levels == 1 ? 2 : 0;
        default: return 0;
    }
}

// The convolution whose sums go into the neurons while they are in registers, or -1. It has to be the last summand; of
// two the order does not matter.
inline int64_t fused_term(const Layer& layer, const Tile& tile) {
    if (planes_of(layer) == 0 || layer.wait != 0 || tile.width % 16 != 0) return -1;
    for (int64_t k = layer.terms - 1; k >= 0; k--) {
        const Term& term = layer.term[k];
        const bool whole = term.groups == 1 || term.depthwise;
        if (term.kind == kConvolution && whole && (k == layer.terms - 1 || layer.terms == 2)) return k;
    }
    return -1;
}

// Neurons whose current lies in memory: N vectors of channels from `c` on, of all pixels of a tile.
template <int N, bool kSigned>
SNN_APART void fire_channels(const FireInto<kSigned>& out, const float* current, int64_t pixels, int64_t channels, int64_t c) {
    FireInto<kSigned> sink = out;
    Vector limit[N];
    for (int n = 0; n < N; n++) limit[n] = sink.limit(c + 16 * n);
    for (int64_t at = c; at < pixels * channels; at += channels) {
        SNN_UNROLL
        for (int n = 0; n < N; n++) sink(at + 16 * n, c + 16 * n, load(current + at + 16 * n), 16, limit[n]);
    }
}

template <bool kSigned>
inline void fire_from(const FireInto<kSigned>& sink, const float* current, int64_t pixels, int64_t channels) {
    int64_t c = 0;
    constexpr int kMany = kVectorsAtOnce / 2;
    for (; c + 16 * kMany <= channels; c += 16 * kMany) fire_channels<kMany>(sink, current, pixels, channels, c);
    for (; c < channels; c += 16) fire_channels<1>(sink, current, pixels, channels, c);
}

// Where the tile's spikes of one frame go, if they are bits.
class Sent {
   public:
    Sent(const Layer& layer, const Tile& tile, int64_t frame, Scratch& scratch)
        : planes(planes_of(layer)), layer_(layer), tile_(tile), frame_(frame), plane_(bytes_for(layer.out_c)) {
        if (planes == 0) return;
        to_ = reinterpret_cast<uint8_t*>(layer.spikes) + tile.pixel(layer, frame) * planes * plane_ + tile.first / 8;
        bits = tile.whole && planes == 1 ? to_ : scratch.bits;
        minus = planes == 2 ? bits + plane_bytes(tile) : nullptr;
    }

    int64_t planes;
    uint8_t* bits = nullptr;  // the pixels side by side
    uint8_t* minus = nullptr;

    // after all planes are written
    void finish(int64_t* counts) const {
        const int64_t fired = count_bits(bits, planes * plane_bytes(tile_));
        counts[frame_] += fired;
        counts[layer_.frames + frame_] += fired;
        if (bits == to_) return;
        const int64_t width = bytes_for(tile_.width);
        for (int64_t k = 0; k < planes; k++)
            copy_pieces(bits + k * plane_bytes(tile_), width, to_ + k * plane_, planes * plane_, width, tile_.pixels);
    }

   private:
    const Layer& layer_;
    const Tile& tile_;
    int64_t frame_, plane_;
    uint8_t* to_ = nullptr;
};

void run_layer(const Layer& layer, const Plan& plan, int64_t item, Workspace& workspace, int64_t* counts) {
    const Tile tile(layer, plan, item);
    const int64_t n = tile.elements, fused = fused_term(layer, tile);
    const auto is_scaled = [&](int64_t k) { return layer.term[k].kind == kScaledSpikes && layer.term[k].planes > 0; };
    const int64_t scaled = fused >= 0 && layer.terms == 2 && is_scaled(1 - fused) ? 1 - fused : -1;
    const bool in_memory = planes_of(layer) > 0 && layer.wait == 0 && tile.whole && tile.width % 16 == 0 &&
                           layer.terms == 1 && (layer.term[0].kind == kFrames || layer.term[0].kind == kConstant);
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
    const bool by_channel = (fused >= 0 || in_memory) && layer.threshold_stride == 0;
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
    // work(sink), whose currents, and what is known of them already, go into the neurons while they are in registers
    const auto into_neurons = [&](const Sent& sent, const float* current, int64_t step, const auto& work) {
        const auto with = [&](auto sink) {
            sink.v = scratch.v;
            sink.sent = scratch.sent;
            sink.late = layer.model == kTernaryLate;
            sink.forgets = layer.model == kSigned;
            sink.bits = sent.bits;
            sink.minus = sent.minus;
            sink.by_channel = by_channel;
            sink.threshold = by_channel ? layer.threshold : scratch.threshold;
            sink.current = current;
            sink.scaled = sink.scaled_minus = nullptr;
            if (scaled >= 0) {
                const Term& other = layer.term[scaled];
                sink.scaled = bits_of(layer, tile, other, step, scratch.more_bits);
                if (other.planes == 2) sink.scaled_minus = sink.scaled + plane_bytes(tile);
                sink.factor_by_channel = other.factor_stride == 0;
                sink.factor = sink.factor_by_channel ? other.values : prepared[scaled].factor;
                fetch(layer, tile, other.spikes, step + 1, other.planes);
            }
            work(sink);
        };
        sent.planes == 1 ? with(FireInto<false>{}) : with(FireInto<true>{});
        sent.finish(counts);
    };
    for (int64_t step = 0; step < layer.frames + layer.wait; step++) {
        const int64_t frame = step - layer.wait;
        const bool sends = layer.model != kNone && frame >= 0;
        const Sent sent(layer, tile, sends ? frame : 0, scratch);
        if (sends) fetch(layer, tile, layer.spikes, frame + 1, sent.planes);
        if (step < layer.frames) {
            if (in_memory) {
                const Term& term = layer.term[0];
                const float* from = term.values + tile.pixel(layer, term.kind == kFrames ? step : 0) * layer.out_c;
                into_neurons(sent, nullptr, step, [&](auto& sink) { fire_from(sink, from, tile.pixels, layer.out_c); });
                continue;
            }
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
            if (fused >= 0) {
                const Prepared& last = prepared[fused];
                into_neurons(sent, first ? nullptr : current, step,
                             [&](auto& sink) { convolve(layer, *last.term, last.geometry, tile, step, scratch, sink); });
                continue;
            }
            for (int64_t i = 0; i < n; i++) scratch.v[i] += current[i];
        }
        if (!sends) continue;
        if (sent.planes > 0) {
            int64_t counted[2] = {0, 0};  // again, as bits
            fire(layer, scratch, 0, n, scratch.units, counted, counted + 1);
            in_rows(tile, [&](int64_t at, int64_t byte, int64_t count) {
                condense(scratch.units + at, count, sent.bits + byte, sent.planes == 2 ? sent.minus + byte : nullptr);
            });
            sent.finish(counts);
            continue;
        }
        each_piece(layer, tile, tile.pixel(layer, frame), [&](int64_t at, int64_t to, int64_t count) {
            fire(layer, scratch, at, count, layer.spikes + to, counts + frame, counts + layer.frames + frame);
        });
    }
}

}  // namespace
}  // namespace snn
