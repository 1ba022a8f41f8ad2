/* The numerics contract f32x16/1 in C: the whole exported interface.
 *
 * Every array is dense, row-major and little-endian unless a stride is named; sizes are int64_t, counted in elements.
 * Letters: M rows (positions), N outputs, K inputs, T keys, H heads, D head width, C latent width, E experts, V vocabulary.
 * Each function sets round-to-nearest with denormals kept on entry, restores the caller's mode on exit, and splits its work
 * over at most `threads` threads without ever splitting a sum. The rules are in docs/spec/numerics.md.
 * Functions return 0, or a negative fk_status. */
#ifndef FORMATION_H
#define FORMATION_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FK_ABI 1

typedef enum { FK_OK = 0, FK_BAD_ARGUMENT = -1, FK_NO_MEMORY = -2, FK_NO_ISA = -3 } fk_status;
typedef enum { FK_F32 = 0, FK_F16 = 1, FK_BF16 = 2, FK_INT4 = 3, FK_FP8 = 4 } fk_kind;

/* A matrix [rows, cols] exactly as stored; data and scale need no alignment.
 * INT4: data int32 [rows, cols/8], value+8, low nibble first; scale bf16 [rows, cols/32]; cols a multiple of 32.
 * FP8: data e4m3 [rows, cols]; scale f32 [ceil(rows/128), ceil(cols/128)]. Others: scale is NULL. */
typedef struct { int32_t kind; int64_t rows, cols; const void *data, *scale; } fk_weight;

int fk_abi(void);
/* "avx512", "avx2" or "plain": chosen once from the CPU, or from the environment variable FORMATION_ISA;
 * NULL when that variable names a path this CPU or build lacks. */
const char *fk_isa(void);
int fk_isa_available(const char *name);

/* y[m, n] = dot(x[m, :], w[n, :])                                                                     y [M, w.rows] */
int fk_linear(const fk_weight *w, const float *x, float *y, int64_t M, int threads);
/* Head h uses rows [h*stride + first, h*stride + first + N) of w: y[m, h, n] = dot(x[m, h, :], row n)   x [M, H, cols] y [M, H, N] */
int fk_heads_linear(const fk_weight *w, int64_t H, int64_t stride, int64_t first, int64_t N,
                    const float *x, float *y, int64_t M, int threads);
/* The same rows transposed: y[m, h, c] = dot over n of x[m, h, n] and w[h*stride + first + n, c]        x [M, H, N] y [M, H, cols] */
int fk_heads_linear_t(const fk_weight *w, int64_t H, int64_t stride, int64_t first, int64_t N,
                      const float *x, float *y, int64_t M, int threads);
/* Rows of w by index, widened or dequantised                                                          y [M, cols] */
int fk_gather(const fk_weight *w, const int64_t *rows, float *y, int64_t M, int threads);

/* y = x * (1/sqrt(mean(x^2) + eps)) * w; rows of x and y are ldx, ldy apart                             x, y [M, K], w [K] */
int fk_rmsnorm(const float *x, int64_t ldx, const float *w, float eps, float *y, int64_t ldy, int64_t M, int64_t K, int threads);
/* binary64 algorithm, rounded once to f32. cos, sin [M, R/2] of fl32(positions[m] * inv_freq[r]), times factor */
int fk_rope_table(const int64_t *positions, const float *inv_freq, float factor, float *cos, float *sin, int64_t M, int64_t half);
/* interleaved pairs (2i, 2i+1) rotated in place; x [M, H, R] with rows ldm and heads ldh apart */
int fk_rope_interleaved(float *x, int64_t ldm, int64_t ldh, const float *cos, const float *sin, int64_t M, int64_t H, int64_t R, int threads);

/* pairs (i, i + R/2) */
int fk_rope_halves(float *x, int64_t ldm, int64_t ldh, const float *cos, const float *sin, int64_t M, int64_t H, int64_t R, int threads);

/* The cache is [ceil(T/16)][D][16]: sixteen keys side by side, zero where no key has been written. */
int fk_cache_store(float *cache, int64_t D, int64_t first, const float *keys, int64_t M);
int fk_cache_load(const float *cache, int64_t D, int64_t first, float *keys, int64_t M);
/* Row m attends keys 0..positions[m]; score = dot(q, key) * scale; values are the first C of a key's D entries.
 * weights: NULL, or [M, H, ldw] that receives the softmax weights (zero beyond positions[m]).         q [M, H, D] y [M, H, C] */
