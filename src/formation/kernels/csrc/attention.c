/* The cache of keys, absorbed MLA attention and grouped-query attention: contract rules 2 and 4.
 *
 * Heads come in groups that share a key: one group in MLA, whose values are the first C of the key's D columns; in grouped-query
 * attention G of them, whose K key and C value columns lie side by side. Sixteen keys lie side by side, so a vector of VL keys, a `strip`, is one load, and each key keeps its own sixteen sums over d.
 * A piece of work is one row and a range of one group's heads. Scores are computed for TILE strips and HEADS heads at a time, so that a tile
 * of the cache is read once for many heads; values from SLAB columns copied next to each other, since in the cache they are D apart. */
#include <math.h>

#include "formation.h"
#include "lanes.h"
#include "math32.h"
#include "pool.h"

enum { HEADS = 4, TILE = VL == 16 ? 4 : 2, SLAB = 32, PIECE_HEADS = 32 };

typedef struct {
  const float *q, *cache;
  const int64_t *positions;
  float scale;
  float *y, *weights;
  int64_t ldw, H, G, D, K, C, apart; /* a group has `D / G` columns of the cache: its key's K, its values' C from column `apart` on */
  int64_t shares, per_share;         /* a group's heads are split into `shares` of `per_share` */
  int status;
} attend_call;

typedef struct {
  const float *q, *cache, *values; /* q of the first head, [heads, K]; the group's first key column, and value column */
  float *scores, *slab;            /* [heads, blocks * 16], [SLAB / TILE, blocks, TILE, 16] */
  int64_t heads, keys, blocks, D, K, C;
  float scale;
} attend_piece;

/* ---- the cache ---- */

int FK_NAME(fk_cache_store)(float *cache, int64_t D, int64_t first, const float *keys, int64_t M) {
  for (int64_t m = 0; m < M; m++) {
    const int64_t key = first + m;
    float *block = cache + key / LANES * D * LANES + key % LANES;
    for (int64_t d = 0; d < D; d++) block[d * LANES] = keys[m * D + d];
  }
  return FK_OK;
}

int FK_NAME(fk_cache_load)(const float *cache, int64_t D, int64_t first, float *keys, int64_t M) {
  for (int64_t m = 0; m < M; m++) {
    const int64_t key = first + m;
    const float *block = cache + key / LANES * D * LANES + key % LANES;
    for (int64_t d = 0; d < D; d++) keys[m * D + d] = block[d * LANES];
  }
  return FK_OK;
}

/* ---- scores ---- */

static const float *strip_of(const attend_piece *p, int64_t strip) {
  return p->cache + strip / PARTS * p->D * LANES + strip % PARTS * VL;
}

/* Lane j of rule 2 for every key of S strips and R heads: sums over d = j, j+16, ... */
FK_INLINE void score_lane(const attend_piece *p, const float *q, const float *const *strip, int64_t j, int R, int S, fv lane[HEADS][TILE][LANES]) {
  fv sum[HEADS][TILE] = {0};
  for (int64_t d = j; d < p->K; d += LANES) {
    fv key[TILE];
    UNROLL for (int s = 0; s < S; s++) key[s] = fv_load(strip[s] + d * LANES);
    UNROLL for (int r = 0; r < R; r++) {
      const fv x = fv_set(q[r * p->K + d]);
      UNROLL for (int s = 0; s < S; s++) sum[r][s] = sum[r][s] + x * key[s];
    }
  }
  UNROLL for (int r = 0; r < R; r++)
    UNROLL for (int s = 0; s < S; s++) lane[r][s][j] = sum[r][s];
}

FK_INLINE void score_tile(const attend_piece *p, int64_t head, int64_t first, int R, int S) {
  fv lane[HEADS][TILE][LANES];
  const float *strip[TILE];
  UNROLL for (int s = 0; s < S; s++) strip[s] = strip_of(p, first + s);
  for (int64_t j = 0; j < LANES; j++) score_lane(p, p->q + head * p->K, strip, j, R, S, lane);
  for (int r = 0; r < R; r++)
    for (int s = 0; s < S; s++)
      fv_store(p->scores + (head + r) * p->blocks * LANES + (first + s) * VL, fold_columns(lane[r][s]) * p->scale);
}

