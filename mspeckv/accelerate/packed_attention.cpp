// Attention over packed blocks and the float tail behind them; see packed_attention.py.
//
// A block's codes c stand for low + step * c. With K's scales per channel,
//     q . k_t = sum_d q_d low_d + sum_d (q_d step_d) c_td,
// and with V's per token and group of channels,
//     sum_t p_t v_td = sum_t p_t low_t + sum_t (p_t step_t) c_td,
// so scales are applied to queries and weights, once, and codes are only turned into floats, in a
// tile that stays in the first-level cache. Softmax is online (Milakov and Gimelshein, arXiv
// 1805.02867); pieces of the sequence are joined as in Flash-Decoding (Dao et al., 2023).
//
// A row's result does not depend on how many rows a pass has: every sum runs in one order.

#include <algorithm>
#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

typedef float Lanes __attribute__((vector_size(32)));
typedef float Unaligned __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(32)));

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (Whole){__VA_ARGS__})
#endif

constexpr int64_t WIDE = 8;      // floats of a vector
constexpr int64_t TOGETHER = 4;  // tokens scored at once
constexpr float NEVER = -FLT_MAX;  // score of a token that a row does not see
constexpr float MIDDLE = 7.5f;     // what an unknown lower nibble is taken for: the mean of 0 .. 15

Lanes load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
void store(float* to, Lanes x) { *reinterpret_cast<Unaligned*>(to) = x; }
Lanes spread(float x) { return Lanes{x, x, x, x, x, x, x, x}; }
float sum(Lanes x) { return ((x[0] + x[4]) + (x[1] + x[5])) + ((x[2] + x[6]) + (x[3] + x[7])); }
int64_t padded(int64_t count) { return (count + WIDE - 1) / WIDE * WIDE; }

float from_half(uint16_t half) {
    // the exponent's bias differs by 112; a float can hold what is subnormal in half precision
    const uint32_t bits = static_cast<uint32_t>(half & 0x7fff) << 13;
    float x;
    std::memcpy(&x, &bits, sizeof x);
    // infinite and NaN, of the largest exponent, stay so
    x *= (half & 0x7c00) == 0x7c00 ? 0x1p127f * 2 : 0x1p112f;
    return half & 0x8000 ? -x : x;
}

// a record may begin at an odd address
uint16_t half_at(const uint8_t* from) {
    uint16_t half;
    std::memcpy(&half, from, sizeof half);
    return half;
}

