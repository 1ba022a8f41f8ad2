/* The inner loops of the matrix products: tiles of outputs x rows whose sums stay in registers. Compiled once per instruction set.
 *
 * Letters: K inputs, M rows of activations. A `step` is sixteen inputs, one for each lane. The sums of a tile are kept as sixteen
 * lanes between blocks of inputs, so cutting K into blocks changes no bit. */
#ifndef FORMATION_LINEAR_TILE_H
#define FORMATION_LINEAR_TILE_H
#include "dequantise.h"
#include "lanes.h"

/* OUTPUTS x TILE_ROWS sums, the weights, an activation and a product must fit the registers: 32 of sixteen floats, or 16 smaller ones.
 * SIDE_ROWS: the most rows that a tile dequantises for the block that comes next, 0 where that does not pay. */
#if VL == 16
enum { OUTPUTS = 4, TILE_ROWS = 4, SIDE_ROWS = 2, LANES_AT_ONCE = 4, TRANSPOSED_ROWS = 4 };
#elif VL == 8
enum { OUTPUTS = 4, TILE_ROWS = 1, SIDE_ROWS = 0, LANES_AT_ONCE = 4, TRANSPOSED_ROWS = 2 };
#else
enum { OUTPUTS = 2, TILE_ROWS = 1, SIDE_ROWS = 0, LANES_AT_ONCE = 4, TRANSPOSED_ROWS = 2 };
#endif

/* Stored bytes to fetch while computing: `stride` bytes further on each of OUTPUTS rows at every step. Fetching them all at once would
 * occupy every line-fill buffer and stop the activations. */
typedef struct { const char *from; int64_t row_bytes, stride; } fetch_plan;

/* OUTPUTS rows of int4 weights, still as stored. */
typedef struct {
  const char *nibbles[OUTPUTS];
  group_scales scales[OUTPUTS];
  int64_t groups;
} int4_block;

/* Rows of the block that comes next, for a tile to dequantise into `out` [2 * groups, OUTPUTS, 16] while it multiplies: shuffles and
 * table look-ups then fill the places that multiplications leave free. `ahead` bytes further lies what is to be fetched. */
typedef struct {
  const char *const *nibbles;
  const group_scales *scales;
  float *out;
  int64_t groups, ahead;
} side_work;

FK_INLINE void tile_step(const int rows, const float *restrict w, const float *restrict x, lanes16 sum[OUTPUTS][TILE_ROWS]) {
  lanes16 weight[OUTPUTS];
  UNROLL for (int n = 0; n < OUTPUTS; n++) weight[n] = lanes_load(w + n * LANES);
  UNROLL for (int m = 0; m < rows; m++) {
    const lanes16 activation = lanes_load(x + m * LANES);
    UNROLL for (int n = 0; n < OUTPUTS; n++) sum[n][m] = lanes_accumulate(sum[n][m], weight[n], activation);
  }
}

/* sums [OUTPUTS, rows, 16] += w [steps, OUTPUTS, 16] * x [steps, rows, 16], and `side_rows` rows of side work: at most steps / 2 groups.
 * Without side work the stored bytes of the plan are fetched. */
FK_INLINE void tile(const int rows, const int side_rows, const float *restrict w, const float *restrict x, int64_t steps,
                    float *restrict sums, const fetch_plan *fetch, const side_work *side) {
  lanes16 sum[OUTPUTS][TILE_ROWS];
  UNROLL for (int n = 0; n < OUTPUTS; n++)
    UNROLL for (int m = 0; m < rows; m++) sum[n][m] = lanes_load(sums + (n * rows + m) * LANES);
  if (side_rows) {
    const char *nibbles[SIDE_ROWS + 1];
    UNROLL for (int i = 0; i < side_rows; i++) nibbles[i] = side->nibbles[i];
    const group_scales *scales = side->scales;
    float *out = side->out;
    const int64_t groups = side->groups, ahead = side->ahead;
    steps -= 2 * groups;
    for (int64_t g = 0; g < groups; g++, w += 2 * OUTPUTS * LANES, x += 2 * rows * LANES, out += 2 * OUTPUTS * LANES) {
      UNROLL for (int i = 0; i < side_rows; i++) {
        __builtin_prefetch(nibbles[i] + ahead);
        dequantise_group(&scales[i], g, nibbles[i], out + i * LANES, OUTPUTS * LANES);
        nibbles[i] += GROUP / 2;
      }
      tile_step(rows, w, x, sum);
      tile_step(rows, w + OUTPUTS * LANES, x + rows * LANES, sum);
    }
  }
  const char *fetched = fetch->from;
  const int64_t row_bytes = fetch->row_bytes, stride = fetch->stride;
  for (; steps; steps--, w += OUTPUTS * LANES, x += rows * LANES, fetched += stride) {
    UNROLL for (int n = 0; n < OUTPUTS; n++) __builtin_prefetch(fetched + n * row_bytes);
    tile_step(rows, w, x, sum);
  }
  UNROLL for (int n = 0; n < OUTPUTS; n++)
    UNROLL for (int m = 0; m < rows; m++) lanes_store(sums + (n * rows + m) * LANES, sum[n][m]);
}