static void score_piece(const attend_piece *p) {
  const int64_t strips = p->blocks * PARTS, whole = p->heads / HEADS * HEADS;
  for (int64_t first = 0; first < strips; first += TILE) {
    const int full = strips - first >= TILE;
    for (int64_t head = 0; head < whole; head += HEADS) {
      if (full) score_tile(p, head, first, HEADS, TILE);
      else for (int64_t s = first; s < strips; s++) score_tile(p, head, s, HEADS, 1);
    }
    for (int64_t head = whole; head < p->heads; head++) {
      if (full) score_tile(p, head, first, 1, TILE);
      else for (int64_t s = first; s < strips; s++) score_tile(p, head, s, 1, 1);
    }
  }
}

/* ---- softmax ---- */

static float largest(const float *scores, int64_t blocks) {
  lanes16 top = lanes_load(scores);
  for (int64_t b = 1; b < blocks; b++) {
    const lanes16 s = lanes_load(scores + b * LANES);
    UNROLL for (int i = 0; i < PARTS; i++) top.part[i] = fv_select(s.part[i] > top.part[i], s.part[i], top.part[i]);
  }
  float lane[LANES];
  lanes_store(lane, top);
  for (int j = 1; j < LANES; j++) lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
  return lane[0];
}

/* scores become e^(score - maximum), zero beyond the last key; returns their sum by rule 2 over the key index */
static float exponentials(float *scores, int64_t keys, int64_t blocks) {
  for (int64_t t = keys; t < blocks * LANES; t++) scores[t] = -INFINITY;
  const lanes16 top = lanes_set(-largest(scores, blocks));
  lanes16 sum = lanes_zero();
  for (int64_t b = 0; b < blocks; b++) {
    const lanes16 e = lanes_exp(lanes_add(lanes_load(scores + b * LANES), top));
    lanes_store(scores + b * LANES, e);
    sum = lanes_add(sum, e);
  }
  return lanes_fold(sum);
}

static void write_weights(const float *e, float denominator, int64_t keys, float *out, int64_t ldw) {
  for (int64_t t = 0; t < keys; t++) out[t] = e[t] / denominator;
  for (int64_t t = keys; t < ldw; t++) out[t] = 0.0f;
}

/* ---- values ---- */

static void copy_slab(const attend_piece *p, int64_t first) {
  for (int64_t b = 0; b < p->blocks; b++)
    for (int64_t g = 0; g < SLAB / TILE; g++) {
      const int64_t column = first + g * TILE, left = p->C - column, count = left < 0 ? 0 : left < TILE ? left : TILE;
      float *to = p->slab + (g * p->blocks + b) * TILE * LANES;
      memcpy(to, p->values + (b * p->D + column) * LANES, (size_t)(count * LANES) * sizeof *to);
      memset(to + count * LANES, 0, (size_t)((TILE - count) * LANES) * sizeof *to);
    }
}

/* Sixteen sums over the key index for R heads and the TILE columns of group g: lane[r][column][j] */
FK_INLINE void value_tile(const attend_piece *p, int64_t head, int64_t g, int R, float lane[HEADS][SLAB][LANES]) {
  const int64_t row = p->blocks * LANES;
  UNROLL for (int part = 0; part < PARTS; part++) {
    const float *weight = p->scores + head * row + part * VL, *value = p->slab + g * p->blocks * TILE * LANES + part * VL;
    fv sum[HEADS][TILE] = {0};
    for (int64_t b = 0; b < p->blocks; b++) {
      fv e[HEADS];
      UNROLL for (int r = 0; r < R; r++) e[r] = fv_load(weight + r * row + b * LANES);
      UNROLL for (int c = 0; c < TILE; c++) {
        const fv v = fv_load(value + (b * TILE + c) * LANES);
        UNROLL for (int r = 0; r < R; r++) sum[r][c] = sum[r][c] + e[r] * v;
      }
    }
    UNROLL for (int r = 0; r < R; r++)
      UNROLL for (int c = 0; c < TILE; c++) fv_store(&lane[r][g * TILE + c][part * VL], sum[r][c]);
  }
}

/* The sixteen lanes of SLAB columns folded side by side, then divided. */
static void fold_slab(float lane[SLAB][LANES], float denominator, float *y, int64_t count) {
  float turned[LANES][SLAB];
  for (int c = 0; c < SLAB; c++)
    for (int j = 0; j < LANES; j++) turned[j][c] = lane[c][j];
  for (int half = LANES / 2; half; half /= 2)
    for (int j = 0; j < half; j++)
      for (int c = 0; c < SLAB; c++) turned[j][c] = turned[j][c] + turned[j + half][c];
  for (int64_t c = 0; c < count; c++) y[c] = turned[0][c] / denominator;
}