// exp(x) for x <= 0: a power of two times a polynomial in |r| <= ln(2) / 2 (Cephes, expf)
Lanes exponential(Lanes x) {
    const Lanes least = spread(-87.f);
    x = x < least ? least : x;
    const Lanes to_whole = spread(12582912.f);  // 1.5 * 2**23: adding it rounds to an integer
    const Lanes n = (x * 1.44269504088896341f + to_whole) - to_whole;
    const Lanes r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Lanes y = spread(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.f;
    // a NaN stays one in y; it has no whole number
    const Lanes number = n == n ? n : spread(0.f);
    const Whole power = (__builtin_convertvector(number, Whole) + 127) << 23;
    return y * (Lanes)power;
}

// codes of one head's block as floats [T, D]; a byte holds tokens T * WIDTH / 8 apart. COARSE, the
// upper nibble of an 8-bit code is known alone: it is a code of 4 bits, or lies in one of 8
template <int WIDTH, bool COARSE>
void unpack(const uint8_t* __restrict__ codes, int64_t bytes, float* __restrict__ tile) {
    constexpr int skip = COARSE && WIDTH == 8 ? 4 : 0, top = (1 << (WIDTH - skip)) - 1;
    for (int plane = 0; plane < 8 / WIDTH; plane++) {
        float* __restrict__ out = tile + plane * bytes;
        for (int64_t i = 0; i < bytes; i++) {
            const int code = (codes[i] >> (plane * WIDTH + skip)) & top;
            out[i] = COARSE ? static_cast<float>(code * 16) + MIDDLE : static_cast<float>(code);
        }
    }
}

// the same of 8-bit codes whose upper and lower nibbles lie apart
void join(const uint8_t* __restrict__ upper, const uint8_t* __restrict__ lower, int64_t bytes,
          float* __restrict__ tile) {
    for (int64_t i = 0; i < bytes; i++)
        tile[i] = static_cast<float>(((upper[i] << 4) & 0xF0) | (lower[i] & 0x0F));
    for (int64_t i = 0; i < bytes; i++)
        tile[bytes + i] = static_cast<float>((upper[i] & 0xF0) | (lower[i] >> 4));
}

template <bool COARSE>
void unpack(int64_t width, const uint8_t* codes, int64_t bytes, float* tile) {
    if (width == 8) unpack<8, COARSE>(codes, bytes, tile);
    else if (width == 4) unpack<4, COARSE>(codes, bytes, tile);
    else unpack<2, COARSE>(codes, bytes, tile);
}

// the sums of four vectors' lanes
void sums(Lanes a, Lanes b, Lanes c, Lanes d, float* out) {
    const Lanes ab = SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    const Lanes cd = SHUFFLE(c, d, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
    const Lanes all = SHUFFLE(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < TOGETHER; i++) out[i] = all[i] + all[i + TOGETHER];
}

// out[r, t] = base[r] + q[r] . tile[t]
template <int ROWS>
void score(const float* q, const float* base, const float* tile, int64_t tokens, int64_t dim,
           float* out, int64_t out_row) {
    for (int64_t t = 0; t < tokens; t += TOGETHER) {
        Lanes total[ROWS][TOGETHER];
        for (int r = 0; r < ROWS; r++)
            for (int j = 0; j < TOGETHER; j++) total[r][j] = spread(0.f);
        for (int64_t d = 0; d < dim; d += WIDE) {
            Lanes x[ROWS];
            for (int r = 0; r < ROWS; r++) x[r] = load(q + r * dim + d);
            for (int j = 0; j < TOGETHER; j++) {
                const Lanes k = load(tile + (t + j) * dim + d);
                for (int r = 0; r < ROWS; r++) total[r][j] += x[r] * k;
            }
        }
        for (int r = 0; r < ROWS; r++) {
            float four[TOGETHER];
            sums(total[r][0], total[r][1], total[r][2], total[r][3], four);
            for (int j = 0; j < TOGETHER; j++) out[r * out_row + t + j] = four[j] + base[r];
        }
    }
}

// acc[r, d] = fade[r] * acc[r, d] + sum_t weight[r, t] tile[t, d], for COLUMNS vectors of channels
template <int ROWS, int COLUMNS>
void mix(const float* weight, int64_t weight_row, const float* tile, int64_t tokens, int64_t dim,
         const float* fade, float* acc) {
    Lanes total[ROWS][COLUMNS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) total[r][c] = load(acc + r * dim + c * WIDE) * fade[r];
    for (int64_t t = 0; t < tokens; t++) {
        Lanes p[ROWS];
        for (int r = 0; r < ROWS; r++) p[r] = spread(weight[r * weight_row + t]);
        for (int c = 0; c < COLUMNS; c++) {
            const Lanes v = load(tile + t * dim + c * WIDE);
            for (int r = 0; r < ROWS; r++) total[r][c] += p[r] * v;
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) store(acc + r * dim + c * WIDE, total[r][c]);
}

template <int ROWS>
void mix(const float* weight, int64_t weight_row, const float* tile, int64_t tokens, int64_t dim,
         int64_t first, int64_t last, const float* fade, float* acc) {
    int64_t d = first;
    for (; d + 4 * WIDE <= last; d += 4 * WIDE)
        mix<ROWS, 4>(weight, weight_row, tile + d, tokens, dim, fade, acc + d);
    for (; d < last; d += WIDE)
        mix<ROWS, 1>(weight, weight_row, tile + d, tokens, dim, fade, acc + d);
}

// three rows at a time: twelve sums and what they are made of fit in sixteen registers
#define BY_THREE(rows, call)                         \
    {                                                \
        int64_t r = 0;                               \
        for (; r + 3 <= (rows); r += 3) call(3);     \
        if ((rows) - r == 2) call(2);                \
        if ((rows) - r == 1) call(1);                \
    }

}  // namespace

extern "C" {

// Mirrors packed_attention.Shape. Offsets are bytes of a record, tail_head floats; planes: 0 where
// codes are whole, 1 where their upper nibbles are read alone, 2 where lower nibbles lie apart.
struct Shape {
    int64_t heads, rows, length, dim, block, group;
    int64_t record, blocks, k, k_step, k_low, v, v_step, v_low, k_bits, v_bits;
    int64_t tail, tail_head, pieces, threads, planes;
    float scale;
};

// Mirrors packed_attention.Parts: query and out [H, R, D]; records [blocks, record]; lower nibbles of
// keys and of values [blocks, 2, H, T / 2, D]; key and value [H, tail, D], heads apart; and how many
// elements lie from each address on.
struct Parts {
    const float* query;
    const uint8_t *records, *lower;
    const float *key, *value;
    float *work, *out;
    int64_t query_has, records_has, lower_has, key_has, value_has, work_has, out_has;
};

}  // extern "C"

namespace {

typedef __int128 Big;                        // products of sizes do not overflow it
constexpr int64_t MOST = INT64_C(1) << 31;   // of any size

#define NEED(kind, field, holds) \
    if (!(holds)) return static_cast<int64_t>(offsetof(kind, field) / sizeof(int64_t)) + 1

// 0, or which field of a Shape, from 1, is not what the code below relies on
int64_t wrong(const Shape& s) {
    for (size_t i = 0; i < offsetof(Shape, scale) / sizeof(int64_t); i++) {
        int64_t size;
        std::memcpy(&size, reinterpret_cast<const char*>(&s) + i * sizeof size, sizeof size);
        if (size < 0 || size > MOST) return static_cast<int64_t>(i) + 1;
    }
    NEED(Shape, heads, s.heads > 0);
    NEED(Shape, length, s.length > 0);
    NEED(Shape, rows, s.rows > 0 && s.rows % s.length == 0);
    NEED(Shape, dim, s.dim > 0 && s.dim % WIDE == 0);
    NEED(Shape, block, s.block > 0 && s.block % WIDE == 0);
    NEED(Shape, group, s.group > 0 && s.group % WIDE == 0 && s.dim % s.group == 0);
    NEED(Shape, k_bits, s.k_bits == 8 || s.k_bits == 4 || s.k_bits == 2);
    NEED(Shape, v_bits, s.v_bits == 8 || s.v_bits == 4 || s.v_bits == 2);
    const Big codes = Big(s.heads) * s.block * s.dim, k_scales = Big(s.heads) * s.dim * 2,
              v_scales = codes / s.group * 2;
    NEED(Shape, k, s.k + codes * s.k_bits / 8 <= s.record);
    NEED(Shape, k_step, s.k_step + k_scales <= s.record);
    NEED(Shape, k_low, s.k_low + k_scales <= s.record);
    NEED(Shape, v, s.v + codes * s.v_bits / 8 <= s.record);
    NEED(Shape, v_step, s.v_step + v_scales <= s.record);
    NEED(Shape, v_low, s.v_low + v_scales <= s.record);
    NEED(Shape, tail, s.tail >= s.length);
    NEED(Shape, pieces, s.pieces > 0 && s.pieces <= std::max<int64_t>(1, s.blocks));
    NEED(Shape, threads, s.threads > 0 && s.threads <= INT32_MAX);
    const auto split = [&](int64_t bits) { return bits == 4 || (bits == 8 && s.planes == 1); };
    NEED(Shape, planes, s.planes >= 0 && s.planes <= 2);
    NEED(Shape, planes, !s.planes || (split(s.k_bits) && split(s.v_bits)));
    return 0;
}

// What one task works with: a piece of one head's tokens.
struct Task {
    const Shape& s;
    float *acc, *peak, *total;                               // [R, D] [R] [R]: kept for the join
    float *q, *base, *p, *w, *fade, *tile, *step, *low;      // [R, D] [R] [R, T] [R, T] [R] [T, D]

    static int64_t floats(const Shape& s) {
        const int64_t scales = std::max(s.block, s.dim);
        return padded(s.rows * (2 * s.dim + 4 + 2 * s.block) + s.block * s.dim + 2 * scales) + WIDE;
    }

    Task(const Shape& shape, float* work) : s(shape) {
        acc = work, peak = acc + s.rows * s.dim, total = peak + s.rows, q = total + s.rows;
        base = q + s.rows * s.dim, p = base + s.rows, w = p + s.rows * s.block;
        fade = w + s.rows * s.block, tile = fade + s.rows, step = tile + s.block * s.dim;
        low = step + std::max(s.block, s.dim);
        std::fill(acc, peak, 0.f), std::fill(peak, total, NEVER), std::fill(total, q, 0.f);
    }

    // scores of `count` tokens in the tile, into p; every row sees `seen(r)` of them
    template <typename Seen>
    void weigh(int64_t count, Seen seen) {
        const int64_t whole = padded(count), T = s.block;
#define SCORE(N) score<N>(q + r * s.dim, base + r, tile, whole, s.dim, p + r * T, T)
        BY_THREE(s.rows, SCORE)
        for (int64_t r = 0; r < s.rows; r++) {
            float* x = p + r * T;
            for (int64_t t = std::max<int64_t>(0, seen(r)); t < whole; t++) x[t] = NEVER;
            Lanes most = spread(peak[r]);
            for (int64_t t = 0; t < whole; t += WIDE) {
                const Lanes y = load(x + t);
                most = y > most ? y : most;
            }
            float m = most[0];
            for (int i = 1; i < WIDE; i++) m = std::max(m, most[i]);
            fade[r] = exponential(spread(peak[r] - m))[0];
            peak[r] = m;
            Lanes sum_of_row = spread(0.f);
            for (int64_t t = 0; t < whole; t += WIDE) {
                const Lanes y = exponential(load(x + t) - m);
                store(x + t, y);
                sum_of_row += y;
            }
            total[r] = total[r] * fade[r] + sum(sum_of_row);
        }
    }

    // codes `bits` wide as floats in the tile
    void codes_of(int64_t bits, const uint8_t* codes, const uint8_t* lower, int64_t from, int64_t bytes) {
        if (s.planes == 2) join(codes, lower + from, bytes, tile);
        else if (s.planes == 1) unpack<true>(bits, codes, bytes, tile);
        else unpack<false>(bits, codes, bytes, tile);
    }

    void packed(const float* query, const uint8_t* record, const uint8_t* lower, int64_t head) {
        const int64_t D = s.dim, T = s.block, groups = D / s.group;
        scales(record + s.k_step, record + s.k_low, head * D, D, 1, s.scale);
        for (int64_t r = 0; r < s.rows; r++) {
            Lanes lows = spread(0.f);
            for (int64_t d = 0; d < D; d += WIDE) {
                const Lanes x = load(query + r * D + d);
                store(q + r * D + d, x * load(step + d));
                lows += x * load(low + d);
            }
            base[r] = sum(lows);
        }
        const int64_t k_bytes = T * s.k_bits / 8 * D, v_bytes = T * s.v_bits / 8 * D;
        codes_of(s.k_bits, record + s.k + head * k_bytes, lower, head * k_bytes, k_bytes);
        weigh(T, [T](int64_t) { return T; });

        const int64_t from = (s.heads + head) * v_bytes;  // keys are as wide, where it matters
        codes_of(s.v_bits, record + s.v + head * v_bytes, lower, from, v_bytes);
        for (int64_t g = 0; g < groups; g++) {
            scales(record + s.v_step, record + s.v_low, head * T * groups + g, T, groups, 1.f);
            const int64_t first = g * s.group, last = first + s.group;
            for (int64_t r = 0; r < s.rows; r++) {
                Lanes lows = spread(0.f);
                for (int64_t t = 0; t < T; t += WIDE) {
                    const Lanes y = load(p + r * T + t);
                    store(w + r * T + t, y * load(step + t));
                    lows += y * load(low + t);
                }
                base[r] = sum(lows);
            }
#define MIX(N) mix<N>(w + r * T, T, tile, T, D, first, last, fade + r, acc + r * D)
            BY_THREE(s.rows, MIX)
            for (int64_t r = 0; r < s.rows; r++)
                for (int64_t d = first; d < last; d++) acc[r * D + d] += base[r];
        }
    }

    // `count` floats from the tail's token `start` on; the pass's own tokens are its last
    void floats_of(const float* query, const float* key, const float* value, int64_t start) {
        const int64_t D = s.dim, T = s.block, count = std::min(T, s.tail - start);
        for (int64_t i = 0; i < s.rows * D; i++) q[i] = query[i] * s.scale;
        std::fill(base, base + s.rows, 0.f);
        fill_tile(key + start * D, count);
        weigh(count, [&](int64_t r) {
            return std::min(count, s.tail - s.length + r % s.length + 1 - start);
        });
        fill_tile(value + start * D, count);
#define MIX_FLOATS(N) mix<N>(p + r * T, T, tile, count, D, 0, D, fade + r, acc + r * D)
        BY_THREE(s.rows, MIX_FLOATS)
    }

    void fill_tile(const float* from, int64_t count) {
        std::copy(from, from + count * s.dim, tile);
        std::fill(tile + count * s.dim, tile + padded(count) * s.dim, 0.f);
    }

    // `count` scales in half precision, `stride` apart
    void scales(const uint8_t* steps, const uint8_t* lows, int64_t first, int64_t count,
                int64_t stride, float times) {
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = (first + i * stride) * 2;
            step[i] = from_half(half_at(steps + at)) * times;
            low[i] = from_half(half_at(lows + at)) * times;
        }
    }
};

// floats of workspace, of a Shape that is right
Big floats_of_work(const Shape& s) { return Big(s.heads) * s.pieces * Task::floats(s); }

// 0, or which field of Parts, from 1, has fewer elements behind it than a Shape that is right needs
int64_t short_of(const Shape& s, const Parts& p) {
    const Big rows = Big(s.heads) * s.rows * s.dim;
    const Big tail = Big(s.heads - 1) * s.tail_head + Big(s.tail) * s.dim;
    NEED(Parts, query, p.query && p.query_has >= rows);
    NEED(Parts, records, !s.blocks || (p.records && p.records_has >= Big(s.blocks) * s.record));
    const Big lower = Big(s.blocks) * s.heads * s.block * s.dim;
    NEED(Parts, lower, s.planes != 2 || !s.blocks || (p.lower && p.lower_has >= lower));
    NEED(Parts, key, p.key && p.key_has >= tail);
    NEED(Parts, value, p.value && p.value_has >= tail);
    NEED(Parts, work, p.work && p.work_has >= floats_of_work(s));
    NEED(Parts, out, p.out && p.out_has >= rows);
    return 0;
}

// one row of one head, from what its pieces kept
void join(const Shape& s, const float* work, int64_t head, int64_t row, float* out) {
    const int64_t each = Task::floats(s), D = s.dim, peak = s.rows * D + row, total = peak + s.rows;
    const float* first = work + head * s.pieces * each;
    float most = NEVER, sum_of_all = 0.f;
    for (int64_t i = 0; i < s.pieces; i++) most = std::max(most, first[i * each + peak]);
    std::fill(out, out + D, 0.f);
    for (int64_t i = 0; i < s.pieces; i++) {
        const float* one = first + i * each;
        const float part = exponential(spread(one[peak] - most))[0];
        sum_of_all += part * one[total];
        for (int64_t d = 0; d < D; d++) out[d] += part * one[row * D + d];
    }
    for (int64_t d = 0; d < D; d++) out[d] /= sum_of_all;
}

}  // namespace

extern "C" {

// Floats of workspace that `attend` needs; -n where field n of the shape, from 1, is refused.
int64_t workspace(const Shape* shape) {
    if (const int64_t field = wrong(*shape)) return -field;
    return static_cast<int64_t>(std::min(floats_of_work(*shape), Big(INT64_MAX)));
}

// 0 when done. What would be read or written out of bounds is refused before anything is touched:
// n for field n of the shape, from 1, and -n for field n of the parts.
int64_t attend(const Shape* shape, const Parts* parts) {
    if (const int64_t field = wrong(*shape)) return field;
    if (const int64_t field = short_of(*shape, *parts)) return -field;
    const Shape& s = *shape;
    const Parts& at = *parts;
    const int64_t tasks = s.heads * s.pieces, D = s.dim;
    const int64_t lower = s.planes == 2 ? s.heads * s.block * D : 0;  // bytes of a block
#pragma omp parallel num_threads(static_cast<int>(s.threads))
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < tasks; i++) {
            const int64_t head = i / s.pieces, piece = i % s.pieces;
            const float* rows = at.query + head * s.rows * D;
            Task task(s, at.work + i * Task::floats(s));
            const int64_t end = s.blocks * (piece + 1) / s.pieces;
            for (int64_t b = s.blocks * piece / s.pieces; b < end; b++)
                task.packed(rows, at.records + b * s.record, at.lower + b * lower, head);
            if (piece < s.pieces - 1) continue;
            const float *key = at.key + head * s.tail_head, *value = at.value + head * s.tail_head;
            for (int64_t start = 0; start < s.tail; start += s.block)
                task.floats_of(rows, key, value, start);
        }
#pragma omp for
        for (int64_t i = 0; i < s.heads * s.rows; i++)
            join(s, at.work, i / s.rows, i % s.rows, at.out + i * D);
    }
    return 0;
}

}  // extern "C"
