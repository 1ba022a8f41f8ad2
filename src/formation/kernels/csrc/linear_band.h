/* A band of outputs, its inputs block by block, with dequantised weights in buffers that stay in the nearest cache. Compiled once per
 * instruction set.
 *
 * A few rows of weights are dequantised at a time and used at once for all rows of activations. Dequantising shuffles, which leaves the
 * multipliers idle, and multiplying does the opposite; so with int4 and enough tiles, the tiles of one block dequantise the next. */
#ifndef FORMATION_LINEAR_BAND_H
#define FORMATION_LINEAR_BAND_H
#include "linear_product.h"
#include "linear_tile.h"

/* A block of dequantised weights [steps, OUTPUTS, 16], another one for the place that comes next, and the sums of a band. */
typedef struct { float *block, *other, *sums; } workspace;

static int64_t sums_of_outputs(const product *p, int64_t outputs) {
  return ceil_div(outputs, OUTPUTS) * OUTPUTS * p->tiles * p->tile_rows * LANES;
}

static int find_workspace(const product *p, workspace *out) {
  const int64_t block = OUTPUTS * p->input_block;
  out->block = fk_scratch(FK_SCRATCH_TASK, (size_t)(2 * block + sums_of_outputs(p, p->band)) * sizeof *out->block);
  if (!out->block) return 0;
  out->other = out->block + block;
  out->sums = out->other + block;
  return 1;
}

/* What is dequantised and multiplied at a time: OUTPUTS rows of the weights, for outputs n and on of a unit, and the inputs from k0 on.
 * The unit's band is the outputs [n0, n1) of `head`; output n is row `first` + n of the weights. */
typedef struct { int64_t unit, head, first, n0, n1, n, k0; } place;

static place unit_begin(const product *p, int64_t unit) {
  const int64_t head = unit / p->bands, n0 = unit % p->bands * p->band;
  return (place){unit, head, head * p->by.stride + p->by.first, n0, smaller(n0 + p->band, p->outputs), n0, 0};
}

/* A block of inputs for all outputs of the band, then the next block, then the next band. */
static place after(const product *p, place at) {
  at.n += OUTPUTS;
  if (at.n < at.n1) return at;
  at.n = at.n0;
  at.k0 += p->input_block;
  return at.k0 < p->inputs ? at : unit_begin(p, at.unit + 1);
}

static int64_t block_end(const product *p, place at) { return smaller(at.k0 + p->input_block, p->inputs); }
static int64_t block_steps(const product *p, place at) { return ceil_div(block_end(p, at) - at.k0, LANES); }

/* The row of the weights for output n + i; beyond the band its last row, whose sums are never stored. */
static int64_t weight_row(place at, int64_t i) { return at.first + smaller(at.n + i, at.n1 - 1); }

static int64_t stored_bytes(const fk_weight *w, int64_t values) {
  static const int half_bytes[] = {[FK_F32] = 8, [FK_F16] = 4, [FK_BF16] = 4, [FK_INT4] = 1, [FK_FP8] = 2};
  return values * half_bytes[w->kind] / 2;
}

static const char *stored_at(const product *p, place at) {
  return (const char *)p->by.w->data + stored_bytes(p->by.w, weight_row(at, 0) * p->inputs + at.k0);
}

/* The inputs from k0 on as block [steps, OUTPUTS, 16] */
static void dequantise_rows(const product *p, place at, int64_t k0, float *block) {
  for (int64_t n = 0; n < OUTPUTS; n++) {
    const column_run run = {p->by.w, weight_row(at, n), k0, block_end(p, at), block + n * LANES, OUTPUTS * LANES};
    dequantise(&run);
  }
}