typedef void tile_function(const float *w, const float *x, int64_t steps, float *sums, const fetch_plan *fetch, const side_work *side);

#define TILE(rows, side_rows)                                                                                                \
  static void tile_##rows##_##side_rows(const float *w, const float *x, int64_t steps, float *sums, const fetch_plan *fetch, \
                                        const side_work *side) {                                                             \
    tile(rows, side_rows, w, x, steps, sums, fetch, side);                                                                   \
  }
/* tiles[rows of side work][rows of the tile] */
TILE(1, 0)
#if VL == 16
TILE(2, 0) TILE(3, 0) TILE(4, 0) TILE(3, 1) TILE(4, 1) TILE(4, 2)
static tile_function *const tiles[SIDE_ROWS + 1][TILE_ROWS + 1] = {
    {NULL, tile_1_0, tile_2_0, tile_3_0, tile_4_0}, {NULL, NULL, NULL, tile_3_1, tile_4_1}, {NULL, NULL, NULL, NULL, tile_4_2}};
#else
static tile_function *const tiles[SIDE_ROWS + 1][TILE_ROWS + 1] = {{NULL, tile_1_0}};
#endif

/* The same sums with weights dequantised on the way, for so few rows that a buffer would not pay. x [2 * groups, rows, 16] and the sums
 * have their lanes in pairs. As many bytes as are used are fetched from `fetched` on: one after the other, so that the processor sees
 * where this leads and fetches further, and no nearer than the second cache, which has the longer queue. */
FK_INLINE void int4_tile(const int rows, const int4_block *w, const float *restrict x, float *restrict sums, const char *fetched) {
  lanes16 sum[OUTPUTS][TILE_ROWS];
  UNROLL for (int n = 0; n < OUTPUTS; n++)
    UNROLL for (int m = 0; m < rows; m++) sum[n][m] = lanes_load(sums + (n * rows + m) * LANES);
  for (int64_t g = 0; g < w->groups; g++, x += 2 * rows * LANES) {
    __builtin_prefetch(fetched + g * OUTPUTS * GROUP / 2, 0, 2);
    UNROLL for (int n = 0; n < OUTPUTS; n++) {
      const char *p = w->nibbles[n] + g * GROUP / 2;
      const lanes16 products = group_products(&w->scales[n], g), low = choose16_in_pairs(products, p);
      const lanes16 high = choose16_in_pairs(products, p + GROUP / 4);
      UNROLL for (int m = 0; m < rows; m++) {
        sum[n][m] = lanes_accumulate(sum[n][m], low, lanes_load(x + m * LANES));
        sum[n][m] = lanes_accumulate(sum[n][m], high, lanes_load(x + (rows + m) * LANES));
      }
    }
  }
  UNROLL for (int n = 0; n < OUTPUTS; n++)
    UNROLL for (int m = 0; m < rows; m++) lanes_store(sums + (n * rows + m) * LANES, sum[n][m]);
}

typedef void int4_tile_function(const int4_block *w, const float *x, float *sums, const char *fetched);

#define INT4_TILE(rows)                                                                                 \
  static void int4_tile_##rows(const int4_block *w, const float *x, float *sums, const char *fetched) { \
    int4_tile(rows, w, x, sums, fetched);                                                               \
  }
INT4_TILE(1)
#if VL == 16
INT4_TILE(2) INT4_TILE(3) INT4_TILE(4)
static int4_tile_function *const int4_tiles[TILE_ROWS + 1] = {NULL, int4_tile_1, int4_tile_2, int4_tile_3, int4_tile_4};
#else
static int4_tile_function *const int4_tiles[TILE_ROWS + 1] = {NULL, int4_tile_1};
#endif

#if VL == 16
/* OUTPUTS rows of fp8 weights from the start of a block on, still as stored: their codes, the scales of their blocks, and how many columns,
 * a multiple of LINE. */
typedef struct {
  const char *codes[OUTPUTS], *scales[OUTPUTS];
  int64_t columns;
} fp8_block;