int fk_mla_attend(const float *q, const float *cache, const int64_t *positions, float scale, float *y, float *weights,
                  int64_t ldw, int64_t M, int64_t H, int64_t D, int64_t C, int threads);

/* The same for H heads in G groups of neighbours: the cache holds per group K columns of its key, then C of its value; D = G*(K + C).
 * q [M, H, K] y [M, H, C] */
int fk_gqa_attend(const float *q, const float *cache, const int64_t *positions, float scale, float *y, float *weights,
                  int64_t ldw, int64_t M, int64_t H, int64_t G, int64_t K, int64_t C, int threads);

/* Gated delta rule (delta.c). y[m, d] = silu(sum over j of x[m + j, d] * w[j, d])             x [W-1 + M, D], w [W, D], y [M, D] */
int fk_conv_silu(const float *x, const float *w, float *y, int64_t M, int64_t D, int64_t W, int threads);
/* y = x * (1/sqrt(sum of x^2 + eps))                                                                          x, y [M, K] */
int fk_l2norm(const float *x, float eps, float *y, int64_t M, int64_t K, int threads);
/* beta = sigmoid(b), decay = exp(-(exp(a_log) * softplus(a + dt_bias)))                     a, b, beta, decay [M, H]; others [H] */
int fk_delta_gates(const float *b, const float *a, const float *a_log, const float *dt_bias, float *beta, float *decay, int64_t M, int64_t H,
                   int threads);
/* For each row in turn, with S the state of value head h and k, q those of key head h / (H / G):
 * S = S * decay; d = (v - (S^T k)) * beta; S = S + k d^T; y = (S^T q) * scale. Every S^T is rule 2 over the key index.
 * state [H][ceil(V/16)][K rounded up to 16][16], zero where nothing is: sixteen columns of S side by side.
 * q, k [M, G, K], v, y [M, H, V], decay, beta [M, H] */
int fk_delta_rule(const float *q, const float *k, const float *v, const float *decay, const float *beta, float scale, float *state, float *y,
                  int64_t M, int64_t G, int64_t H, int64_t K, int64_t V, int threads);
/* y = ((x * (1/sqrt(mean(x^2) + eps))) * w) * silu(z)                                                   x, z, y [M, K], w [K] */
int fk_rmsnorm_gated(const float *x, const float *z, const float *w, float eps, float *y, int64_t M, int64_t K, int threads);

int fk_add(const float *a, const float *b, float *y, int64_t n, int threads);
/* y = silu(gate) * up */
int fk_silu_mul(const float *gate, const float *up, float *y, int64_t n, int threads);
/* y = sigmoid(gate) * x */
int fk_sigmoid_mul(const float *gate, const float *x, float *y, int64_t n, int threads);
/* for i: row r = rows[i]: v = gates[i] * y[i, :]; acc[r, :] = started[r] ? acc[r, :] + v : v; started[r] = 1.
 * gates NULL means v = y[i, :]. Rows must differ within one call. */
int fk_accumulate(float *acc, uint8_t *started, const int64_t *rows, const float *y, const float *gates, int64_t n, int64_t K, int threads);

typedef struct {
  int64_t experts, chosen, groups, kept_groups; /* groups 1: no group limit */
  int32_t softmax;                              /* 0 sigmoid scores, 1 softmax scores */
  int32_t group_top2;                           /* a group's score: 1 sum of its two best selection scores, 0 its best */
  int32_t normalise;                            /* divide by the sum of the chosen scores + 1e-20 */
  float scale;
} fk_router;
/* scores [M, E], selection = scores + bias [M, E] (bias NULL: the scores), chosen ids ascending [M, k], gates [M, k] */
int fk_route(const fk_router *r, const float *logits, const float *bias, float *scores, float *selection,
             int64_t *chosen, float *gates, int64_t M, int threads);

