/* The sixteen lanes of contract rule 2, for the files that are compiled once per instruction set.
 *
 * VL is the number of floats in one vector register: 16 (AVX-512), 8 (AVX2) or 4 (plain). A `lanes16` is always sixteen lanes, held
 * in 16/VL vectors, so that one source gives the same bits everywhere. FK_ISA is the name that FK_NAME appends. */
#ifndef FORMATION_LANES_H
#define FORMATION_LANES_H
#include <stdint.h>
#include <string.h>

#define FK_PASTE_NOW(name, isa) name##_##isa
#define FK_PASTE(name, isa) FK_PASTE_NOW(name, isa)
#define FK_NAME(name) FK_PASTE(name, FK_ISA)

#define LANES 16
#define PARTS (LANES / VL)
#define FK_INLINE static inline __attribute__((always_inline, unused))
/* Loops over PARTS or over the constants of a tile must disappear, or the lanes leave their registers. */
#define UNROLL _Pragma("GCC unroll 16")

typedef float fv __attribute__((vector_size(4 * VL)));
typedef int32_t iv __attribute__((vector_size(4 * VL)));
typedef uint32_t uv __attribute__((vector_size(4 * VL)));
typedef struct { fv part[PARTS]; } lanes16;

FK_INLINE fv fv_load(const float *p) { fv v; memcpy(&v, p, sizeof v); return v; }
FK_INLINE void fv_store(float *p, fv v) { memcpy(p, &v, sizeof v); }
#if VL == 16
FK_INLINE fv fv_set(float s) { return (fv){s, s, s, s, s, s, s, s, s, s, s, s, s, s, s, s}; }
#elif VL == 8
FK_INLINE fv fv_set(float s) { return (fv){s, s, s, s, s, s, s, s}; }
#else
FK_INLINE fv fv_set(float s) { return (fv){s, s, s, s}; }
#endif

FK_INLINE lanes16 lanes_zero(void) {
  lanes16 r;
  UNROLL for (int i = 0; i < PARTS; i++) r.part[i] = (fv){0};
  return r;
}

FK_INLINE lanes16 lanes_set(float s) {
  lanes16 r;
  UNROLL for (int i = 0; i < PARTS; i++) r.part[i] = fv_set(s);
  return r;
}

FK_INLINE lanes16 lanes_load(const float *p) {
  lanes16 r;
  UNROLL for (int i = 0; i < PARTS; i++) r.part[i] = fv_load(p + i * VL);
  return r;
}

/* The first `count` (0..16) floats, then zeros: the padded tail of rule 2. */
FK_INLINE lanes16 lanes_load_part(const float *p, int64_t count) {
  float padded[LANES] = {0};
  memcpy(padded, p, (size_t)count * sizeof *p);
  return lanes_load(padded);
}

FK_INLINE void lanes_store(float *p, lanes16 a) {
  UNROLL for (int i = 0; i < PARTS; i++) fv_store(p + i * VL, a.part[i]);
}

FK_INLINE void lanes_store_part(float *p, lanes16 a, int64_t count) {
  float whole[LANES];
  lanes_store(whole, a);
  memcpy(p, whole, (size_t)count * sizeof *p);
}

FK_INLINE lanes16 lanes_add(lanes16 a, lanes16 b) {
  UNROLL for (int i = 0; i < PARTS; i++) a.part[i] = a.part[i] + b.part[i];
  return a;
}

FK_INLINE lanes16 lanes_mul(lanes16 a, lanes16 b) {
  UNROLL for (int i = 0; i < PARTS; i++) a.part[i] = a.part[i] * b.part[i];
  return a;
}

/* The lanes of element i of n, zero-padded at the end, and back. */
FK_INLINE lanes16 take(const float *p, int64_t i, int64_t n) {
  return n - i >= LANES ? lanes_load(p + i) : lanes_load_part(p + i, n - i);
}

FK_INLINE void give(float *p, lanes16 a, int64_t i, int64_t n) {
  if (n - i >= LANES) lanes_store(p + i, a);
  else lanes_store_part(p + i, a, n - i);
}

/* sum + a * b, each operation rounded on its own */
FK_INLINE lanes16 lanes_accumulate(lanes16 sum, lanes16 a, lanes16 b) { return lanes_add(sum, lanes_mul(a, b)); }

/* Rule 2's pairwise sum of sixteen vectors, every element on its own. */
FK_INLINE fv fold_columns(fv *lane) {
  UNROLL for (int half = LANES / 2; half; half /= 2)
    UNROLL for (int j = 0; j < half; j++) lane[j] = lane[j] + lane[j + half];
  return lane[0];
}

/* Rule 2's pairwise sum: j += j+8, j += j+4, j += j+2, j += j+1. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define LANES_SHUFFLE __builtin_shufflevector
#endif
#endif

#ifdef LANES_SHUFFLE
typedef float four_floats __attribute__((vector_size(16)));
typedef float eight_floats __attribute__((vector_size(32)));

FK_INLINE four_floats lanes_fold_to_four(lanes16 a) {
#if VL == 4
  return (a.part[0] + a.part[2]) + (a.part[1] + a.part[3]);
#else
#if VL == 16
  const eight_floats low = LANES_SHUFFLE(a.part[0], a.part[0], 0, 1, 2, 3, 4, 5, 6, 7);
  const eight_floats eight = low + LANES_SHUFFLE(a.part[0], a.part[0], 8, 9, 10, 11, 12, 13, 14, 15);
#else
  const eight_floats eight = a.part[0] + a.part[1];
#endif
  return LANES_SHUFFLE(eight, eight, 0, 1, 2, 3) + LANES_SHUFFLE(eight, eight, 4, 5, 6, 7);
#endif
}

FK_INLINE float lanes_fold(lanes16 a) {
  const four_floats four = lanes_fold_to_four(a), two = four + LANES_SHUFFLE(four, four, 2, 3, 2, 3);
  return two[0] + two[1];
}
#else
FK_INLINE float lanes_fold(lanes16 a) {
  float lane[LANES];
  lanes_store(lane, a);
  UNROLL for (int half = LANES / 2; half; half /= 2)
    UNROLL for (int j = 0; j < half; j++) lane[j] = lane[j] + lane[j + half];
  return lane[0];
}
#endif

/* of K floats, by rule 2 */
FK_INLINE float sum_of_squares(const float *x, int64_t K) {
  lanes16 sum = lanes_zero();
  for (int64_t k = 0; k < K; k += LANES) {
    const lanes16 a = take(x, k, K);
    sum = lanes_accumulate(sum, a, a);
  }
  return lanes_fold(sum);
}
#endif
