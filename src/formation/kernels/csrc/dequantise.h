/* Weights as stored -> binary32, sixteen columns at a time (contract rule 5). Compiled once per instruction set.
 *
 * Everything here is exact: widening loses nothing, and products are rounded to bf16 exactly as the contract says, whether computed
 * or looked up. Stored bytes may have any alignment. */
#ifndef FORMATION_DEQUANTISE_H
#define FORMATION_DEQUANTISE_H
#include "formation.h"
#include "lanes.h"
#include "linear_tables.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

enum { GROUP = 32, BLOCK = 128 }; /* columns that share an int4 scale; rows and columns that share an fp8 scale */
enum { LINE = 64 };               /* bytes that memory gives at once */

FK_INLINE uint16_t read16(const char *p) { uint16_t v; memcpy(&v, p, sizeof v); return v; }
FK_INLINE float bits_to_float(uint32_t bits) { float f; memcpy(&f, &bits, sizeof f); return f; }
FK_INLINE uint32_t float_to_bits(float f) { uint32_t bits; memcpy(&bits, &f, sizeof bits); return bits; }

/* ---- sixteen stored values -> sixteen floats ---- */

FK_INLINE lanes16 widen_f32(const char *p) { return lanes_load((const float *)p); }

FK_INLINE lanes16 widen_bf16(const char *p) {
  lanes16 r;
#if VL == 16
  r.part[0] = (fv)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16);
#elif VL == 8
  for (int i = 0; i < 2; i++)
    r.part[i] = (fv)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 16 * i))), 16);
#else
  uint16_t stored[LANES];
  uint32_t bits[LANES];
  memcpy(stored, p, sizeof stored);
  for (int j = 0; j < LANES; j++) bits[j] = (uint32_t)stored[j] << 16;
  memcpy(&r, bits, sizeof r);
#endif
  return r;
}

/* A binary16's exponent and fraction, moved to a binary32's places, are its value times 2^-112. */
FK_INLINE float widen_one_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = (uint32_t)(h & 0x7fff) << 13;
  if (magnitude >= 0x0f800000u) return bits_to_float(sign | 0x70000000u | magnitude); /* infinite or NaN */
  return bits_to_float(sign | float_to_bits(bits_to_float(magnitude) * 0x1p112f));
}

FK_INLINE lanes16 widen_f16(const char *p) {
  lanes16 r;
#if VL == 16
  r.part[0] = (fv)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif VL == 8
  for (int i = 0; i < 2; i++) r.part[i] = (fv)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16 * i)));
#else
  float widened[LANES];
  for (int j = 0; j < LANES; j++) widened[j] = widen_one_f16(read16(p + 2 * j));
  r = lanes_load(widened);
#endif
  return r;
}

/* ---- fp8 e4m3 times the scale of its block ---- */

typedef uint8_t code_bytes __attribute__((vector_size(VL)));

/* Codes without sign: below 8 denormal, a multiple of 2^-9; from 8 on a binary32 whose exponent is 120 too small; 0x7f NaN. */
FK_INLINE fv f8_product(uv code, float scale) {
  const uv magnitude = code & 0x7f, sign = (code & 0x80) << 24;
  const uv denormal = (uv)(__builtin_convertvector((iv)magnitude, fv) * 0x1p-9f), normal = (magnitude << 20) + (120u << 23);
  const uv is_denormal = (uv)(magnitude < 8), is_nan = (uv)(magnitude == 0x7f);
  const uv value = (is_denormal & denormal) | (~is_denormal & normal) | (is_nan & 0x7f800000u) | sign;
  const uv product = (uv)((fv)value * fv_set(scale));
  return (fv)((product + 0x7fff + (product >> 16 & 1)) & 0xffff0000u);
}

FK_INLINE lanes16 dequantise_f8(const char *p, float scale) {
  lanes16 r;
  UNROLL for (int i = 0; i < PARTS; i++) {
#if VL == 8
    const uv codes = (uv)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8 * i)));
#else
    code_bytes bytes;
    memcpy(&bytes, p + i * VL, sizeof bytes);
    const uv codes = __builtin_convertvector(bytes, uv);
#endif
    r.part[i] = f8_product(codes, scale);
  }
  return r;
}

/* A scale that is NaN, as the NaN that stays one when it is rounded: any other could round to a number. */
FK_INLINE float f8_scale(float scale) { return scale == scale ? scale : bits_to_float(0x7fc00000u); }

