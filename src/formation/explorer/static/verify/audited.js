// What audit.json says: what was challenged, what of it was executed again, with which tensors, and what differed: the twin of
// evidence/audited.py.

import { isCount, precedes } from "./documents.js";
import { quoted } from "./quoted.js";
import { Refused } from "./refusals.js";
import { digest, fields, text } from "./strict.js";

const CHECK = "audit";
const RESULT = [
  "challenge", "executed", "seal", "summary", "not_executed", "prompt", "differences", "difference_count", "curve", "weights",
];
const CHALLENGE = ["mode", "cells", "columns", "seed", "seed_source"];
const EXECUTED = ["cells", "cells_in_all", "embeddings", "tokens", "values", "rows_opened"];
const DIFFERENCE = ["position", "slot", "field", "expected", "got"];
const POINT = ["edited", "of", "probability", "for_99"];
const MODES = ["profile", "cells", "column", "full"];
const [PROFILE, CELLS, COLUMN] = MODES;
const HOLDS = "holds";
const SEALS = [HOLDS, "does not hold", "none"];
const SOURCES = ["system", "named"];
const LISTED = 1000; // differences; the others are counted

const refuse = (sentence) => {
  throw new Refused(CHECK, sentence);
};

/** The result of an audit whose outcome is the one that its counts have, of a ledger of this size; in words. */
export function readAudit(result, outcome, run) {
  const audited = read(result, outcome);
  const { positions, layers, tokens, passed } = audited;
  if (positions !== run.positions || layers !== run.layers || tokens > run.steps || (passed && tokens < run.steps)) {
    const due = `${run.positions} positions of ${run.layers} layers and ${run.steps} tokens, as the ledger has them`;
    refuse(`audit: expected ${due}, got ${positions} of ${layers} and ${tokens}`);
  }
  const of = positions * layers;
  const done = `${audited.cells} of ${of} cells, head and sampler of ${tokens} tokens, ${audited.values} values`;
  return `${done}; ${of - audited.cells} cells not executed`;
}

function read(result, outcome) {
  const found = fields(CHECK, "audit, result", result, RESULT);
  const { cells, cells_in_all: all, embeddings: positions, tokens, values } = readExecuted(found.executed);
  const layers = all / positions;
  const challenged = readChallenge(found.challenge, positions, layers);
  if (cells > challenged) refuse(`audit, executed: expected at most the ${challenged} cells that were challenged, got ${cells}`);
  for (const name of ["summary", "not_executed", "prompt"]) text(CHECK, `audit, ${name}`, found[name]);
  if (!SEALS.includes(found.seal)) refuse(`audit, seal: expected one of ${SEALS.join(", ")}, got ${quoted(found.seal)}`);
  checkDifferences(found.differences, found.difference_count, positions);
  checkCurve(found.curve, found.challenge, positions, layers);
  checkWeights(found.weights);
  const passed = found.difference_count === 0 && cells === challenged && found.seal === HOLDS && tokens > 0 && values > 0;
  const due = passed ? "passed" : "failed";
  if (outcome !== due) refuse(`audit: expected outcome ${due}, as its counts have it, got ${quoted(outcome)}`);
  return { positions, layers, cells, tokens, values, passed };
}

/** Cells in all are as many at each position; a token ends a position */
function readExecuted(value) {
  const found = fields(CHECK, "audit, executed", value, EXECUTED);
  if (!EXECUTED.every((name) => isCount(found[name]))) refuse("audit, executed: expected counts, got others");
  const { cells, cells_in_all: all, embeddings: positions, tokens } = found;
  if (positions < 1 || all < positions || all % positions || cells > all || tokens > positions) {
    refuse("audit, executed: expected counts that fit each other, got others");
  }
  return found;
}

