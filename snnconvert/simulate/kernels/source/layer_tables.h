// Sums that are looked up: eight inputs of a pixel are a byte of spikes, and a table holds the sums of all 256 of them.
//
// An output is then a fixed number of additions, one for each byte that it sees, whatever spikes: fewer than by lists from
// about one spike in eight inputs on, and without a branch that depends on them. A work item computes a block of outputs
// only, so that the tables that are really read stay in the first two caches.

namespace snn {
namespace {

// Tables (k_h, wide, bytes of a pixel, 256, N vectors) of one block of outputs, and where a tile's spikes lie.
//
// A vector holds 16 outputs as floats; or, of integer weights, 32 in 16 bits each, or 16 of two neighbouring pixels, as
// if these were one pixel with a kernel that is wider by the stride.
struct Tables {
    const char* sums = nullptr;
    int64_t wide = 0, bytes = 0, vectors = 0, table = 0;  // kernel columns; bytes of a pixel; of an entry and a table
    int64_t rows = 0, columns = 0;
    bool pairs = false, copied = false;
    uint8_t* lines = nullptr;  // where `copied`: the tile's input rows (rows, columns, bytes), zero outside the image

    Tables() = default;
    Tables(const Layer& layer, const Plan& plan, const Term& term, int64_t width, int64_t out_rows)
        : wide(kernel_columns(term, plan.pairs)),
          bytes(pixel_bytes(term)),
          vectors(vectors_of(term, width, plan.pairs)),
          table(table_bytes_of(vectors)),
          rows((out_rows - 1) * term.stride_h + (term.k_h - 1) * term.dilation_h + 1),
          columns((layer.out_w - 1) * term.stride_w + (term.k_w - 1) * term.dilation_w + 1),
          pairs(plan.pairs),
          copied(plan.pairs || term.pad_h > 0 || term.pad_w > 0) {
        if (pairs) columns += term.stride_w;  // the last pixel may have no neighbour
    }

    int64_t all_bytes(const Term& term) const { return tables_of(term, pairs) * table; }
    int64_t floats() const { return copied ? (rows * columns * bytes + kSlack) / 4 + 1 : 0; }

    void place(float* to) {
        if (!copied) return;
        lines = reinterpret_cast<uint8_t*>(to);
        std::memset(lines, 0, static_cast<size_t>(rows * columns * bytes + kSlack));
    }

    // the tables of the outputs from `c` on
    void fill(const Term& term, int64_t out_c, int64_t c, char* to) const {
        const int64_t outputs = term.integers != nullptr ? (out_c + 31) / 32 * 32 : (out_c + 15) / 16 * 16;
        for (int64_t position = 0; position < term.k_h * wide; position++)
            for (int64_t input = 0; input < term.in_c; input += 8, to += table) {
                const int64_t inputs = smaller<int64_t>(8, term.in_c - input);
                const int64_t row = (position * term.in_c + input) * outputs + c;
                if (pairs)
                    combine<Shorts>(inputs, 1, to, [&](int64_t i, int64_t) { return of_both(term, position, input + i); });
                else if (term.integers != nullptr)
                    combine<Shorts>(inputs, vectors, to, [&](int64_t i, int64_t n) {
                        return load_shorts(term.integers + row + i * outputs + 32 * n);
                    });
                else
                    combine<Vector>(inputs, vectors, to, [&](int64_t i, int64_t n) {
                        return load(term.values + row + i * outputs + 16 * n);
                    });
            }
    }

    // the sums of all combinations of up to eight rows of n vectors
    template <class V, class Row>
    static void combine(int64_t inputs, int64_t n, char* to, const Row& row) {
        std::memset(to, 0, static_cast<size_t>(n) * sizeof(V));
        for (int64_t i = 0; i < inputs; i++)
            for (int64_t k = 0; k < n; k++) {
                const V added = row(i, k);
                for (int64_t flags = 0; flags < 1 << i; flags++) {
                    V entry;
                    read(entry, to + (flags * n + k) * static_cast<int64_t>(sizeof(V)));
                    entry += added;
                    write(to + ((flags + (1 << i)) * n + k) * static_cast<int64_t>(sizeof(V)), entry);
                }
            }
    }

    // the weights of one input for a pixel and for its right neighbour
    Shorts of_both(const Term& term, int64_t position, int64_t c) const {
        int16_t both[32] = {};
        for (int64_t pixel = 0; pixel < 2; pixel++) {
            const int64_t ky = position / wide, kx = position % wide - pixel * term.stride_w;
            if (kx < 0 || kx >= term.k_w) continue;
            const int16_t* from = term.integers + ((ky * term.k_w + kx) * term.in_c + c) * 32;
            std::memcpy(both + pixel * 16, from, sizeof(int16_t) * 16);
        }
        return load_shorts(both);
    }

