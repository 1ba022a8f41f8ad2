/* Norms, rotary embedding, sums and activations: everything that works on one element or one row. */
#include <math.h>

#include "formation.h"
#include "lanes.h"
#include "math32.h"
#include "pool.h"

enum { ELEMENTS = 16384 }; /* one piece of an elementwise call; a multiple of LANES */

/* ---- rmsnorm ---- */

typedef struct { const float *x, *w; float *y; int64_t ldx, ldy, K; float eps; } norm_call;

static void norm_row(const norm_call *c, const float *x, float *y) {
  const float mean = sum_of_squares(x, c->K) / (float)c->K;
  const lanes16 r = lanes_set(1.0f / __builtin_sqrtf(mean + c->eps));
  for (int64_t k = 0; k < c->K; k += LANES)
    give(y, lanes_mul(lanes_mul(take(x, k, c->K), r), take(c->w, k, c->K)), k, c->K);
}

static void norm_rows(void *context, int64_t begin, int64_t end) {
  const norm_call *c = context;
  for (int64_t m = begin; m < end; m++) norm_row(c, c->x + m * c->ldx, c->y + m * c->ldy);
}

int FK_NAME(fk_rmsnorm)(const float *x, int64_t ldx, const float *w, float eps, float *y, int64_t ldy, int64_t M, int64_t K, int threads) {
  if (K < 1) return FK_BAD_ARGUMENT;
  norm_call call = {x, w, y, ldx, ldy, K, eps};
  fk_parallel(M, 1 + ELEMENTS / K, threads, norm_rows, &call);
  return FK_OK;
}

/* ---- rotary embedding ---- */

/* The i-th pair is x[i * step] and the element `apart` further on. */
typedef struct { float *x; const float *cos, *sin; int64_t ldm, ldh, H, half, step, apart; } rope_call;

static void rotate(float *x, const float *cos, const float *sin, int64_t half, int64_t step, int64_t apart) {
  for (int64_t i = 0; i < half; i++) {
    float *first = x + i * step, *second = first + apart;
    const float a = *first, b = *second;
    *first = a * cos[i] - b * sin[i];
    *second = a * sin[i] + b * cos[i];
  }
}

static void rope_rows(void *context, int64_t begin, int64_t end) {
  const rope_call *c = context;
  for (int64_t m = begin; m < end; m++)
    for (int64_t h = 0; h < c->H; h++)
      rotate(c->x + m * c->ldm + h * c->ldh, c->cos + m * c->half, c->sin + m * c->half, c->half, c->step, c->apart);
}

static int rope(rope_call call, int64_t M, int64_t R, int threads) {
  if (R < 0 || R % 2) return FK_BAD_ARGUMENT;
  fk_parallel(M, 1 + ELEMENTS / (call.H * R + 1), threads, rope_rows, &call);
  return FK_OK;
}

int FK_NAME(fk_rope_interleaved)(float *x, int64_t ldm, int64_t ldh, const float *cos, const float *sin, int64_t M, int64_t H, int64_t R,
                                 int threads) {
  return rope((rope_call){x, cos, sin, ldm, ldh, H, R / 2, 2, 1}, M, R, threads);
}

int FK_NAME(fk_rope_halves)(float *x, int64_t ldm, int64_t ldh, const float *cos, const float *sin, int64_t M, int64_t H, int64_t R,
                            int threads) {
  return rope((rope_call){x, cos, sin, ldm, ldh, H, R / 2, 1, R / 2}, M, R, threads);
}

/* ---- two arrays, element by element; y may be one of them ---- */

typedef struct { const float *a, *b; float *y; } pair_call;

static void add_range(void *context, int64_t begin, int64_t end) {
  const pair_call *c = context;
  for (int64_t i = begin; i < end; i += LANES) give(c->y, lanes_add(take(c->a, i, end), take(c->b, i, end)), i, end);
}

