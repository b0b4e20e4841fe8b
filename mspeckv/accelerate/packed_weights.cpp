// Products with packed weights; see packed_weights.py, and mspeckv/models/packed.py for the layout.
//
// Codes c of a group of inputs stand for low + step * c, so that
//     sum_i w_i x_i = step * sum_i c_i x_i + low * sum_i x_i.
// A word holds codes of one output's next inputs. One lane of a vector is one output: a code is cut
// out where it stands in its word, as a multiple of a power of two, and x was divided by that power
// before. Both are exact, and no code is ever moved from lane to lane.
//
// A row's result does not depend on how many rows there are: every sum runs in one order.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>
#ifdef __F16C__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int64_t WIDE = 16;  // floats of a vector
#else
constexpr int64_t WIDE = 8;
#endif
typedef float Lanes __attribute__((vector_size(4 * WIDE)));
typedef float Unaligned __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(4 * WIDE)));
typedef int32_t UnalignedWhole __attribute__((vector_size(4 * WIDE), aligned(1), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * WIDE)));
typedef float Eight __attribute__((vector_size(32)));
typedef float UnalignedEight __attribute__((vector_size(32), aligned(4), may_alias));

constexpr int64_t PANEL = 32;  // outputs that lie together
constexpr int64_t GROUP = 32;  // inputs that share a scale
constexpr int64_t PARTS = 3;   // weights that are multiplied by the same rows at once

void store(float* to, Lanes x) { *reinterpret_cast<Unaligned*>(to) = x; }
Lanes spread(float x) { return x - Lanes{}; }
float sum(Eight x) { return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7])); }
int64_t group_bytes(int64_t bits) { return PANEL * 4 * (bits + 1); }

Lanes from_halves(const uint8_t* from) {
#if defined __AVX512F__
    return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined __F16C__
    return (Lanes)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    Bits half;
    for (int64_t i = 0; i < WIDE; i++) {
        uint16_t one;
        std::memcpy(&one, from + 2 * i, sizeof one);
        half[i] = one;
    }
    // the exponent's bias differs by 112; scales are finite
    const Lanes size = (Lanes)((half & 0x7fff) << 13) * 0x1p112f;
    return (Lanes)((Bits)size | (half & 0x8000) << 16);
#endif
}

// code `k` of each word, times 2 ** (BITS * k); the last one of a word, as it is
template <int BITS, int K>
Lanes code(Whole words) {
    constexpr int per = 32 / BITS;
    if constexpr (K == per - 1) return __builtin_convertvector((Whole)((Bits)words >> (BITS * K)), Lanes);
    else return __builtin_convertvector(words & (((1 << BITS) - 1) << (BITS * K)), Lanes);
}

// what x is divided by for it
template <int BITS>
float shrink(int64_t k) {
    constexpr int per = 32 / BITS;
    return k == per - 1 ? 1.f : 1.f / static_cast<float>(INT64_C(1) << (BITS * k));
}

template <int BITS, int K, int ROWS, int COUNT>
void add_codes(const uint8_t* words, const float* x, int64_t row, Lanes (&total)[ROWS][COUNT]) {
    if constexpr (K < 32 / BITS) {
        Lanes codes[COUNT];
        for (int n = 0; n < COUNT; n++)
            codes[n] = code<BITS, K>(reinterpret_cast<const UnalignedWhole*>(words)[n]);
        for (int r = 0; r < ROWS; r++) {
            const Lanes y = spread(x[r * row + K]);
            for (int n = 0; n < COUNT; n++) total[r][n] += codes[n] * y;
        }
        add_codes<BITS, K + 1, ROWS, COUNT>(words, x, row, total);
    }
}

