/* A matrix product under way, and its activations packed into tiles. Compiled once per instruction set.
 *
 * Letters: M rows, N outputs, K inputs, H heads. */
#ifndef FORMATION_LINEAR_PRODUCT_H
#define FORMATION_LINEAR_PRODUCT_H
#include <stdatomic.h>
#include <stddef.h>

#include "dequantise.h"
#include "formation.h"
#include "lanes.h"
#include "pool.h"

enum { FLOATS_PER_PIECE = 1 << 15 }; /* of packing, and of rows looked up */

/* Head h owns rows [h*stride + first, + rows) of w. A plain product has one head. */
typedef struct {
  const fk_weight *w;
  int64_t heads, stride, first, rows;
} weight_heads;

typedef struct {
  weight_heads by;
  const float *x; /* [M, H, inputs] */
  float *y;       /* [M, H, outputs] */
  int64_t M, inputs, outputs, steps;
  int64_t tile_rows, tiles; /* rows in a tile, tiles that cover M */
  int64_t input_block;      /* inputs used at a time; a multiple of 128, or all */
  int64_t band, bands;      /* outputs in a band, bands in a head */
  float *packed;            /* [H, blocks of inputs, tiles, steps of the block, tile_rows, 16] */
  enum { ONE_BY_ONE, FUSED, FUSED_FP8, AHEAD } way; /* when weights are dequantised: before their tiles, inside them, during those before */
  atomic_int no_memory;
} product;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Where tile t of a head keeps its inputs from k0, the start of a block, on. */
static float *packed_tile(const product *p, int64_t head, int64_t t, int64_t k0) {
  const int64_t steps = smaller(p->input_block / LANES, p->steps - k0 / LANES);
  return p->packed + ((head * p->steps * LANES + k0) * p->tiles + t * steps * LANES) * p->tile_rows;
}

/* One row's inputs [k0, k1), or zeros when x is NULL, in chunks `step` floats apart; lanes in pairs for fused tiles. */
static void pack_row(const product *p, const float *x, int64_t k0, int64_t k1, float *out, int64_t step) {
  for (int64_t k = k0; k < k1; k += LANES, out += step) {
    lanes16 chunk = lanes_zero();
    if (x) chunk = k + LANES <= k1 ? lanes_load(x + k) : lanes_load_part(x + k, k1 - k);
    lanes_store(out, p->way == FUSED ? lanes_in_pairs(chunk) : chunk);
  }
}

static void pack_tiles(void *context, int64_t begin, int64_t end) {
  const product *p = context;
  for (int64_t unit = begin; unit < end; unit++) {
    const int64_t head = unit / p->tiles, t = unit % p->tiles;
    for (int64_t k0 = 0; k0 < p->inputs; k0 += p->input_block) {
      float *out = packed_tile(p, head, t, k0);
      for (int64_t m = t * p->tile_rows; m < (t + 1) * p->tile_rows; m++, out += LANES)
        pack_row(p, m < p->M ? p->x + (m * p->by.heads + head) * p->inputs : NULL, k0, smaller(k0 + p->input_block, p->inputs), out,
                 p->tile_rows * LANES);
    }
  }
}

static int pack(product *p, int64_t tile_rows, int64_t input_block, int threads) {
  p->steps = ceil_div(p->inputs, LANES);
  p->tile_rows = tile_rows;
  p->tiles = ceil_div(p->M, tile_rows);
  p->input_block = input_block;
  const int64_t tile_floats = p->steps * tile_rows * LANES, units = p->by.heads * p->tiles;
  p->packed = fk_scratch(FK_SCRATCH_CALL, (size_t)larger(units * tile_floats, 1) * sizeof *p->packed);
  if (!p->packed) return FK_NO_MEMORY;
  fk_parallel(units, FLOATS_PER_PIECE / larger(tile_floats, 1), threads, pack_tiles, p);
  return FK_OK;
}
#endif
