/* The gated delta rule (arXiv 2412.06464) in its recurrent form, and what stands around it in a layer: a causal convolution, norms, gates.
 *
 * A head's state S [K, V] takes one row after the other, so that prefill, decode and replay are one arithmetic. Its columns never meet:
 * a piece of work is sixteen columns of one head over all rows, K lines of sixteen floats, which stay in the first cache. */
#include <math.h>

#include "formation.h"
#include "lanes.h"
#include "math32.h"
#include "pool.h"

enum {
  ELEMENTS = 16384, /* one piece of an elementwise call; a multiple of LANES */
  STEPS = 65536,    /* one piece of the delta rule, in lines of the state times rows */
  SWEPT = 8,        /* of rule 2's lanes, summed in one sweep over the state: these and the operands stay in registers */
};

/* ---- causal convolution ---- */

typedef struct { const float *x, *w; float *y; int64_t D, W; } conv_call;

/* Rule 2 over W taps. A lane that no tap reaches is +0, and adding it changes nothing: no lane is ever -0. */
static lanes16 convolve(const conv_call *c, const float *x, int64_t d) {
  lanes16 lane[LANES];
  const int64_t used = c->W < LANES ? c->W : LANES;
  for (int64_t j = 0; j < used; j++) lane[j] = lanes_zero();
  for (int64_t j = 0; j < c->W; j++)
    lane[j % LANES] = lanes_accumulate(lane[j % LANES], take(x + j * c->D, d, c->D), take(c->w + j * c->D, d, c->D));
  for (int64_t half = LANES / 2; half; half /= 2)
    for (int64_t j = 0; j < half && j + half < used; j++) lane[j] = lanes_add(lane[j], lane[j + half]);
  return lane[0];
}

static void conv_rows(void *context, int64_t begin, int64_t end) {
  const conv_call *c = context;
  for (int64_t m = begin; m < end; m++)
    for (int64_t d = 0; d < c->D; d += LANES) {
      lanes16 sum = convolve(c, c->x + m * c->D, d);
      UNROLL for (int part = 0; part < PARTS; part++) sum.part[part] = fv_silu(sum.part[part]);
      give(c->y + m * c->D, sum, d, c->D);
    }
}

int FK_NAME(fk_conv_silu)(const float *x, const float *w, float *y, int64_t M, int64_t D, int64_t W, int threads) {
  if (W < 1) return FK_BAD_ARGUMENT;
  conv_call call = {x, w, y, D, W};
  fk_parallel(M, 1 + ELEMENTS / (D + 1), threads, conv_rows, &call);
  return FK_OK;
}

/* ---- norms ---- */

typedef struct { const float *x, *z, *w; float *y; int64_t K; float eps; } norm_call;

static void l2norm_rows(void *context, int64_t begin, int64_t end) {
  const norm_call *c = context;
  for (int64_t m = begin; m < end; m++) {
    const float *x = c->x + m * c->K;
    const lanes16 r = lanes_set(1.0f / __builtin_sqrtf(sum_of_squares(x, c->K) + c->eps));
    for (int64_t k = 0; k < c->K; k += LANES) give(c->y + m * c->K, lanes_mul(take(x, k, c->K), r), k, c->K);
  }
}

static void gated_norm_rows(void *context, int64_t begin, int64_t end) {
  const norm_call *c = context;
  for (int64_t m = begin; m < end; m++) {
    const float *x = c->x + m * c->K, *z = c->z + m * c->K;
    const lanes16 r = lanes_set(1.0f / __builtin_sqrtf(sum_of_squares(x, c->K) / (float)c->K + c->eps));
    for (int64_t k = 0; k < c->K; k += LANES) {
      lanes16 gate = take(z, k, c->K);
      UNROLL for (int part = 0; part < PARTS; part++) gate.part[part] = fv_silu(gate.part[part]);
      give(c->y + m * c->K, lanes_mul(lanes_mul(lanes_mul(take(x, k, c->K), r), take(c->w, k, c->K)), gate), k, c->K);
    }
  }
}

int FK_NAME(fk_l2norm)(const float *x, float eps, float *y, int64_t M, int64_t K, int threads) {
  if (K < 1) return FK_BAD_ARGUMENT;
  norm_call call = {x, NULL, NULL, y, K, eps};
  fk_parallel(M, 1 + ELEMENTS / K, threads, l2norm_rows, &call);
  return FK_OK;
}

int FK_NAME(fk_rmsnorm_gated)(const float *x, const float *z, const float *w, float eps, float *y, int64_t M, int64_t K, int threads) {
  if (K < 1) return FK_BAD_ARGUMENT;
  norm_call call = {x, z, w, y, K, eps};
  fk_parallel(M, 1 + ELEMENTS / K, threads, gated_norm_rows, &call);
  return FK_OK;
}

/* ---- gates ---- */

typedef struct { const float *b, *a, *a_log, *dt_bias; float *beta, *decay; int64_t H; } gates_call;

