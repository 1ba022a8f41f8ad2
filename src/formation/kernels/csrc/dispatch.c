/* Which build of the lane functions runs: chosen once, from FORMATION_ISA or from what the CPU has.
 *
 * Every lane function exists once per instruction set under its own name (fk_linear_avx2, ...). This file exports the plain names,
 * looks the function up in the chosen table and runs it in the contract's floating-point mode. */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "formation.h"
#include "pool.h"
#include "linear_tables.h"

#define EXPORT __attribute__((visibility("default")))

/* clang-format off */
#define LANE_FUNCTIONS(F) \
  F(fk_linear, (const fk_weight *w, const float *x, float *y, int64_t M, int threads), (w, x, y, M, threads)) \
  F(fk_heads_linear, (const fk_weight *w, int64_t H, int64_t stride, int64_t first, int64_t N, const float *x, float *y, int64_t M, \
    int threads), (w, H, stride, first, N, x, y, M, threads)) \
  F(fk_heads_linear_t, (const fk_weight *w, int64_t H, int64_t stride, int64_t first, int64_t N, const float *x, float *y, int64_t M, \
    int threads), (w, H, stride, first, N, x, y, M, threads)) \
  F(fk_gather, (const fk_weight *w, const int64_t *rows, float *y, int64_t M, int threads), (w, rows, y, M, threads)) \
  F(fk_rmsnorm, (const float *x, int64_t ldx, const float *w, float eps, float *y, int64_t ldy, int64_t M, int64_t K, int threads), \
    (x, ldx, w, eps, y, ldy, M, K, threads)) \
  F(fk_rope_interleaved, (float *x, int64_t ldm, int64_t ldh, const float *cos, const float *sin, int64_t M, int64_t H, int64_t R, \
    int threads), (x, ldm, ldh, cos, sin, M, H, R, threads)) \
  F(fk_rope_halves, (float *x, int64_t ldm, int64_t ldh, const float *cos, const float *sin, int64_t M, int64_t H, int64_t R, \
    int threads), (x, ldm, ldh, cos, sin, M, H, R, threads)) \
  F(fk_cache_store, (float *cache, int64_t D, int64_t first, const float *keys, int64_t M), (cache, D, first, keys, M)) \
  F(fk_cache_load, (const float *cache, int64_t D, int64_t first, float *keys, int64_t M), (cache, D, first, keys, M)) \
  F(fk_mla_attend, (const float *q, const float *cache, const int64_t *positions, float scale, float *y, float *weights, int64_t ldw, \
    int64_t M, int64_t H, int64_t D, int64_t C, int threads), (q, cache, positions, scale, y, weights, ldw, M, H, D, C, threads)) \
  F(fk_gqa_attend, (const float *q, const float *cache, const int64_t *positions, float scale, float *y, float *weights, int64_t ldw, \
    int64_t M, int64_t H, int64_t G, int64_t K, int64_t C, int threads), (q, cache, positions, scale, y, weights, ldw, M, H, G, K, C, threads)) \
  F(fk_conv_silu, (const float *x, const float *w, float *y, int64_t M, int64_t D, int64_t W, int threads), (x, w, y, M, D, W, threads)) \
  F(fk_l2norm, (const float *x, float eps, float *y, int64_t M, int64_t K, int threads), (x, eps, y, M, K, threads)) \
  F(fk_delta_gates, (const float *b, const float *a, const float *a_log, const float *dt_bias, float *beta, float *decay, int64_t M, \
    int64_t H, int threads), (b, a, a_log, dt_bias, beta, decay, M, H, threads)) \
  F(fk_delta_rule, (const float *q, const float *k, const float *v, const float *decay, const float *beta, float scale, float *state, \
    float *y, int64_t M, int64_t G, int64_t H, int64_t K, int64_t V, int threads), \
    (q, k, v, decay, beta, scale, state, y, M, G, H, K, V, threads)) \
  F(fk_rmsnorm_gated, (const float *x, const float *z, const float *w, float eps, float *y, int64_t M, int64_t K, int threads), \
    (x, z, w, eps, y, M, K, threads)) \
  F(fk_add, (const float *a, const float *b, float *y, int64_t n, int threads), (a, b, y, n, threads)) \
  F(fk_silu_mul, (const float *gate, const float *up, float *y, int64_t n, int threads), (gate, up, y, n, threads)) \
  F(fk_sigmoid_mul, (const float *gate, const float *x, float *y, int64_t n, int threads), (gate, x, y, n, threads)) \
  F(fk_accumulate, (float *acc, uint8_t *started, const int64_t *rows, const float *y, const float *gates, int64_t n, int64_t K, \
    int threads), (acc, started, rows, y, gates, n, K, threads)) \
  F(fk_exp, (const float *x, float *y, int64_t n), (x, y, n)) \
  F(fk_log, (const float *x, float *y, int64_t n), (x, y, n)) \
  F(fk_sigmoid, (const float *x, float *y, int64_t n), (x, y, n)) \
  F(fk_silu, (const float *x, float *y, int64_t n), (x, y, n)) \
  F(fk_softplus, (const float *x, float *y, int64_t n), (x, y, n)) \
  F(fk_finite, (const float *x, int64_t n, int64_t *where), (x, n, where))