// ROWS rows times COUNT vectors of a panel's outputs; the panel and `out` begin at the first of them
template <int BITS, int ROWS, int COUNT>
void block(const uint8_t* panel, int64_t first, int64_t groups, const float* x, const float* sums,
           float* out, int64_t out_row) {
    Lanes all[ROWS][COUNT];
    for (int r = 0; r < ROWS; r++)
        for (int n = 0; n < COUNT; n++) all[r][n] = spread(0.f);
    for (int64_t g = 0; g < groups; g++, panel += group_bytes(BITS)) {
        Lanes total[ROWS][COUNT];
        for (int r = 0; r < ROWS; r++)
            for (int n = 0; n < COUNT; n++) total[r][n] = spread(0.f);
        for (int64_t w = 0; w < BITS; w++)
            add_codes<BITS, 0, ROWS, COUNT>(panel + (w * PANEL + first) * 4,
                                            x + g * GROUP + w * (32 / BITS), groups * GROUP, total);
        const uint8_t* steps = panel + PANEL * 4 * BITS + first * 2;
        for (int n = 0; n < COUNT; n++) {
            const Lanes step = from_halves(steps + n * WIDE * 2);
            const Lanes low = from_halves(steps + PANEL * 2 + n * WIDE * 2);
            for (int r = 0; r < ROWS; r++) {
                all[r][n] += total[r][n] * step;
                all[r][n] += low * sums[r * groups + g];
            }
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int n = 0; n < COUNT; n++) store(out + r * out_row + first + n * WIDE, all[r][n]);
}

// ROWS rows times a panel: as many outputs at once as sums fit in registers
template <int BITS, int ROWS>
void rows_of(const uint8_t* panel, int64_t groups, const float* x, const float* sums, float* out,
             int64_t out_row) {
    constexpr int count = WIDE == 16 || ROWS > 2 ? 2 : 4;
    for (int64_t first = 0; first < PANEL; first += count * WIDE)
        block<BITS, ROWS, count>(panel, first, groups, x, sums, out, out_row);
}

template <int BITS>
void times_panel(const uint8_t* panel, int64_t rows, int64_t groups, const float* x,
                 const float* sums, float* out, int64_t out_row) {
    constexpr int64_t most = WIDE == 16 ? 9 : 6;  // of 32 registers, or of 16
    const int64_t blocks = (rows + most - 1) / most;
    for (int64_t b = 0, r = 0; b < blocks; b++) {
        const int64_t count = (rows - r + blocks - b - 1) / (blocks - b);
#define ROWS_OF(N) case N: rows_of<BITS, N>(panel, groups, x + r * groups * GROUP, sums + r * groups, out + r * out_row, out_row); break;
        switch (count) { ROWS_OF(1) ROWS_OF(2) ROWS_OF(3) ROWS_OF(4) ROWS_OF(5) ROWS_OF(6) ROWS_OF(7) ROWS_OF(8) ROWS_OF(9) }
        r += count;
    }
}

template <int BITS>
void shrink_rows(const float* from, int64_t count, float* x, float* sums) {
    for (int64_t g = 0; g < count; g++) {
        // eight at a time on every processor: sums do not hang on how wide its vectors are
        Eight total{};
        for (int64_t i = 0; i < GROUP; i += 8) {
            total += *reinterpret_cast<const UnalignedEight*>(from + g * GROUP + i);
            for (int64_t j = i; j < i + 8; j++)
                x[g * GROUP + j] = from[g * GROUP + j] * shrink<BITS>(j % (32 / BITS));
        }
        sums[g] = sum(total);
    }
}

// one word of each of a panel's outputs: a row of PANEL floats for each code
template <int BITS, int K>
void put_codes(const uint8_t* words, const Lanes* step, const Lanes* low, float* out,
               int64_t out_row) {
    if constexpr (K < 32 / BITS) {
        for (int64_t n = 0; n < PANEL / WIDE; n++) {
            const Lanes c = code<BITS, K>(reinterpret_cast<const UnalignedWhole*>(words)[n]);
            store(out + K * out_row + n * WIDE, c * (step[n] * shrink<BITS>(K)) + low[n]);
        }
        put_codes<BITS, K + 1>(words, step, low, out, out_row);
    }
}

// a panel's weights as floats [inputs, PANEL], rows `out_row` apart
template <int BITS>
void unpack_panel(const uint8_t* panel, int64_t groups, float* out, int64_t out_row) {
    for (int64_t g = 0; g < groups; g++, panel += group_bytes(BITS)) {
        Lanes step[PANEL / WIDE], low[PANEL / WIDE];
        for (int64_t n = 0; n < PANEL / WIDE; n++) {
            const uint8_t* steps = panel + PANEL * 4 * BITS + n * WIDE * 2;
            step[n] = from_halves(steps), low[n] = from_halves(steps + PANEL * 2);
        }
        for (int64_t w = 0; w < BITS; w++)
            put_codes<BITS, 0>(panel + w * PANEL * 4, step, low,
                               out + (g * GROUP + w * (32 / BITS)) * out_row, out_row);
    }
}

}  // namespace