#if VL == 16
/* The same by table: the significands 0.m (lanes 0 to 7) and 1.m (8 to 15) times the scale, rounded, wait for their sign and power
 * of two. Exact while no product leaves the normal range, and only for codes that are not NaN. */
FK_INLINE fv f8_products(float scale) {
  const fv significand = {0x0p24f, 0x1p22f, 0x2p22f, 0x3p22f, 0x4p22f, 0x5p22f, 0x6p22f, 0x7p22f,
                          0x8p21f, 0x9p21f, 0xap21f, 0xbp21f, 0xcp21f, 0xdp21f, 0xep21f, 0xfp21f};
  const uv product = (uv)(significand * fv_set(scale));
  return (fv)((product + 0x7fff + (product >> 16 & 1)) & 0xffff0000u);
}

FK_INLINE int f8_products_fit(float scale) { return scale >= 0x1p-100f && scale <= 0x1p90f; }

FK_INLINE int f8_any_nan(const char *p) {
  const __m128i codes = _mm_or_si128(_mm_loadu_si128((const __m128i *)p), _mm_set1_epi8((char)0x80));
  return _mm_movemask_epi8(_mm_cmpeq_epi8(codes, _mm_set1_epi8((char)0xff)));
}

/* The same of 64 codes */
FK_INLINE int f8_any_nan_in_line(const char *p) {
  const __m512i codes = _mm512_or_si512(_mm512_loadu_si512(p), _mm512_set1_epi8((char)0x80));
  return _mm512_cmpeq_epi8_mask(codes, _mm512_set1_epi8((char)0xff)) != 0;
}

FK_INLINE lanes16 choose_f8(const char *p, fv products) {
  const __m512i code = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); /* the sign reaches every high bit */
  const __m512i index = _mm512_mask_or_epi32(code, _mm512_test_epi32_mask(code, _mm512_set1_epi32(0x78)), code, _mm512_set1_epi32(8));
  const __m512i power = _mm512_ternarylogic_epi32(_mm512_slli_epi32(code, 20), _mm512_set1_epi32((int)0x87800000u),
                                                  _mm512_set1_epi32(96 << 23), 0xea); /* (shifted and mask) or base */
  return (lanes16){{(fv)_mm512_permutexvar_ps(index, (__m512)products) * (fv)power}};
}
#endif

/* ---- int4: the sixteen possible products of a group, then a choice by nibble ---- */

enum { GROUPS_AT_ONCE = 128 };

/* The scales of a run of groups, each as the place of its row in the table of products and the power of two (with its sign) that
 * completes it. */
typedef struct { uint32_t products[GROUPS_AT_ONCE] __attribute__((aligned(64))), power[GROUPS_AT_ONCE]; } group_scales;

FK_INLINE void split_scale(uint32_t scale, int64_t g, group_scales *out) {
  const uint32_t mantissa = scale & 0x7f, exponent = scale & 0x7f80;
  const uint32_t row = exponent ? mantissa : mantissa + FK_DENORMAL_ROWS;
  out->products[g] = (exponent == 0x7f80 && mantissa ? FK_NAN_ROW : row) * LANES;
  out->power[g] = (exponent ? scale & 0xff80 : (scale & 0x8000) | 0x80) << 16;
}

#if VL == 16
/* Thirty-two groups at a time; those where a scale is not normal again, one by one. */
FK_INLINE void split_scales(const char *stored, int64_t groups, group_scales *out) {
  const __m512i rows = _mm512_set1_epi32(0x7f * LANES), powers = _mm512_set1_epi32((int)0xff800000u);
  for (int64_t first = 0; first < groups; first += 32) {
    const int64_t end = groups < first + 32 ? groups : first + 32;
    const __mmask32 wanted = 0xffffffffu >> (first + 32 - end);
    const __m512i scales = _mm512_maskz_loadu_epi16(wanted, stored + 2 * first);
    const __m512i exponents = _mm512_sub_epi16(_mm512_and_si512(scales, _mm512_set1_epi16(0x7f80)), _mm512_set1_epi16(0x80));
    const __m512i half[2] = {_mm512_cvtepu16_epi32(_mm512_castsi512_si256(scales)),
                             _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(scales, 1))};
    UNROLL for (int i = 0; i < 2; i++) {
      _mm512_storeu_si512(out->products + first + 16 * i, _mm512_and_si512(_mm512_slli_epi32(half[i], 4), rows));
      _mm512_storeu_si512(out->power + first + 16 * i, _mm512_and_si512(_mm512_slli_epi32(half[i], 16), powers));
    }
    if (__builtin_expect(_mm512_mask_cmpge_epu16_mask(wanted, exponents, _mm512_set1_epi16(0x7f00)) != 0, 0))
      for (int64_t g = first; g < end; g++) split_scale(read16(stored + 2 * g), g, out);
  }
}
#else
FK_INLINE void split_scales(const char *stored, int64_t groups, group_scales *out) {
  for (int64_t g = 0; g < groups; g++) split_scale(read16(stored + 2 * g), g, out);
}
#endif