/* The rows of a place as stored; the scales of `later` are fetched. */
static void find_int4_rows(const product *p, place at, place later, int4_block *out) {
  const fk_weight *w = p->by.w;
  const int64_t groups = (block_end(p, at) - at.k0) / GROUP, last = at.n1 - at.n - 1, row_scales = w->cols / GROUP * 2;
  const char *nibbles = stored_at(p, at), *scales = scales_at(w, weight_row(at, 0), at.k0);
  const char *later_scales = scales_at(w, weight_row(later, 0), later.k0);
  out->groups = groups;
  for (int64_t n = 0; n < OUTPUTS; n++, later_scales += row_scales) {
    for (int64_t i = 0; i < 2 * groups; i += LINE) __builtin_prefetch(later_scales + i);
    out->nibbles[n] = nibbles;
    split_scales(scales, groups, &out->scales[n]);
    if (n < last) nibbles += w->cols / 2, scales += row_scales;
  }
}

/* sums [OUTPUTS, tile_rows, 16] of a place whose weights are dequantised inside the tile */
static void multiply_fused(const product *p, place at, place next, float *sums) {
  int4_block stored;
  find_int4_rows(p, at, next, &stored);
  const char *next_rows = nibbles_at(p->by.w, weight_row(at, 0) + OUTPUTS, 0);
  int4_tiles[p->tile_rows](&stored, packed_tile(p, at.head, 0, at.k0), sums, next_rows + OUTPUTS * at.k0 / 2);
}

#if VL == 16
/* The same of fp8 weights */
static void multiply_fused_fp8(const product *p, place at, float *sums) {
  const fk_weight *w = p->by.w;
  const int64_t blocks = ceil_div(w->cols, BLOCK);
  fp8_block stored = {.columns = block_end(p, at) - at.k0};
  for (int64_t n = 0; n < OUTPUTS; n++) {
    const int64_t row = weight_row(at, n);
    stored.codes[n] = (const char *)w->data + row * w->cols + at.k0;
    stored.scales[n] = (const char *)w->scale + (row / BLOCK * blocks + at.k0 / BLOCK) * (int64_t)sizeof(float);
  }
  const char *next_rows = (const char *)w->data + (weight_row(at, 0) + OUTPUTS) * w->cols;
  fp8_tiles[p->tile_rows](&stored, packed_tile(p, at.head, 0, at.k0), sums, next_rows + OUTPUTS * at.k0);
}
#endif

/* What the tiles of a place go through: packed rows and sums, and what to fetch meanwhile. */
typedef struct { const float *x; float *sums; fetch_plan fetch; int64_t steps, tiles; } tile_walk;

static tile_walk first_tile(const product *p, place at, float *sums, fetch_plan fetch) {
  return (tile_walk){packed_tile(p, at.head, 0, at.k0), sums, fetch, block_steps(p, at), p->tiles};
}

/* The next tile, with weights `block` [steps, OUTPUTS, 16] and that many rows of side work; it fetches what follows in the plan. */
static void multiply_tile(const product *p, tile_walk *walk, const float *block, int64_t side_rows, const side_work *side) {
  tiles[side_rows][p->tile_rows](block, walk->x, walk->steps, walk->sums, &walk->fetch, side);
  walk->x += walk->steps * p->tile_rows * LANES;
  walk->sums += OUTPUTS * p->tile_rows * LANES;
  walk->fetch.from += walk->steps * walk->fetch.stride;
  walk->tiles--;
}

/* sums [tiles, OUTPUTS, tile_rows, 16] of a place whose weights are dequantised first, the stored ones of `next` being fetched then */
static void multiply_one(const product *p, place at, place next, float *block, float *sums) {
  const fk_weight *w = p->by.w;
  const int64_t steps = block_steps(p, at);
  const fetch_plan fetch = {stored_at(p, next), stored_bytes(w, w->cols), ceil_div(stored_bytes(w, steps * LANES), steps * p->tiles)};
  dequantise_rows(p, at, at.k0, block);
  for (tile_walk walk = first_tile(p, at, sums, fetch); walk.tiles;) multiply_tile(p, &walk, block, 0, NULL);
}

/* The same with weights that are in the block already. The first tiles dequantise those of `next` into the other block and fetch those
 * of `later`; groups that `next` has and this place has not are dequantised in the end. */