static void gates_row(const gates_call *c, int64_t at) {
  for (int64_t h = 0; h < c->H; h += LANES) {
    lanes16 beta = take(c->b + at, h, c->H), step = lanes_add(take(c->a + at, h, c->H), take(c->dt_bias, h, c->H));
    const lanes16 rate = lanes_exp(take(c->a_log, h, c->H));
    UNROLL for (int i = 0; i < PARTS; i++) {
      beta.part[i] = fv_sigmoid(beta.part[i]);
      step.part[i] = fv_exp(-(rate.part[i] * fv_softplus(step.part[i])));
    }
    give(c->beta + at, beta, h, c->H);
    give(c->decay + at, step, h, c->H);
  }
}

static void gates_rows(void *context, int64_t begin, int64_t end) {
  const gates_call *c = context;
  for (int64_t m = begin; m < end; m++) gates_row(c, m * c->H);
}

int FK_NAME(fk_delta_gates)(const float *b, const float *a, const float *a_log, const float *dt_bias, float *beta, float *decay, int64_t M,
                            int64_t H, int threads) {
  gates_call call = {b, a, a_log, dt_bias, beta, decay, H};
  fk_parallel(M, 1 + ELEMENTS / (H + 1), threads, gates_rows, &call);
  return FK_OK;
}

/* ---- the recurrence ---- */

typedef struct {
  const float *q, *k, *v, *decay, *beta;
  float scale, *state, *y;
  int64_t M, G, H, K, V, lines, blocks; /* lines: K rounded up to sixteen; blocks: of sixteen columns of a head */
  int status;
} delta_call;

/* S = S * decay, and rule 2 over the lines of S * k, for VL columns */
FK_INLINE fv decay_and_predict(float *s, const float *k, float decay, int64_t lines) {
  fv lane[LANES];
  for (int first = 0; first < LANES; first += SWEPT) {
    fv sum[SWEPT] = {0};
    for (int64_t i = first; i < lines; i += LANES)
      UNROLL for (int j = 0; j < SWEPT; j++) {
        const fv line = fv_load(s + (i + j) * LANES) * fv_set(decay);
        fv_store(s + (i + j) * LANES, line);
        sum[j] = sum[j] + line * fv_set(k[i + j]);
      }
    UNROLL for (int j = 0; j < SWEPT; j++) lane[first + j] = sum[j];
  }
  return fold_columns(lane);
}

/* S = S + k d, and rule 2 over the lines of S * q, for VL columns */
FK_INLINE fv update_and_read(float *s, const float *k, const float *q, fv delta, int64_t lines) {
  fv lane[LANES];
  for (int first = 0; first < LANES; first += SWEPT) {
    fv sum[SWEPT] = {0};
    for (int64_t i = first; i < lines; i += LANES)
      UNROLL for (int j = 0; j < SWEPT; j++) {
        const fv line = fv_load(s + (i + j) * LANES) + fv_set(k[i + j]) * delta;
        fv_store(s + (i + j) * LANES, line);
        sum[j] = sum[j] + line * fv_set(q[i + j]);
      }
    UNROLL for (int j = 0; j < SWEPT; j++) lane[first + j] = sum[j];
  }
  return fold_columns(lane);
}

/* One row of one block; k and q [lines], zero beyond K */
static void take_row(const delta_call *c, float *block, int64_t at, int64_t column, const float *k, const float *q) {
  const lanes16 v = take(c->v + at * c->V, column, c->V);
  lanes16 y;
  UNROLL for (int i = 0; i < PARTS; i++) {
    const fv predicted = decay_and_predict(block + i * VL, k, c->decay[at], c->lines);
    const fv delta = (v.part[i] - predicted) * fv_set(c->beta[at]);
    y.part[i] = update_and_read(block + i * VL, k, q, delta, c->lines) * fv_set(c->scale);
  }
  give(c->y + at * c->V, y, column, c->V);
}

static void delta_blocks(void *context, int64_t begin, int64_t end) {
  delta_call *c = context;
  float *k = fk_scratch(FK_SCRATCH_TASK, (size_t)(2 * c->lines) * sizeof *k);
  if (!k) {
    __atomic_store_n(&c->status, FK_NO_MEMORY, __ATOMIC_RELAXED);
    return;
  }
  float *q = k + c->lines;
  memset(k, 0, (size_t)(2 * c->lines) * sizeof *k);
  for (int64_t i = begin; i < end; i++) {
    const int64_t head = i / c->blocks, group = head / (c->H / c->G);
    for (int64_t m = 0; m < c->M; m++) {
      memcpy(k, c->k + (m * c->G + group) * c->K, (size_t)c->K * sizeof *k);
      memcpy(q, c->q + (m * c->G + group) * c->K, (size_t)c->K * sizeof *q);
      take_row(c, c->state + i * c->lines * LANES, m * c->H + head, i % c->blocks * LANES, k, q);
    }
  }
}

int FK_NAME(fk_delta_rule)(const float *q, const float *k, const float *v, const float *decay, const float *beta, float scale, float *state,
                           float *y, int64_t M, int64_t G, int64_t H, int64_t K, int64_t V, int threads) {
  if (G < 1 || H % G || K < 1) return FK_BAD_ARGUMENT;
  const int64_t lines = (K + LANES - 1) / LANES * LANES, blocks = (V + LANES - 1) / LANES;
  delta_call call = {q, k, v, decay, beta, scale, state, y, M, G, H, K, V, lines, blocks, FK_OK};
  fk_parallel(H * blocks, 1 + STEPS / (M * lines + 1), threads, delta_blocks, &call);
  return call.status;
}