/* LINE codes of one output, four chunks of sixteen, added to its sums; `products` are those of `scale`, if they `fit`. */
FK_INLINE void fp8_line(const int rows, const char *codes, float scale, fv products, int fit, const float *restrict x, lanes16 *sum) {
  const int by_table = __builtin_expect(fit && !f8_any_nan_in_line(codes), 1);
  UNROLL for (int i = 0; i < LINE / LANES; i++) {
    const lanes16 weight = by_table ? choose_f8(codes + i * LANES, products) : dequantise_f8(codes + i * LANES, f8_scale(scale));
    UNROLL for (int m = 0; m < rows; m++) sum[m] = lanes_accumulate(sum[m], weight, lanes_load(x + (i * rows + m) * LANES));
  }
}

/* The same sums as tile(), with weights dequantised on the way and their lanes in order; stored bytes are fetched as in int4_tile(). */
FK_INLINE void fp8_tile(const int rows, const fp8_block *w, const float *restrict x, float *restrict sums, const char *fetched) {
  lanes16 sum[OUTPUTS][TILE_ROWS];
  UNROLL for (int n = 0; n < OUTPUTS; n++)
    UNROLL for (int m = 0; m < rows; m++) sum[n][m] = lanes_load(sums + (n * rows + m) * LANES);
  for (int64_t k = 0; k < w->columns; k += BLOCK) {
    float scale[OUTPUTS];
    fv products[OUTPUTS];
    int fit = 1;
    UNROLL for (int n = 0; n < OUTPUTS; n++) {
      memcpy(&scale[n], w->scales[n] + k / BLOCK * (int64_t)sizeof *scale, sizeof *scale);
      products[n] = f8_products(scale[n]);
      fit &= f8_products_fit(scale[n]);
    }
    for (int64_t line = k; line < k + BLOCK && line < w->columns; line += LINE, x += LINE * rows, fetched += OUTPUTS * LINE) {
      UNROLL for (int n = 0; n < OUTPUTS; n++) {
        __builtin_prefetch(fetched + n * LINE, 0, 2);
        fp8_line(rows, w->codes[n] + line, scale[n], products[n], fit, x, sum[n]);
      }
    }
  }
  UNROLL for (int n = 0; n < OUTPUTS; n++)
    UNROLL for (int m = 0; m < rows; m++) lanes_store(sums + (n * rows + m) * LANES, sum[n][m]);
}

typedef void fp8_tile_function(const fp8_block *w, const float *x, float *sums, const char *fetched);

#define FP8_TILE(rows)                                                                                \
  static void fp8_tile_##rows(const fp8_block *w, const float *x, float *sums, const char *fetched) { \
    fp8_tile(rows, w, x, sums, fetched);                                                              \
  }
FP8_TILE(1) FP8_TILE(2) FP8_TILE(3) FP8_TILE(4)
static fp8_tile_function *const fp8_tiles[TILE_ROWS + 1] = {NULL, fp8_tile_1, fp8_tile_2, fp8_tile_3, fp8_tile_4};
#endif

/* The number of rows per tile that wastes least on padding; the larger one of equals. */
static inline int64_t best_tile_rows(int64_t M) {
  int64_t best = M < TILE_ROWS ? M : TILE_ROWS;
  for (int64_t rows = best - 1; rows >= 3; rows--)
    if ((M + rows - 1) / rows * rows < (M + best - 1) / best * best) best = rows;
  return best;
}

/* y [rows, VL] = the dot products of x [rows, K] with VL neighbouring columns of w [K, ldw], the sixteen lanes of rule 2 being
 * sixteen vectors here: input k is added to lane k % 16. K is a multiple of 16, padded with zeros. */
FK_INLINE void transposed_tile(const int rows, const float *w, int64_t ldw, const float *x, int64_t K, fv *y) {
  fv lane[LANES][TRANSPOSED_ROWS];
  for (int first = 0; first < LANES; first += LANES_AT_ONCE) {
    fv sum[LANES_AT_ONCE][TRANSPOSED_ROWS];
    UNROLL for (int j = 0; j < LANES_AT_ONCE; j++)
      UNROLL for (int m = 0; m < rows; m++) sum[j][m] = (fv){0};
    for (int64_t k = first; k < K; k += LANES)
      UNROLL for (int j = 0; j < LANES_AT_ONCE; j++) {
        const fv weight = fv_load(w + (k + j) * ldw);
        UNROLL for (int m = 0; m < rows; m++) sum[j][m] = sum[j][m] + weight * fv_set(x[m * K + k + j]);
      }
    UNROLL for (int j = 0; j < LANES_AT_ONCE; j++)
      UNROLL for (int m = 0; m < rows; m++) lane[first + j][m] = sum[j][m];
  }
  for (int half = LANES / 2; half; half /= 2)
    for (int j = 0; j < half; j++)
      UNROLL for (int m = 0; m < rows; m++) lane[j][m] = lane[j][m] + lane[j + half][m];
  UNROLL for (int m = 0; m < rows; m++) y[m] = lane[0][m];
}
#endif