extern "C" {

// Mirrors packed_weights.Task: hidden [rows, inputs], each weight's outputs a multiple of PANEL,
// out [rows, outputs]; and how many elements lie from each address on.
struct Task {
    int64_t rows, inputs, bits, threads, parts;
    int64_t outputs[PARTS], packed_has[PARTS], out_has[PARTS];
    int64_t hidden_has, work_has;
    const float* hidden;
    float* work;
    const uint8_t* packed[PARTS];
    float* out[PARTS];
};

}  // extern "C"

namespace {

constexpr int64_t MOST = INT64_C(1) << 31;  // of any size: products of two do not overflow

// whether all that will be read and written is there
bool right(const Task& t, bool unpacking) {
    for (int64_t size : {t.rows, t.inputs, t.threads, t.parts})
        if (size < 1 || size >= MOST) return false;
    if ((t.bits != 4 && t.bits != 8) || t.inputs % GROUP || t.parts > PARTS) return false;
    const int64_t groups = t.inputs / GROUP;
    if (!unpacking && (!t.hidden || t.hidden_has / t.rows < t.inputs)) return false;
    if (!unpacking && (!t.work || t.work_has / t.rows < t.inputs + groups)) return false;
    for (int64_t p = 0; p < t.parts; p++) {
        const int64_t outputs = t.outputs[p];
        if (outputs < 1 || outputs >= MOST || outputs % PANEL || !t.packed[p] || !t.out[p]) return false;
        if (t.packed_has[p] / (outputs / PANEL) / group_bytes(t.bits) < groups) return false;
        if (t.out_has[p] / outputs < (unpacking ? t.inputs : t.rows)) return false;
    }
    return true;
}

template <int BITS, bool UNPACKING>
void run(const Task& t) {
    const int64_t groups = t.inputs / GROUP;
    float *x = t.work, *sums = x + t.rows * t.inputs;
    if (!UNPACKING)
        shrink_rows<BITS>(t.hidden, t.rows * groups, x, sums);
    int64_t ends[PARTS], panels = 0;
    for (int64_t p = 0; p < t.parts; p++) ends[p] = panels += t.outputs[p] / PANEL;
    // little work is done before a second thread has come
    const double each = 65536, work = static_cast<double>(t.rows) * t.inputs * panels * PANEL;
    const int threads = static_cast<int>(std::min<double>(t.threads, std::max(1., work / each)));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < panels; i++) {
        int64_t p = 0;
        while (i >= ends[p]) p++;
        const int64_t at = i - (p ? ends[p - 1] : 0);
        const uint8_t* panel = t.packed[p] + at * groups * group_bytes(BITS);
        if (UNPACKING) unpack_panel<BITS>(panel, groups, t.out[p] + at * PANEL, t.outputs[p]);
        else times_panel<BITS>(panel, t.rows, groups, x, sums, t.out[p] + at * PANEL, t.outputs[p]);
    }
}

}  // namespace