    // where the tile's first output begins to look; the bytes from one input row to the next are `line`
    const uint8_t* look_at(const Term& term, const int8_t* image, int64_t tile_top, int64_t& line) const {
        const int64_t top = tile_top * term.stride_h - term.pad_h;
        const auto* spikes = reinterpret_cast<const uint8_t*>(image);
        if (!copied) {
            line = term.in_w * bytes;
            return spikes + top * line;
        }
        line = columns * bytes;
        const int64_t first = larger<int64_t>(0, -top), last = smaller(rows, term.in_h - top);
        const auto row = static_cast<size_t>(larger<int64_t>(0, smaller(term.in_w, columns - term.pad_w)) * bytes);
        for (int64_t y = first; y < last; y++)
            std::memcpy(lines + (y * columns + term.pad_w) * bytes, spikes + (top + y) * term.in_w * bytes, row);
        return lines;
    }
};

constexpr int kMostChains = kVectorsAtOnce / 2;

// adds what `run` bytes select, from one table each; kRun: their number, 0 if known at run time only
template <int N, int kRun, class V>
SNN_INLINE void look_up(const char* tables, const uint8_t* bytes, int64_t run, V (*sum)[N]) {
    constexpr int64_t kEntry = N * kVectorBytes, kTable = table_bytes_of(N);
    const auto add = [&](int chain, int64_t i, uint64_t byte) __attribute__((always_inline)) {
        SNN_UNROLL
        for (int n = 0; n < N; n++) {
            V entry;
            read(entry, tables + i * kTable + static_cast<int64_t>(byte) * kEntry + n * 64);
            sum[chain % kMostChains][n] += entry;
        }
    };
    if (kRun != 0) {
        SNN_UNROLL
        for (int first = 0; first < kRun; first += 8) {
            uint64_t eight;
            std::memcpy(&eight, bytes + first, sizeof eight);  // perhaps too many: there is slack
            SNN_UNROLL
            for (int i = first; i < kRun && i < first + 8; i++) add(i, i, eight >> (8 * (i - first)) & 0xff);
        }
        return;
    }
    int64_t i = 0;
    for (; i + 8 <= run; i += 8) {
        uint64_t eight;
        std::memcpy(&eight, bytes + i, sizeof eight);
        SNN_UNROLL
        for (int k = 0; k < 8; k++) add(k, i + k, eight >> (8 * k) & 0xff);
    }
    for (; i + 4 <= run; i += 4) {
        uint32_t four;
        std::memcpy(&four, bytes + i, sizeof four);
        SNN_UNROLL
        for (int k = 0; k < 4; k++) add(k, i + k, four >> (8 * k) & 0xff);
    }
    for (; i < run; i++) add(0, i, bytes[i]);
}

// What is computed at once: outputs [c, c + width) of so many rows.
struct Block {
    int64_t c, width, rows;
};

// What becomes of a block's sums, N vectors of them: what they begin with, and what follows.
template <class V, int N>
struct After;

template <int N>
struct After<Vector, N> {
    Vector start[N], limit[N];

    template <class Sink>
    After(const Term& term, int64_t, int64_t c, int64_t width, const Sink& sink) {
        for (int n = 0; n < N; n++) {
            start[n] = load(term.bias + c + 16 * n);
            limit[n] = width > 16 * n ? sink.limit(c + 16 * n) : Vector{};
        }
    }

    template <class Sink>
    SNN_INLINE void send(Sink& sink, int64_t at, int64_t c, int64_t width, const Vector* sum) const {
        SNN_UNROLL
        for (int n = 0; n < N; n++)
            if (width > 16 * n) sink(at + 16 * n, c + 16 * n, sum[n], width - 16 * n, limit[n]);
    }
};

template <int N>
struct After<Shorts, N> {
    Shorts start[N] = {};
    Vector step[2 * N], bias[2 * N], limit[2 * N];

    template <class Sink>
    After(const Term& term, int64_t row, int64_t c, int64_t width, const Sink& sink) {
        for (int n = 0; n < 2 * N; n++) {
            const bool any = width > 16 * n;
            step[n] = any ? load(term.steps + c + 16 * n) : Vector{};
            bias[n] = any ? load(term.steps + row + c + 16 * n) : Vector{};
            limit[n] = any ? sink.limit(c + 16 * n) : Vector{};
        }
    }

    template <class Sink>
    SNN_INLINE void send(Sink& sink, int64_t at, int64_t c, int64_t width, const Shorts* sum) const {
        SNN_UNROLL
        for (int n = 0; n < 2 * N; n++)
            if (width > 16 * n)
                sink(at + 16 * n, c + 16 * n, half_as_floats(sum[n / 2], n % 2) * step[n] + bias[n], width - 16 * n,
                     limit[n]);
    }