/* out[i] = function(x[i]) */
int fk_exp(const float *x, float *y, int64_t n);
int fk_log(const float *x, float *y, int64_t n);
int fk_sigmoid(const float *x, float *y, int64_t n);
int fk_silu(const float *x, float *y, int64_t n);
int fk_softplus(const float *x, float *y, int64_t n);
int fk_exp64(const double *x, double *y, int64_t n);
int fk_log64(const double *x, double *y, int64_t n);
int fk_sin64(const double *x, double *y, int64_t n);
int fk_cos64(const double *x, double *y, int64_t n);
int fk_pow64(const double *x, const double *e, double *y, int64_t n); /* x > 0 */

/* 1 when every value is finite; otherwise 0 and *where is the index of the first that is not */
int fk_finite(const float *x, int64_t n, int64_t *where);

/* Philox4x32-10, key = (seed low, seed high), counter = (position low, position high, branch low, branch high);
 * u = (first 53 bits of output words 0,1) * 2^-53, in [0, 1) */
double fk_uniform(uint64_t seed, uint64_t branch, uint64_t position);

typedef struct {
  int64_t id, kept;      /* chosen token; number of tokens that survive truncation */
  double draw, low, high;/* the draw and the chosen token's interval in the renormalised cumulative distribution, id order */
  double kept_mass;      /* probability mass of the survivors under the tempered distribution */
} fk_draw;
/* temperature > 0; top_k 0 none; top_p 1 none; min_p 0 none. Order: temperature, top-k, top-p, min-p. */
int fk_sample(const float *logits, int64_t V, double temperature, int64_t top_k, double top_p, double min_p, double draw, fk_draw *out);
/* the lowest id among the largest logits */
int64_t fk_argmax(const float *logits, int64_t V);

/* Readout, for the ledger: rule 2's sixteen lanes and fold, but every float widened and every product and sum in binary64.
 * y[m] = sqrt(sum of x[m, :]^2), the one function here that stays in binary32                         x [M, K] y [M] */
int fk_norms(const float *x, float *y, int64_t M, int64_t K, int threads);
/* y[m] = dot(a[m, :], b + m * ldb); ldb 0 takes one b for all                                           a [M, K] y [M] */
int fk_dots64(const float *a, const float *b, int64_t ldb, double *y, int64_t M, int64_t K, int threads);
/* y = whole - parts[0] - parts[1] - ..., in that order                                          whole, y [K] parts [N, K] */
int fk_remainder(const float *whole, const float *parts, double *y, int64_t N, int64_t K);
/* y[m] = (sum of (w[i] * g[i]) * c[m, i]) / r; r > 0                                            w, g [K] c [M, K] y [M] */
int fk_attribute(const double *w, const float *g, const float *c, double r, double *y, int64_t M, int64_t K, int threads);
int fk_attribute64(const double *w, const float *g, const double *c, double r, double *y, int64_t M, int64_t K, int threads);
/* sums[k] += rows[m, k], in the order of m: any cutting of the rows gives the same bits              rows [M, K] sums [K] */
int fk_column_sums(const float *rows, double *sums, int64_t M, int64_t K, int threads);
/* y[m] = largest logit, log-sum-exp, sum of p z, sum of p z^2, with e = exp64(z - largest), p = e / sum of e       y [M, 4] */
int fk_logit_statistics(const float *logits, double *y, int64_t M, int64_t V, int threads);
/* low[m] = 1 + how many logits are larger than that of id, high[m] = how many are not smaller */
int fk_ranks(const float *logits, int64_t id, int64_t *low, int64_t *high, int64_t M, int64_t V, int threads);
/* ids[m] = indices of the `count` largest values of row m, descending, the lower index first on ties           ids [M, count] */
int fk_largest(const float *values, int64_t *ids, int64_t count, int64_t M, int64_t V, int threads);
/* y[m] = sum of p (log p - log q), log p = final - final_lse, p = exp64(log p), log q = logits[m, :] - lse[m]     lse, y [M] */
int fk_divergences(const float *final, double final_lse, const float *logits, const double *lse, double *y, int64_t M, int64_t V,
                   int threads);
/* y[m] = -(sum of w log64 w) of weights >= 0; zeros add nothing                                     weights [M, K] y [M] */
int fk_entropies(const float *weights, double *y, int64_t M, int64_t K, int threads);

#ifdef __cplusplus
}
#endif
#endif