/** How many different cells it has: columns, and cells beside them */
function readChallenge(value, positions, layers) {
  const { mode, cells, columns, seed, seed_source: source } = fields(CHECK, "audit, challenge", value, CHALLENGE);
  if (!MODES.includes(mode)) refuse(`audit, challenge: expected one of ${MODES.join(", ")}, got ${quoted(mode)}`);
  if (!isPlaces(cells, positions, layers) || !isLayers(columns, layers)) {
    refuse("audit, challenge: expected different cells and columns of the run, got others");
  }
  const due = { profile: 1, cells: 0, column: 1, full: layers }[mode];
  const drawn = mode === PROFILE || mode === CELLS;
  if (columns.length !== due || cells.length > 0 !== drawn) {
    refuse(`audit, challenge: expected the cells and columns of mode ${mode}, got ${cells.length} and ${columns.length}`);
  }
  const seeded = isHex(seed) && SOURCES.includes(source);
  if (!(drawn ? seeded : seed === null && source === null)) {
    refuse("audit, challenge: expected a seed and its source where something is drawn, and only there, got others");
  }
  return columns.length * positions + cells.filter(([, layer]) => !columns.includes(layer)).length;
}

/** Different (position, layer) of the run */
function isPlaces(value, positions, layers) {
  const isPlace = (cell) => Array.isArray(cell) && cell.length === 2 && cell.every(isCount) && cell[0] < positions && cell[1] < layers;
  return Array.isArray(value) && value.every(isPlace) && new Set(value.map(String)).size === value.length;
}

/** Ascending, so that each stands once */
const isLayers = (value, layers) =>
  Array.isArray(value) && value.every((layer, n) => isCount(layer) && layer < layers && (!n || value[n - 1] < layer));

function checkDifferences(listed, count, positions) {
  if (!Array.isArray(listed) || !isCount(count) || listed.length !== Math.min(count, LISTED)) {
    refuse(`audit, differences: expected their count and a list of the first ${LISTED}, got others`);
  }
  for (const row of listed) {
    const found = fields(CHECK, "audit, difference", row, DIFFERENCE);
    for (const name of DIFFERENCE.slice(1)) text(CHECK, `audit, difference, ${name}`, found[name]);
    if (!Number.isInteger(found.position) || found.position < -1 || found.position >= positions) {
      refuse(`audit, difference: expected a position of the run, or -1, got ${quoted(found.position)}`);
    }
  }
}

/** Odds of what was drawn, and of everything */
function checkCurve(value, { mode }, positions, layers) {
  const found = fields(CHECK, "audit, curve", value, ["cells", "columns"]);
  const due = { cells: mode !== COLUMN, columns: mode === PROFILE };
  for (const [name, of] of [["cells", positions * layers], ["columns", layers]]) {
    const points = found[name];
    if (!Array.isArray(points) || points.length > 0 !== due[name] || !points.every((point) => isPoint(point, of))) {
      refuse(`audit, curve, ${name}: expected probabilities for parts of ${of} where they were drawn, got others`);
    }
  }
}

function isPoint(value, of) {
  const point = fields(CHECK, "audit, point of a curve", value, POINT);
  const isPart = (n) => isCount(n) && 1 <= n && n <= of;
  const { probability } = point;
  return point.of === of && isPart(point.edited) && isPart(point.for_99) && typeof probability === "number" && 0 <= probability && probability <= 1;
}

/** Tensors by name, those that the bundle had committed to and those of the checkpoint as counts */
function checkWeights(value) {
  const { tensors, in_all: all, compared } = fields(CHECK, "audit, weights", value, ["in_all", "compared", "tensors"]);
  if (!Array.isArray(tensors) || !isCount(all) || !isCount(compared)) refuse("audit, weights: expected counts and a list of tensors, got others");
  if (compared > tensors.length || tensors.length > all) refuse("audit, weights: expected counts that fit each other, got others");
  const names = tensors.map(readTensor);
  const late = names.find((name, n) => n && !precedes(names[n - 1], name));
  if (late !== undefined) refuse(`audit, weights: expected tensors in ascending order, got ${quoted(late)}`);
}

/** Its name */
function readTensor(row) {
  const found = fields(CHECK, "audit, tensor", row, ["name", "sha256"]);
  digest(CHECK, "audit, tensor", found.sha256);
  return text(CHECK, "audit, tensor, name", found.name);
}

/** Pairs of lowercase hexadecimal digits, at least one */
const isHex = (value) => typeof value === "string" && /^([0-9a-f]{2})+$/.test(value);