static void value_piece(const attend_piece *p, const float *denominator, float *y) {
  float lane[HEADS][SLAB][LANES];
  for (int64_t first = 0; first < p->C; first += SLAB) {
    const int64_t left = p->C - first, count = left < SLAB ? left : SLAB;
    copy_slab(p, first);
    for (int64_t head = 0; head < p->heads;) {
      const int R = p->heads - head >= HEADS ? HEADS : 1;
      for (int64_t g = 0; g < SLAB / TILE; g++) {
        if (R == HEADS) value_tile(p, head, g, HEADS, lane);
        else value_tile(p, head, g, 1, lane);
      }
      for (int r = 0; r < R; r++) fold_slab(lane[r], denominator[head + r], y + (head + r) * p->C + first, count);
      head += R;
    }
  }
}

/* ---- one piece, and the call ---- */

static void attend(attend_call *call, int64_t m, int64_t group, int64_t head, int64_t heads) {
  const int64_t keys = call->positions[m] + 1, blocks = (keys + LANES - 1) / LANES, row = blocks * LANES;
  float *scratch = fk_scratch(FK_SCRATCH_TASK, (size_t)(row * (heads + SLAB)) * sizeof *scratch);
  if (!scratch) {
    __atomic_store_n(&call->status, FK_NO_MEMORY, __ATOMIC_RELAXED);
    return;
  }
  const int64_t at = m * call->H + head;
  const float *columns = call->cache + group * (call->D / call->G) * LANES;
  const attend_piece p = {call->q + at * call->K, columns, columns + call->apart * LANES, scratch, scratch + row * heads,
                          heads, keys, blocks, call->D, call->K, call->C, call->scale};
  float denominator[PIECE_HEADS] = {0};
  score_piece(&p);
  for (int64_t h = 0; h < heads; h++) denominator[h] = exponentials(p.scores + h * row, keys, blocks);
  value_piece(&p, denominator, call->y + at * call->C);
  for (int64_t h = 0; h < heads && call->weights; h++)
    write_weights(p.scores + h * row, denominator[h], keys, call->weights + (at + h) * call->ldw, call->ldw);
}

static void attend_pieces(void *context, int64_t begin, int64_t end) {
  attend_call *call = context;
  const int64_t own = call->H / call->G; /* heads of a group */
  for (int64_t i = begin; i < end; i++) {
    const int64_t first = i % call->shares * call->per_share, left = own - first, group = i / call->shares % call->G;
    attend(call, i / (call->shares * call->G), group, group * own + first, left < call->per_share ? left : call->per_share);
  }
}

/* Heads of one row in a piece: all of them when there are rows enough for every thread, else a share, in whole tiles. */
static int64_t heads_per_piece(int64_t M, int64_t H, int threads) {
  const int64_t share = M >= 2 * threads || threads < 2 ? H : (H + threads - 1) / threads;
  const int64_t whole = (share + HEADS - 1) / HEADS * HEADS;
  return whole < PIECE_HEADS ? whole : PIECE_HEADS;
}

static int attend_all(attend_call call, int64_t M, int threads) {
  for (int64_t m = 0; m < M; m++)
    if (call.positions[m] < 0 || (call.weights && call.positions[m] >= call.ldw)) return FK_BAD_ARGUMENT;
  if (!call.H) return FK_OK;
  call.per_share = heads_per_piece(M, call.H, threads);
  call.shares = (call.H / call.G + call.per_share - 1) / call.per_share;
  fk_parallel(M * call.G * call.shares, 1, threads, attend_pieces, &call);
  return call.status;
}

int FK_NAME(fk_mla_attend)(const float *q, const float *cache, const int64_t *positions, float scale, float *y, float *weights,
                           int64_t ldw, int64_t M, int64_t H, int64_t D, int64_t C, int threads) {
  if (C > D || D < 1) return FK_BAD_ARGUMENT;
  return attend_all((attend_call){q, cache, positions, scale, y, weights, ldw, H, 1, D, D, C, 0, 0, 0, FK_OK}, M, threads);
}

int FK_NAME(fk_gqa_attend)(const float *q, const float *cache, const int64_t *positions, float scale, float *y, float *weights,
                           int64_t ldw, int64_t M, int64_t H, int64_t G, int64_t K, int64_t C, int threads) {
  if (G < 1 || H % G || K < 1 || C < 0) return FK_BAD_ARGUMENT;
  return attend_all((attend_call){q, cache, positions, scale, y, weights, ldw, H, G, G * (K + C), K, C, K, 0, 0, FK_OK}, M, threads);
}