extern "C" {

// Products of all parts; 0 when done. What would go out of bounds is refused, nothing is touched.
int64_t multiply(const Task* task) {
    if (!right(*task, false)) return 1;
    if (task->bits == 4) run<4, false>(*task);
    else run<8, false>(*task);
    return 0;
}

// Every part's weights as floats, out [inputs, outputs].
int64_t unpack(const Task* task) {
    if (!right(*task, true)) return 1;
    if (task->bits == 4) run<4, true>(*task);
    else run<8, true>(*task);
    return 0;
}

}  // extern "C"

// What lies before a decoder layer's attention, and after it: see whole_layers.py.

extern "C" {

// Mirrors whole_layers.Layer. The tasks know their weights; rows and room are given here.
struct Layer {
    int64_t rows, threads, width, heads, kv_heads, size;  // of hidden rows, and of a head
    int64_t hidden_has, cos_has, sin_has, attended_has, out_has, norm_has[2];
    double eps[2];
    const float *hidden, *cos, *sin, *attended;
    float* out;
    const float* norm[2];
    Task query_key_value, output, gate_up, down;
};

}  // extern "C"

namespace {

// each row over the root of its mean square, times weight
void norm(const float* from, const float* weight, double eps, int64_t rows, int64_t width, float* to) {
    for (int64_t r = 0; r < rows; r++, from += width, to += width) {
        Eight total{};
        for (int64_t i = 0; i < width; i += 8) {
            const Eight x = *reinterpret_cast<const UnalignedEight*>(from + i);
            total += x * x;
        }
        const float mean = sum(total) / static_cast<float>(width);
        const float scale = 1.f / std::sqrt(mean + static_cast<float>(eps));
        for (int64_t i = 0; i < width; i++) to[i] = weight[i] * (from[i] * scale);
    }
}

// heads [rows, heads, size] turned to their positions, cos and sin [rows, size]
void rotate(float* x, int64_t rows, int64_t heads, int64_t size, const float* cos, const float* sin) {
    const int64_t half = size / 2;
    for (int64_t r = 0; r < rows; r++, cos += size, sin += size)
        for (int64_t h = 0; h < heads; h++, x += size)
            for (int64_t i = 0; i < half; i++) {
                const float a = x[i], b = x[half + i];
                x[i] = a * cos[i] - b * sin[i];
                x[half + i] = b * cos[half + i] + a * sin[half + i];
            }
}

// exp(x) for x <= 0: a power of two times a polynomial in |r| <= ln(2) / 2 (Cephes, expf)
Lanes exponential(Lanes x) {
    const Lanes least = spread(-87.f), to_whole = spread(12582912.f);  // 1.5 * 2**23
    x = x < least ? least : x;
    const Lanes n = (x * 1.44269504088896341f + to_whole) - to_whole;
    const Lanes r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Lanes y = spread(1.9875691500e-4f);
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        y = y * r + c;
    y = y * r * r + r + 1.f;
    const Lanes number = n == n ? n : spread(0.f);  // a NaN stays one in y
    return y * (Lanes)((__builtin_convertvector(number, Whole) + 127) << 23);
}

// gate * sigmoid(gate) * up, into gate
void gated(float* gate, const float* up, int64_t count) {
    for (int64_t i = 0; i < count; i += WIDE) {
        const Lanes x = *reinterpret_cast<const Unaligned*>(gate + i);
        const Lanes e = exponential(x < 0.f ? x : -x);
        const Lanes share = (x < 0.f ? e : spread(1.f)) / (e + 1.f);
        store(gate + i, x * share * *reinterpret_cast<const Unaligned*>(up + i));
    }
}

void add(float* to, const float* more, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] += more[i];
}

// room for floats, one thread's own from call to call
class Room {
    std::vector<float> all;
    size_t used = 0;

  public:
    void empty(size_t most) {
        if (all.size() < most) all.resize(most);
        used = 0;
    }
    float* take(int64_t count) { return all.data() + (used += count) - count; }
};
thread_local Room room;

