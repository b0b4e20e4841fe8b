// Runs the kernel over buffers that end where they must, built with sanitizers; see
// tests/test_native_sanitized.py. SOURCE is the kernel's file. Prints how much it tried.
//
// An argument plants a fault that must be caught: `overrun` hands over fewer bytes than it says,
// `misaligned` floats at an odd address.

#include SOURCE

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

std::mt19937 numbers(0);

// memory of exactly so many elements, so that one beyond is caught
template <typename T>
struct Exactly {
    int64_t size;
    std::unique_ptr<T[]> at;
    explicit Exactly(int64_t count) : size(count), at(new T[count]) {}
};

void fill(Exactly<float>& part) {
    std::normal_distribution<float> draw;
    for (int64_t i = 0; i < part.size; i++) part.at[i] = draw(numbers);
}

Shape shape_of(int64_t heads, int64_t groups, int64_t length, int64_t dim, int64_t block,
               int64_t group, int64_t k_bits, int64_t v_bits, int64_t blocks, int64_t settled,
               int64_t pieces, int64_t threads, int64_t planes) {
    Shape s;
    s.heads = heads, s.rows = groups * length, s.length = length, s.dim = dim, s.block = block;
    s.group = group, s.blocks = blocks, s.k_bits = k_bits, s.v_bits = v_bits;
    s.k = 0, s.k_step = heads * block * dim * k_bits / 8, s.k_low = s.k_step + heads * dim * 2;
    s.v = s.k_low + heads * dim * 2, s.v_step = s.v + heads * block * dim * v_bits / 8;
    s.v_low = s.v_step + heads * block * (dim / group) * 2;
    s.record = s.v_low + heads * block * (dim / group) * 2;
    s.tail = settled + length, s.tail_head = (s.tail + 3) * dim;
    s.pieces = std::max<int64_t>(1, std::min(pieces, blocks)), s.threads = threads;
    s.planes = planes, s.scale = 0.3f;
    return s;
}

struct Case {
    Shape s;
    Exactly<float> query, key, value, work, out;
    Exactly<uint8_t> records, lower;
    int64_t odd;

    // records begin `odd` bytes after an aligned address
    Case(const Shape& shape, int64_t odd = 0)
        : s(shape), query(s.heads * s.rows * s.dim),
          key((s.heads - 1) * s.tail_head + s.tail * s.dim), value(key.size), work(workspace(&s)),
          out(query.size), records(s.blocks * s.record + odd),
          lower(s.planes == 2 ? s.blocks * s.heads * s.block * s.dim : 0), odd(odd) {
        fill(query), fill(key), fill(value);
        for (int64_t i = 0; i < records.size; i++) records.at[i] = numbers() & 0xff;
        for (int64_t i = 0; i < lower.size; i++) lower.at[i] = numbers() & 0xff;
        // as half-precision numbers, no scale infinite
        for (int64_t b = 0; b < s.blocks; b++)
            for (int64_t i = 0; i < s.record; i++)
                if ((i >= s.k_step && i < s.v) || i >= s.v_step)
                    records.at[odd + b * s.record + i] &= 0x3b;
    }

    Parts parts() const {
        Parts p;
        p.query = query.at.get(), p.records = records.at.get() + odd, p.key = key.at.get();
        p.value = value.at.get(), p.work = work.at.get(), p.out = out.at.get();
        p.lower = lower.at.get(), p.lower_has = lower.size;
        p.query_has = query.size, p.records_has = records.size - odd, p.key_has = key.size;
        p.value_has = value.size, p.work_has = work.size, p.out_has = out.size;
        return p;
    }
};

void must(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "not so: %s\n", what);
    std::exit(3);
}

int64_t any(std::initializer_list<int64_t> of) { return of.begin()[numbers() % of.size()]; }

Shape any_shape() {
    const int64_t dim = any({8, 16, 40, 64, 96});
    int64_t group = any({8, 16, 32, 64});
    while (dim % group) group /= 2;
    // codes of 8 or 4 bits can be read by their upper nibbles, of nibbles that lie apart 4
    const int64_t planes = any({0, 0, 1, 2}), least = planes ? 4 : 2, most = planes == 2 ? 4 : 8;
    const auto bits = [&] { return std::min(most, std::max(least, any({8, 4, 2}))); };
    return shape_of(any({1, 2, 3}), any({1, 2, 3, 4}), any({1, 2, 5, 9}), dim, any({8, 24, 64}),
                    group, bits(), bits(), any({0, 1, 2, 5, 9}),
                    any({0, 1, 7, 8, 30, 65}), any({1, 2, 3, 4, 16}), any({1, 2, 3, 4}),
                    planes);
}

// every field of a shape that fits its buffers, given a value that may not: refused, or harmless
int refuse_others() {
    const Case good(any_shape());
    int refused = 0;
    for (size_t i = 0; i < offsetof(Shape, scale) / sizeof(int64_t); i++)
        for (int64_t change : {-1L, 1L, 3L, 8L, 64L, 1L << 20, 1L << 40}) {
            Shape bad = good.s;
            char* field = reinterpret_cast<char*>(&bad) + i * sizeof(int64_t);
            int64_t value;
            std::memcpy(&value, field, sizeof value);
            for (int64_t other : {value + change, value - change, value * change, INT64_MIN, INT64_MAX}) {
                // so many threads are no fault, but take long to start
                if (i == offsetof(Shape, threads) / sizeof(int64_t) && other > 4 && other <= INT32_MAX)
                    continue;
                std::memcpy(field, &other, sizeof other);
                const Parts parts = good.parts();
                refused += attend(&bad, &parts) != 0;
            }
        }
    for (int64_t Parts::*has :
         {&Parts::query_has, &Parts::records_has, &Parts::lower_has, &Parts::key_has,
          &Parts::value_has, &Parts::work_has, &Parts::out_has}) {
        Parts parts = good.parts();
        if (parts.*has == 0) continue;
        parts.*has -= 1;
        must(attend(&good.s, &parts) < 0, "a part that is one short is refused");
        refused++;
    }
    return refused;
}

}  // namespace

int main(int count, char** arguments) {
    const std::string fault = count > 1 ? arguments[1] : "";
    if (!fault.empty()) {
        const Case one(shape_of(2, 2, 3, 16, 8, 8, 4, 8, 2, 5, 2, 2, 0));
        Parts parts = one.parts();
        const Exactly<uint8_t> less(one.records.size - 1);
        const Exactly<char> bytes(one.query.size * 4 + 1);
        std::memset(less.at.get(), 0, less.size), std::memset(bytes.at.get(), 0, bytes.size);
        if (fault == "overrun") parts.records = less.at.get();
        if (fault == "misaligned")
            parts.query = reinterpret_cast<const float*>(bytes.at.get() + 1);
        return static_cast<int>(attend(&one.s, &parts));
    }
    int ran = 0, refused = 0;
    for (; ran < 200; ran++) {
        const Case one(any_shape(), ran % 2);
        const Parts parts = one.parts();
        must(attend(&one.s, &parts) == 0, "a shape that fits is taken");
        for (int64_t i = 0; i < one.out.size; i++)
            must(one.out.at[i] == one.out.at[i], "numbers come out");
    }
    for (int i = 0; i < 10; i++) refused += refuse_others();
    std::printf("%d ran, %d refused\n", ran, refused);
}