#ifdef FK_X86
#define DECLARE(name, parameters, arguments) int name##_plain parameters; int name##_avx2 parameters; int name##_avx512 parameters;
#else
#define DECLARE(name, parameters, arguments) int name##_plain parameters;
#endif
#define MEMBER(name, parameters, arguments) int(*name) parameters;
#define PLAIN(name, parameters, arguments) name##_plain,
#define AVX2(name, parameters, arguments) name##_avx2,
#define AVX512(name, parameters, arguments) name##_avx512,
/* clang-format on */

LANE_FUNCTIONS(DECLARE)

typedef struct {
  const char *name;
  int (*available)(void);
  LANE_FUNCTIONS(MEMBER)
} isa;

static int always(void) { return 1; }

#ifdef FK_X86
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

static int has_avx512(void) {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi");
}
#endif

/* Fastest first. */
static const isa builds[] = {
#ifdef FK_X86
    {"avx512", has_avx512, LANE_FUNCTIONS(AVX512)},
    {"avx2", has_avx2, LANE_FUNCTIONS(AVX2)},
#endif
    {"plain", always, LANE_FUNCTIONS(PLAIN)},
};
enum { BUILDS = sizeof builds / sizeof *builds };

static const isa *chosen;
static pthread_once_t choice = PTHREAD_ONCE_INIT;

/* The first available build of that name; of any name when `name` is NULL or empty. */
static const isa *find(const char *name) {
  for (int i = 0; i < BUILDS; i++)
    if ((!name || !*name || !strcmp(name, builds[i].name)) && builds[i].available()) return &builds[i];
  return NULL;
}

static void choose(void) {
  unsigned saved = fk_mode_enter();
  fk_fill_tables();
  fk_mode_leave(saved);
  chosen = find(getenv("FORMATION_ISA"));
}

static const isa *current(void) {
  pthread_once(&choice, choose);
  return chosen;
}

EXPORT int fk_abi(void) { return FK_ABI; }

EXPORT const char *fk_isa(void) { return current() ? current()->name : NULL; }

EXPORT int fk_isa_available(const char *name) { return name && *name && find(name) != NULL; }

#define RUN(name, parameters, arguments)       \
  EXPORT int name parameters {                 \
    const isa *build = current();              \
    if (!build) return FK_NO_ISA;              \
    const unsigned saved = fk_mode_enter();    \
    const int status = build->name arguments;  \
    fk_mode_leave(saved);                      \
    return status;                             \
  }
LANE_FUNCTIONS(RUN)