// products of rows [rows, inputs] into outs, each [rows, outputs]
bool times(Task task, const Layer& of, const float* hidden, std::initializer_list<float*> outs) {
    task.rows = of.rows, task.threads = of.threads;
    task.hidden = hidden, task.hidden_has = of.rows * task.inputs;
    task.work_has = of.rows * (task.inputs + task.inputs / GROUP), task.work = room.take(task.work_has);
    int64_t p = 0;
    for (float* out : outs) task.out[p] = out, task.out_has[p] = of.rows * task.outputs[p], p++;
    return !multiply(&task);
}

// whether `task` takes so many inputs, and has parts of these outputs
bool fits(const Task& task, int64_t inputs, std::initializer_list<int64_t> outputs) {
    if (task.inputs != inputs || task.parts != static_cast<int64_t>(outputs.size())) return false;
    return std::equal(outputs.begin(), outputs.end(), task.outputs);
}

// whether a layer's parts fit together and all that is read and written is there
bool right(const Layer& l) {
    for (int64_t size : {l.rows, l.threads, l.width, l.heads, l.kv_heads, l.size})
        if (size < 1 || size >= MOST / 64) return false;
    const int64_t query = l.heads * l.size, kv = l.kv_heads * l.size, wide = l.gate_up.outputs[0];
    if (l.size % 2 || l.width % GROUP || wide < 1 || wide >= MOST) return false;
    if (!l.hidden || !l.out || l.hidden_has / l.rows < l.width) return false;
    for (int n = 0; n < 2; n++)
        if (!l.norm[n] || l.norm_has[n] < l.width) return false;
    return fits(l.query_key_value, l.width, {query, kv, kv}) && fits(l.output, query, {l.width}) &&
           fits(l.gate_up, l.width, {wide, wide}) && fits(l.down, wide, {l.width});
}

}  // namespace

extern "C" {

// Queries, keys and values of hidden rows [rows, width]: out holds [rows, heads, size] and twice
// [rows, kv_heads, size], one after the other; queries and keys are turned. 0 when done.
int64_t before(const Layer* layer) {
    const Layer& l = *layer;
    if (!right(l)) return 1;
    const int64_t query = l.rows * l.heads * l.size, kv = l.rows * l.kv_heads * l.size;
    if (l.out_has < query + 2 * kv || !l.cos || !l.sin) return 1;
    if (std::min(l.cos_has, l.sin_has) / l.rows < l.size) return 1;
    room.empty(3 * l.rows * l.width);
    float* normed = room.take(l.rows * l.width);
    norm(l.hidden, l.norm[0], l.eps[0], l.rows, l.width, normed);
    if (!times(l.query_key_value, l, normed, {l.out, l.out + query, l.out + query + kv})) return 1;
    rotate(l.out, l.rows, l.heads, l.size, l.cos, l.sin);
    rotate(l.out + query, l.rows, l.kv_heads, l.size, l.cos, l.sin);
    return 0;
}

// The layer's out [rows, width], of what its attention found [rows, heads, size] and the hidden
// rows that it was given. 0 when done.
int64_t after(const Layer* layer) {
    const Layer& l = *layer;
    if (!right(l) || !l.attended || l.attended_has / l.rows < l.heads * l.size) return 1;
    if (l.out_has / l.rows < l.width) return 1;
    const int64_t count = l.rows * l.width, wide = l.rows * l.gate_up.outputs[0];
    room.empty(6 * count + 4 * wide + 2 * l.rows * l.heads * l.size);
    float *kept = room.take(count), *normed = room.take(count);
    float *gate = room.take(wide), *up = room.take(wide);
    if (!times(l.output, l, l.attended, {kept})) return 1;
    add(kept, l.hidden, count);
    norm(kept, l.norm[1], l.eps[1], l.rows, l.width, normed);
    if (!times(l.gate_up, l, normed, {gate, up})) return 1;
    gated(gate, up, wide);
    if (!times(l.down, l, gate, {l.out})) return 1;
    add(l.out, kept, count);
    return 0;
}

}  // extern "C"
