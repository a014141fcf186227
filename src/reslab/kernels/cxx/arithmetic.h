// Vectors of fp32 elements, and the two arithmetics of a trunk: fp32, or bf16 products with fp32
// sums.
//
// All code above this file is written once for both. It sees elements as `Stored` (in memory),
// `Vector` (LANES sums) and `Operand` (a factor of products). One `multiply_add` multiplies GROUP
// neighbouring elements of memory in each lane: 1 in fp32, 2 in bf16.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int LANES = 8, REGISTERS = 16;
#else
#error "these kernels need AVX2 with FMA, or AVX-512"
#endif

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float UnalignedVector __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define INLINE_MEMBER inline __attribute__((always_inline))
// The loops over registers must vanish, or the sums would live in memory.
#define UNROLL _Pragma("GCC unroll 64")

INLINE Vector load_fp32(const float* from) { return *(const UnalignedVector*)from; }
INLINE void store_fp32(float* to, Vector numbers) { *(UnalignedVector*)to = numbers; }

// x < 0 ? 0 : x, which keeps a NaN
INLINE Vector relu(Vector x) { return x < Vector{} ? Vector{} : x; }

typedef float HalfVector __attribute__((vector_size(LANES * 2)));
typedef double Doubles __attribute__((vector_size(LANES * 4), aligned(8), may_alias));

// Add each lane to a sum in double precision.
INLINE void add_lanes(double* sums, Vector numbers) {
    HalfVector halves[2];
    std::memcpy(halves, &numbers, sizeof numbers);
    UNROLL for (int k = 0; k < 2; k++)
        *(Doubles*)(sums + k * LANES / 2) += __builtin_convertvector(halves[k], Doubles);
}

// COUNT running sums of vectors in double precision. Adding each vector as it comes would wait for
// the addition before it, so up to MOST vectors are collected and then added in the same order.
template <int COUNT>
class LaneSums {
public:
    // `to` may hold nulls, for vectors that are not needed.
    INLINE_MEMBER explicit LaneSums(double* const* to) { std::copy_n(to, COUNT, this->to); }
    LaneSums(const LaneSums&) = delete;
    ~LaneSums() { flush(); }
    INLINE_MEMBER void add(const Vector* numbers) {
        UNROLL for (int k = 0; k < COUNT; k++) waiting[used][k] = numbers[k];
        if (++used == MOST) flush();
    }

private:
    static constexpr int MOST = 16;
    double* to[COUNT];
    Vector waiting[MOST][COUNT];
    int used = 0;

    __attribute__((noinline)) void flush() {
        for (int k = 0; k < COUNT; k++)
            for (int number = 0; to[k] && number < used; number++)
                add_lanes(to[k], waiting[number][k]);
        used = 0;
    }
};

INLINE void write_or_add(float* to, float number, bool add) { *to = add ? *to + number : number; }

#ifndef RESLAB_BF16

typedef float Stored;
typedef Vector Operand;
constexpr int GROUP = 1;

INLINE Stored stored(float number) { return number; }
INLINE Vector load(const Stored* from) { return load_fp32(from); }
// Store elements, and return what `load` would return.
INLINE Vector store(Stored* to, Vector numbers) {
    store_fp32(to, numbers);
    return numbers;
}
// Store and return elements as `store` does, but zeros where `a` is not positive.
INLINE Vector store_where_positive(Stored* to, Vector numbers, const Stored* a) {
    return store(to, load(a) > Vector{} ? numbers : Vector{});
}
INLINE Operand load_operand(const Stored* from) { return load_fp32(from); }
INLINE Operand broadcast(const Stored* from) { return *from - Vector{}; }
INLINE Vector multiply_add(Vector sum, Operand a, Operand b) { return sum + a * b; }

#else

typedef uint16_t Stored;
typedef __m512i Operand;
constexpr int GROUP = 2;

INLINE Stored stored(float number) {  // rounded to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &number, 4);
    return Stored((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
INLINE Vector widen(__m256i numbers) {
    return (Vector)_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16);
}
INLINE Vector load(const Stored* from) { return widen(_mm256_loadu_si256((const __m256i*)from)); }
// Store elements, and return what `load` would return: the rounded ones.
INLINE Vector store(Stored* to, Vector numbers) {
    __m256i rounded = (__m256i)_mm512_cvtneps_pbh((__m512)numbers);
    _mm256_storeu_si256((__m256i*)to, rounded);
    return widen(rounded);
}
// Store and return elements as `store` does, but zeros where `a` is not positive.
INLINE Vector store_where_positive(Stored* to, Vector numbers, const Stored* a) {
    // a number in bf16 is positive if its bits are those of a positive integer
    const __mmask16 positive =
        _mm256_cmpgt_epi16_mask(_mm256_loadu_si256((const __m256i*)a), _mm256_setzero_si256());
    __m256i rounded = (__m256i)_mm512_maskz_cvtneps_pbh(positive, (__m512)numbers);
    _mm256_storeu_si256((__m256i*)to, rounded);
    return widen(rounded);
}
INLINE Operand load_operand(const Stored* from) { return _mm512_loadu_si512(from); }
INLINE Operand broadcast(const Stored* from) {
    int pair;
    std::memcpy(&pair, from, 4);
    return _mm512_set1_epi32(pair);
}
INLINE Vector multiply_add(Vector sum, Operand a, Operand b) {
    return (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}

#endif

// Memory that will soon be needed. A pass works on one image at a time, which fits in the L2 cache.
// While it computes, it fetches the input of the next step, a few cache lines per tile. The
// processor does not do this by itself, because each image is at a new place in six maps.
class Ahead {
public:
    INLINE_MEMBER void add(const Stored* from, size_t count) {
        ranges[used++] = {(const char*)from, (const char*)(from + count)};
        lines += count * sizeof(Stored) / LINE + 1;
    }
    // Spread the fetching over the coming `calls` of `fetch`.
    INLINE_MEMBER void plan(int calls) { per_call = lines * LINE / calls + LINE; }
    INLINE_MEMBER void fetch() {
        if (current == used) return;
        const char* next = ranges[current].next;
        const char* const end = std::min(next + per_call, ranges[current].end);
        for (; next < end; next += LINE) _mm_prefetch(next, _MM_HINT_T1);
        ranges[current].next = next;
        current += next >= ranges[current].end;
    }

private:
    static constexpr int LINE = 64;
    struct Range {
        const char *next, *end;
    };
    Range ranges[4];
    int used = 0, current = 0;
    size_t lines = 0;
    std::ptrdiff_t per_call = 0;  // bytes
};