/* Lane q + 8 is bf16(q * scale of group g). */
FK_INLINE lanes16 group_products(const group_scales *scales, int64_t g) {
  return lanes_mul(lanes_load(&fk_int4_products[0][0] + scales->products[g]), lanes_set(bits_to_float(scales->power[g])));
}

#if VL == 16
FK_INLINE lanes16 choose16(lanes16 products, const char *nibbles) {
  const __m512i shifts = _mm512_set_epi64(0x3c00000038, 0x3400000030, 0x2c00000028, 0x2400000020, 0x1c00000018, 0x1400000010,
                                          0x0c00000008, 0x0400000000);
  int64_t stored;
  memcpy(&stored, nibbles, sizeof stored);
  const __m512i index = _mm512_multishift_epi64_epi8(shifts, _mm512_set1_epi64(stored)); /* vpermps reads four bits of each */
  return (lanes16){{(fv)_mm512_permutexvar_ps(index, (__m512)products.part[0])}};
}

/* The same in the order 0, 8, 1, 9 ... 7, 15, which takes a plain shift: unlike the one above it leaves the processor's only unit for
 * shuffles free, and with few rows that unit is the narrowest place. */
FK_INLINE lanes16 choose16_in_pairs(lanes16 products, const char *nibbles) {
  int64_t stored;
  memcpy(&stored, nibbles, sizeof stored);
  const __m512i index = _mm512_srlv_epi64(_mm512_set1_epi64(stored), _mm512_set_epi64(28, 24, 20, 16, 12, 8, 4, 0));
  return (lanes16){{(fv)_mm512_permutexvar_ps(index, (__m512)products.part[0])}};
}

FK_INLINE lanes16 lanes_in_pairs(lanes16 a) {
  const __m512i order = _mm512_set_epi32(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0);
  return (lanes16){{(fv)_mm512_permutexvar_ps(order, (__m512)a.part[0])}};
}