static void multiply_ahead(const product *p, place at, place next, place later, const workspace *space, float *sums) {
  int4_block stored;
  find_int4_rows(p, next, later, &stored);
  tile_walk walk = first_tile(p, at, sums, (fetch_plan){stored.nibbles[0], 0, 0});
  side_work side = {stored.nibbles, stored.scales, space->other, smaller(stored.groups, walk.steps / 2),
                    stored_at(p, later) - stored.nibbles[0]};
  const int64_t share = p->tiles < OUTPUTS ? SIDE_ROWS : 1;
  for (int64_t n = 0; n < OUTPUTS; n += share) {
    multiply_tile(p, &walk, space->block, share, &side);
    side.nibbles += share, side.scales += share, side.out += share * LANES;
  }
  while (walk.tiles) multiply_tile(p, &walk, space->block, 0, NULL);
  const int64_t done = side.groups * GROUP;
  if (side.groups < stored.groups) dequantise_rows(p, next, next.k0 + done, space->other + done * OUTPUTS);
}

static void multiply_last(const product *p, place at, const float *block, float *sums) {
  tile_walk walk = first_tile(p, at, sums, (fetch_plan){stored_at(p, at), 0, 0});
  while (walk.tiles) multiply_tile(p, &walk, block, 0, NULL);
}

/* One place; `end` is the first unit that is another thread's. */
static void multiply_place(const product *p, place at, int64_t end, workspace *space) {
  place next = after(p, at);
  const int is_last = next.unit >= end;
  if (is_last) next = at;
  float *sums = space->sums + sums_of_outputs(p, at.n - at.n0);
  if (p->way == FUSED) {
    multiply_fused(p, at, next, sums);
#if VL == 16
  } else if (p->way == FUSED_FP8) {
    multiply_fused_fp8(p, at, sums);
#endif
  } else if (p->way == ONE_BY_ONE) {
    multiply_one(p, at, next, space->block, sums);
  } else if (is_last) {
    multiply_last(p, at, space->block, sums);
  } else {
    const place later = after(p, next);
    multiply_ahead(p, at, next, later.unit < end ? later : next, space, sums);
    *space = (workspace){space->other, space->block, space->sums};
  }
}

/* The sums [outputs / OUTPUTS, tiles, OUTPUTS, tile_rows, 16] of a band, added up */
static void fold_band(const product *p, place band, const float *sums) {
  const int64_t rows = p->tile_rows, M = p->M, step = p->by.heads * p->outputs;
  float *y = p->y + band.head * p->outputs;
  for (int64_t n0 = band.n0; n0 < band.n1; n0 += OUTPUTS)
    for (int64_t m0 = 0; m0 < M; m0 += rows, sums += OUTPUTS * rows * LANES) {
      const int64_t n1 = smaller(n0 + OUTPUTS, band.n1), m1 = smaller(m0 + rows, M);
      for (int64_t n = n0; n < n1; n++)
        for (int64_t m = m0; m < m1; m++) {
          const lanes16 sum = lanes_load(sums + ((n - n0) * rows + m - m0) * LANES);
          y[m * step + n] = lanes_fold(p->way == FUSED ? lanes_from_pairs(sum) : sum);
        }
    }
}

static void multiply_bands(void *context, int64_t begin, int64_t end) {
  product *p = context;
  workspace space;
  if (!find_workspace(p, &space)) { atomic_store(&p->no_memory, 1); return; }
  place at = unit_begin(p, begin);
  if (p->way == AHEAD) dequantise_rows(p, at, 0, space.block);
  while (at.unit < end) {
    const place band = at;
    memset(space.sums, 0, (size_t)sums_of_outputs(p, band.n1 - band.n0) * sizeof *space.sums);
    for (; at.unit == band.unit; at = after(p, at)) multiply_place(p, at, end, &space);
    fold_band(p, band, space.sums);
  }
}
#endif