int FK_NAME(fk_add)(const float *a, const float *b, float *y, int64_t n, int threads) {
  pair_call call = {a, b, y};
  fk_parallel(n, ELEMENTS, threads, add_range, &call);
  return FK_OK;
}

/* NAME of a, times b */
#define GATED(NAME)                                                                               \
  static void NAME##_mul_range(void *context, int64_t begin, int64_t end) {                       \
    const pair_call *c = context;                                                                 \
    for (int64_t i = begin; i < end; i += LANES) {                                                \
      lanes16 gate = take(c->a, i, end);                                                          \
      UNROLL for (int part = 0; part < PARTS; part++) gate.part[part] = fv_##NAME(gate.part[part]); \
      give(c->y, lanes_mul(gate, take(c->b, i, end)), i, end);                                    \
    }                                                                                             \
  }                                                                                               \
  int FK_NAME(fk_##NAME##_mul)(const float *gate, const float *x, float *y, int64_t n, int threads) { \
    pair_call call = {gate, x, y};                                                                \
    fk_parallel(n, ELEMENTS, threads, NAME##_mul_range, &call);                                   \
    return FK_OK;                                                                                 \
  }

GATED(silu)
GATED(sigmoid)

/* ---- the combination of expert writes ---- */

typedef struct { float *acc; uint8_t *started; const int64_t *rows; const float *y, *gates; int64_t K; } write_call;

static void write_row(float *acc, int started, const float *y, float gate, int weighted, int64_t K) {
  for (int64_t k = 0; k < K; k += LANES) {
    lanes16 v = take(y, k, K);
    if (weighted) v = lanes_mul(lanes_set(gate), v);
    give(acc, started ? lanes_add(take(acc, k, K), v) : v, k, K);
  }
}

static void write_rows(void *context, int64_t begin, int64_t end) {
  const write_call *c = context;
  for (int64_t i = begin; i < end; i++) {
    const int64_t r = c->rows[i];
    write_row(c->acc + r * c->K, c->started[r], c->y + i * c->K, c->gates ? c->gates[i] : 0.0f, c->gates != NULL, c->K);
    c->started[r] = 1;
  }
}

int FK_NAME(fk_accumulate)(float *acc, uint8_t *started, const int64_t *rows, const float *y, const float *gates, int64_t n, int64_t K,
                           int threads) {
  write_call call = {acc, started, rows, y, gates, K};
  fk_parallel(n, 1 + ELEMENTS / (K + 1), threads, write_rows, &call);
  return FK_OK;
}

/* ---- functions of one array ---- */

#define OVER_ARRAY(NAME)                                                                    \
  int FK_NAME(fk_##NAME)(const float *x, float *y, int64_t n) {                             \
    for (int64_t i = 0; i < n; i += LANES) {                                                \
      lanes16 a = take(x, i, n);                                                            \
      UNROLL for (int part = 0; part < PARTS; part++) a.part[part] = fv_##NAME(a.part[part]); \
      give(y, a, i, n);                                                                     \
    }                                                                                       \
    return FK_OK;                                                                           \
  }

OVER_ARRAY(exp)
OVER_ARRAY(log)
OVER_ARRAY(sigmoid)
OVER_ARRAY(silu)
OVER_ARRAY(softplus)

static int all_finite(const float *x, int64_t n) {
  uint32_t worst = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    memcpy(&bits, x + i, sizeof bits);
    bits &= 0x7f800000u;
    worst = bits > worst ? bits : worst;
  }
  return worst < 0x7f800000u;
}

int FK_NAME(fk_finite)(const float *x, int64_t n, int64_t *where) {
  for (int64_t i = 0; i < n; i += ELEMENTS) {
    const int64_t left = n - i, count = left < ELEMENTS ? left : ELEMENTS;
    if (all_finite(x + i, count)) continue;
    for (*where = i; isfinite(x[*where]); ++*where) {}
    return 0;
  }
  return 1;
}