FK_INLINE lanes16 lanes_from_pairs(lanes16 a) {
  const __m512i order = _mm512_set_epi32(15, 13, 11, 9, 7, 5, 3, 1, 14, 12, 10, 8, 6, 4, 2, 0);
  return (lanes16){{(fv)_mm512_permutexvar_ps(order, (__m512)a.part[0])}};
}
#elif VL == 8
FK_INLINE fv choose8(lanes16 products, const char *nibbles) {
  int32_t stored;
  memcpy(&stored, nibbles, sizeof stored);
  const __m256i index = _mm256_srlv_epi32(_mm256_set1_epi32(stored), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
  const __m256 low = _mm256_permutevar8x32_ps((__m256)products.part[0], index);
  const __m256 high = _mm256_permutevar8x32_ps((__m256)products.part[1], index);
  return (fv)_mm256_blendv_ps(low, high, (__m256)_mm256_slli_epi32(index, 28));
}
FK_INLINE lanes16 choose16(lanes16 products, const char *nibbles) {
  return (lanes16){{choose8(products, nibbles), choose8(products, nibbles + 4)}};
}
#else
FK_INLINE lanes16 choose16(lanes16 products, const char *nibbles) {
  float table[LANES], chosen[LANES];
  lanes_store(table, products);
  for (int j = 0; j < LANES; j += 2) {
    const uint8_t pair = (uint8_t)nibbles[j / 2];
    chosen[j] = table[pair & 15];
    chosen[j + 1] = table[pair >> 4];
  }
  return lanes_load(chosen);
}
#endif

#if VL != 16
FK_INLINE lanes16 choose16_in_pairs(lanes16 products, const char *nibbles) { return choose16(products, nibbles); }
FK_INLINE lanes16 lanes_in_pairs(lanes16 a) { return a; }
FK_INLINE lanes16 lanes_from_pairs(lanes16 a) { return a; }
#endif

/* Group g, whose nibbles are given, as two chunks of sixteen floats `step` apart. */
FK_INLINE void dequantise_group(const group_scales *scales, int64_t g, const char *nibbles, float *out, int64_t step) {
  const lanes16 products = group_products(scales, g);
  lanes_store(out, choose16(products, nibbles));
  lanes_store(out + step, choose16(products, nibbles + GROUP / 4));
}

/* ---- a run of columns of one row ---- */

/* Columns [k0, k1) of row `row` as floats, in chunks of sixteen that start `step` floats apart in `out`, the last one padded with zeros.
 * k0 is a multiple of 32 and k1 - k0 at most 4096. */
typedef struct { const fk_weight *w; int64_t row, k0, k1; float *out; int64_t step; } column_run;

/* Applies widen(p) to each sixteen columns of `bytes` each. */
#define WIDEN_RUN(run, bytes, widen)                                                                        \
  do {                                                                                                      \
    const char *p = (const char *)(run)->w->data + ((run)->row * (run)->w->cols + (run)->k0) * (bytes);     \
    float *out = (run)->out;                                                                                \
    int64_t left = (run)->k1 - (run)->k0;                                                                   \
    for (; left >= LANES; left -= LANES, p += LANES * (bytes), out += (run)->step) {                        \
      lanes_store(out, widen(p));                                                                           \
    }                                                                                                       \
    char padded[LANES * (bytes)];                                                                           \
    if (left) {                                                                                             \
      memset(padded, 0, sizeof padded);                                                                     \
      memcpy(padded, p, (size_t)left * (bytes));                                                            \
      lanes_store(out, widen(padded));                                                                      \
    }                                                                                                       \
  } while (0)

FK_INLINE const char *nibbles_at(const fk_weight *w, int64_t row, int64_t k) { return (const char *)w->data + (row * w->cols + k) / 2; }
FK_INLINE const char *scales_at(const fk_weight *w, int64_t row, int64_t k) {
  return (const char *)w->scale + (row * w->cols + k) / GROUP * 2;
}

static inline void dequantise_int4(const column_run *run) {
  const char *p = nibbles_at(run->w, run->row, run->k0);
  const int64_t groups = (run->k1 - run->k0) / GROUP;
  float *out = run->out;
  group_scales scales;
  split_scales(scales_at(run->w, run->row, run->k0), groups, &scales);
  for (int64_t g = 0; g < groups; g++, p += GROUP / 2, out += 2 * run->step) dequantise_group(&scales, g, p, out, run->step);
}

static inline void dequantise_fp8_block(const column_run *run, float scale) {
#if VL == 16
  if (f8_products_fit(scale)) {
    const fv products = f8_products(scale);
#define CHOSEN(p) (__builtin_expect(f8_any_nan(p), 0) ? dequantise_f8(p, scale) : choose_f8(p, products))
    WIDEN_RUN(run, 1, CHOSEN);
#undef CHOSEN
    return;
  }
#endif
  scale = f8_scale(scale);
#define SCALED(p) dequantise_f8(p, scale)
  WIDEN_RUN(run, 1, SCALED);
#undef SCALED
}

static inline void dequantise_fp8(const column_run *run) {
  const int64_t blocks = (run->w->cols + BLOCK - 1) / BLOCK;
  const char *scales = (const char *)run->w->scale + run->row / BLOCK * blocks * (int64_t)sizeof(float);
  column_run part = *run;
  for (; part.k0 < run->k1; part.k0 = part.k1) {
    const int64_t block = part.k0 / BLOCK, end = (block + 1) * BLOCK;
    float scale;
    memcpy(&scale, scales + block * (int64_t)sizeof scale, sizeof scale);
    part.k1 = end < run->k1 ? end : run->k1;
    part.out = run->out + (part.k0 - run->k0) / LANES * run->step;
    dequantise_fp8_block(&part, scale);
  }
}

static inline void dequantise(const column_run *run) {
  switch (run->w->kind) {
    case FK_F32: WIDEN_RUN(run, 4, widen_f32); break;
    case FK_F16: WIDEN_RUN(run, 2, widen_f16); break;
    case FK_BF16: WIDEN_RUN(run, 2, widen_bf16); break;
    case FK_INT4: dequantise_int4(run); break;
    case FK_FP8: dequantise_fp8(run); break;
  }
}
#endif
