/* Matrix products with stored weights: y = x W^T, its per-head forms, and row lookup. Compiled once per instruction set.
 *
 * Activations are first packed into tiles. Then every band of outputs, in any thread, goes through its inputs block by block.
 * Threads share out bands; a sum is never divided. Letters: M rows, N outputs, K inputs, H heads. */
#include "linear_band.h"

enum {
  INPUT_BLOCK = 1024,       /* inputs dequantised into the buffer at a time */
  VERY_FEW_ROWS = 4,        /* up to here reading the weights takes longest: */
  FEW_ROWS_BLOCK = 256,     /* reading and arithmetic alternate in smaller blocks */
  FUSED_BLOCK = 4096,       /* inputs at a time without a buffer */
  FEW_ROWS = 16,            /* up to here bands are narrow, so that weights are read in the order they are stored */
  WIDE_BAND = 64,           /* outputs of a band otherwise */
  ROW_BLOCK = 96,           /* rows of activations packed at a time */
  COLUMN_BLOCK = 64,        /* columns of a transposed unit */
  PIECES_PER_THREAD = 16,   /* so that a late thread costs little */
  WORTH_A_THREAD = 1 << 18, /* multiply-adds */
  PACKED_BYTES = 4 << 20,   /* aim for packed activations */
};

/* ---- one band of columns, for the transposed product ---- */

/* Columns [c0, c1) of the head's rows, as block [16 * steps, COLUMN_BLOCK], the last rows zero. */
static void dequantise_columns(const product *p, int64_t head, int64_t c0, int64_t c1, float *block) {
  const int64_t row = head * p->by.stride + p->by.first;
  for (int64_t n = 0; n < p->inputs; n++, block += COLUMN_BLOCK) {
    const column_run run = {p->by.w, row + n, c0, c1, block, LANES};
    dequantise(&run);
  }
  memset(block, 0, (size_t)((p->steps * LANES - p->inputs) * COLUMN_BLOCK) * sizeof *block);
}

FK_INLINE void transpose_rows(const int rows, const product *p, int64_t head, int64_t m, int64_t c0, int64_t c1, const float *block) {
  fv sums[TRANSPOSED_ROWS];
  for (int64_t c = c0; c < c1; c += VL) {
    transposed_tile(rows, block + c - c0, COLUMN_BLOCK, packed_tile(p, head, m, 0), p->steps * LANES, sums);
    for (int r = 0; r < rows; r++)
      memcpy(p->y + ((m + r) * p->by.heads + head) * p->outputs + c, &sums[r], (size_t)smaller(VL, c1 - c) * sizeof(float));
  }
}

static void transpose_bands(void *context, int64_t begin, int64_t end) {
  product *p = context;
  float *block = fk_scratch(FK_SCRATCH_TASK, (size_t)((p->steps * LANES + 1) * COLUMN_BLOCK) * sizeof *block);
  if (!block) { atomic_store(&p->no_memory, 1); return; }
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t head = unit / p->bands, c0 = unit % p->bands * p->band, c1 = smaller(c0 + p->band, p->outputs);
    dequantise_columns(p, head, c0, c1, block);
    int64_t m = 0;
    for (; m + TRANSPOSED_ROWS <= p->M; m += TRANSPOSED_ROWS) transpose_rows(TRANSPOSED_ROWS, p, head, m, c0, c1, block);
    for (; m < p->M; m++) transpose_rows(1, p, head, m, c0, c1, block);
  }
}

/* ---- the whole product ---- */

static void share_out(product *p, int threads, int64_t units, fk_task task) {
  const int64_t macs = p->by.heads * p->outputs * p->inputs * p->M;
  if (macs < WORTH_A_THREAD) threads = 1;
  fk_parallel(units, units / ((int64_t)larger(threads, 1) * PIECES_PER_THREAD), threads, task, p);
}

/* Without tiles to hide behind, int4 and fp8 are dequantised inside the only one; two or three tiles hide int4 only if they are whole
 * (measured). */
static void choose_way(product *p) {
  const int64_t rows = best_tile_rows(p->M), tiles = ceil_div(p->M, rows);
  p->way = ONE_BY_ONE;
  if (VL == 16 && p->by.w->kind == FK_FP8 && tiles == 1 && p->inputs % LINE == 0) p->way = FUSED_FP8;
  if (p->by.w->kind != FK_INT4) return;
  if (tiles == 1) p->way = FUSED;
  else if (SIDE_ROWS && (tiles >= OUTPUTS || rows == TILE_ROWS)) p->way = AHEAD;
}