    // of two pixels: the second one only if it is `there`
    template <class Sink>
    SNN_INLINE void send_pair(Sink& sink, int64_t at, int64_t c, int64_t width, const Shorts& sum, bool there) const {
        sink(at, c, half_as_floats(sum, 0) * step[0] + bias[0], width, limit[0]);
        if (there) sink(at + width, c, half_as_floats(sum, 1) * step[0] + bias[0], width, limit[0]);
    }
};

// The outputs of a tile. kLines: kernel rows, kRun: bytes of a kernel row, 0 if known at run time only.
template <class V, int N, int kLines, int kRun, bool kPairs, class Sink>
SNN_APART void look_up_tile(const Layer& layer, const Term& term, const Tables& tables, const Block& block,
                            const uint8_t* spikes, int64_t line, Sink& out) {
    Sink sink = out;  // copies that no store can change
    const After<V, N> after(term, (layer.out_c + 31) / 32 * 32, block.c, block.width, sink);
    const int64_t c = block.c, width = block.width, out_rows = block.rows;
    const int64_t bytes = tables.bytes, across = term.stride_w * bytes, next = term.dilation_w * bytes;
    const bool whole = term.dilation_w == 1;  // the pixels of a kernel row lie side by side
    const int64_t run = kRun != 0 ? kRun : whole ? tables.wide * bytes : bytes, runs = whole ? 1 : tables.wide;
    const int64_t k_h = kLines != 0 ? kLines : term.k_h, down = term.dilation_h * line, rows_down = term.stride_h * line;
    const int64_t out_w = layer.out_w;
    const int64_t more = run * table_bytes_of(N);  // not from memory: a constant
    const char* first_table = tables.sums;
    constexpr int kStep = kPairs ? 2 : 1;
    int64_t at = 0;
    for (int64_t y = 0; y < out_rows; y++, spikes += rows_down) {
        const uint8_t* pixel = spikes;
        for (int64_t x = 0; x < out_w; x += kStep, pixel += kStep * across) {
            V sum[kMostChains][N] = {};
            SNN_UNROLL
            for (int n = 0; n < N; n++) sum[0][n] = after.start[n];
            const char* table = first_table;
            const uint8_t* seen = pixel;
            if (kLines != 0) {
                SNN_UNROLL
                for (int ky = 0; ky < kLines; ky++) look_up<N, kRun>(table + ky * more, seen + ky * down, run, sum);
            } else {
                for (int64_t ky = 0; ky < k_h; ky++, seen += down)
                    for (int64_t kx = 0; kx < runs; kx++, table += more)
                        look_up<N, kRun>(table, seen + kx * next, run, sum);
            }
            SNN_UNROLL
            for (int n = 0; n < N; n++)
                for (int chains = kMostChains / 2; chains > 0; chains /= 2)
                    for (int chain = 0; chain < chains; chain++) sum[chain][n] += sum[chain + chains][n];
            if constexpr (kPairs)
                after.send_pair(sink, at, c, width, sum[0][0], x + 1 < out_w);
            else
                after.send(sink, at, c, width, sum[0]);
            at += x + kStep <= out_w ? kStep * width : width;
        }
    }
    out = sink;
}

template <class V, int N, bool kPairs, class Sink>
inline void look_up_with(const Layer& layer, const Term& term, const Tables& tables, const Block& block,
                         const uint8_t* spikes, int64_t line, Sink& sink) {
    const int64_t run = tables.wide * tables.bytes;
    const auto with = [&](const auto& tile) { tile(layer, term, tables, block, spikes, line, sink); };
    if (term.dilation_w == 1 && term.k_h == 3 && N == 1) {  // 16 inputs, in one plane or in two
        if (run == (kPairs ? 8 : 6)) return with(look_up_tile<V, N, 3, kPairs ? 8 : 6, kPairs, Sink>);
        if (run == (kPairs ? 16 : 12)) return with(look_up_tile<V, N, 3, kPairs ? 16 : 12, kPairs, Sink>);
    }
    if (term.k_h == 1 && term.k_w == 1 && !kPairs) {
        switch (run) {
            case 4: return with(look_up_tile<V, N, 1, 4, kPairs, Sink>);
            case 8: return with(look_up_tile<V, N, 1, 8, kPairs, Sink>);
        }
        return with(look_up_tile<V, N, 1, 0, kPairs, Sink>);
    }
    with(look_up_tile<V, N, 0, 0, kPairs, Sink>);
}

// Outputs [c, c + width) of the tile's rows [top, bottom); the sink's places count in pixels of `width`.
template <class Sink>
inline void convolve_by_tables(const Layer& layer, const Term& term, const Tables& tables, const int8_t* image,
                               int64_t c, int64_t width, int64_t top, int64_t bottom, Sink& sink) {
    int64_t line = 0;
    const uint8_t* spikes = tables.look_at(term, image, top, line);
    const Block block{c, width, bottom - top};
    const auto with = [&](const auto& look) { look(layer, term, tables, block, spikes, line, sink); };
    if (tables.pairs) return with(look_up_with<Shorts, 1, true, Sink>);
    if (term.integers != nullptr)
        return tables.vectors == 1 ? with(look_up_with<Shorts, 1, false, Sink>)
                                   : with(look_up_with<Shorts, 2, false, Sink>);
    tables.vectors == 1 ? with(look_up_with<Vector, 1, false, Sink>) : with(look_up_with<Vector, 2, false, Sink>);
}

}  // namespace
}  // namespace snn