static int multiply(product *p, int threads) {
  choose_way(p);
  const int64_t input_block = p->way == FUSED || p->way == FUSED_FP8 ? FUSED_BLOCK : p->M <= VERY_FEW_ROWS ? FEW_ROWS_BLOCK : INPUT_BLOCK;
  if (pack(p, best_tile_rows(p->M), input_block, threads)) return FK_NO_MEMORY;
  p->band = p->M <= FEW_ROWS ? OUTPUTS : WIDE_BAND;
  p->bands = ceil_div(p->outputs, p->band);
  share_out(p, threads, p->by.heads * p->bands, multiply_bands);
  return p->no_memory ? FK_NO_MEMORY : FK_OK;
}

static int multiply_transposed(product *p, int threads) {
  if (pack(p, 1, larger(ceil_div(p->inputs, LANES), 1) * LANES, threads)) return FK_NO_MEMORY;
  p->band = COLUMN_BLOCK;
  p->bands = ceil_div(p->outputs, p->band);
  share_out(p, threads, p->by.heads * p->bands, transpose_bands);
  return p->no_memory ? FK_NO_MEMORY : FK_OK;
}

/* Rows per block: bounded, so that what is packed stays small however many rows or heads there are. */
static int64_t row_block(const product *p) {
  int64_t rows = ROW_BLOCK;
  while (rows > TILE_ROWS && rows * p->by.heads * p->inputs * (int64_t)sizeof(float) > PACKED_BYTES) rows /= 2;
  return rows;
}

static int in_row_blocks(product whole, int threads, int (*run)(product *, int threads)) {
  const int64_t block = row_block(&whole);
  for (int64_t m = 0; m < whole.M; m += block) {
    product part = whole;
    part.M = smaller(block, whole.M - m);
    part.x += m * whole.by.heads * whole.inputs;
    part.y += m * whole.by.heads * whole.outputs;
    const int status = run(&part, threads);
    if (status) return status;
  }
  return FK_OK;
}

static int valid_weight(const fk_weight *w) {
  return w->kind >= FK_F32 && w->kind <= FK_FP8 && w->rows >= 0 && w->cols >= 0 && (w->kind != FK_INT4 || w->cols % GROUP == 0);
}

static int valid(const weight_heads *by, int64_t M) {
  if (!valid_weight(by->w) || M < 0 || by->heads < 0 || by->rows < 0 || by->stride < 0 || by->first < 0) return 0;
  return !by->heads || !by->rows || (by->heads - 1) * by->stride + by->first + by->rows <= by->w->rows;
}

int FK_NAME(fk_heads_linear)(const fk_weight *w, int64_t H, int64_t stride, int64_t first, int64_t N, const float *x, float *y, int64_t M,
                             int threads) {
  const weight_heads by = {w, H, stride, first, N};
  if (!valid(&by, M)) return FK_BAD_ARGUMENT;
  return in_row_blocks((product){.by = by, .x = x, .y = y, .M = M, .inputs = w->cols, .outputs = N}, threads, multiply);
}

int FK_NAME(fk_linear)(const fk_weight *w, const float *x, float *y, int64_t M, int threads) {
  return FK_NAME(fk_heads_linear)(w, 1, 0, 0, w->rows, x, y, M, threads);
}

int FK_NAME(fk_heads_linear_t)(const fk_weight *w, int64_t H, int64_t stride, int64_t first, int64_t N, const float *x, float *y,
                               int64_t M, int threads) {
  const weight_heads by = {w, H, stride, first, N};
  if (!valid(&by, M)) return FK_BAD_ARGUMENT;
  return in_row_blocks((product){.by = by, .x = x, .y = y, .M = M, .inputs = N, .outputs = w->cols}, threads, multiply_transposed);
}

/* ---- rows by index ---- */

typedef struct {
  const fk_weight *w;
  const int64_t *rows;
  float *y;
} lookup;

static void gather_rows(void *context, int64_t begin, int64_t end) {
  const lookup *l = context;
  const int64_t cols = l->w->cols;
  float block[INPUT_BLOCK] __attribute__((aligned(64)));
  for (int64_t m = begin; m < end; m++)
    for (int64_t k0 = 0; k0 < cols; k0 += INPUT_BLOCK) {
      const column_run run = {l->w, l->rows[m], k0, smaller(k0 + INPUT_BLOCK, cols), block, LANES};
      dequantise(&run);
      memcpy(l->y + m * cols + k0, block, (size_t)(run.k1 - k0) * sizeof *block);
    }
}

int FK_NAME(fk_gather)(const fk_weight *w, const int64_t *rows, float *y, int64_t M, int threads) {
  if (!valid_weight(w)) return FK_BAD_ARGUMENT;
  for (int64_t m = 0; m < M; m++)
    if (rows[m] < 0 || rows[m] >= w->rows) return FK_BAD_ARGUMENT;
  lookup l = {w, rows, y};
  fk_parallel(M, FLOATS_PER_PIECE / larger(w->cols, 1), threads, gather_rows, &l);
  return FK_OK;
}
