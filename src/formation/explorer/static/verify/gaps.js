// How far a rule of the ledger is from holding: the twin of ledger/gaps.py.

export const TOLERANCE = 64 * 2 ** -53; // times the sum of absolute terms

/** `size` is the distance from what the rule demands, infinite where no number says it; above `tolerance` the rule is violated. */
const gap = (rule, size, tolerance, where) => ({ rule, size, tolerance, where, violated: !(size <= tolerance) });

export const fact = (rule, holds, where) => gap(rule, holds ? 0 : Infinity, 0, where);

/** Number by number equal */
export function same(rule, expected, found, where) {
  if (expected.length !== found.length) return fact(rule, false, where);
  return gap(rule, expected.reduce((worst, a, i) => Math.max(worst, distance(a, found[i])), 0), 0, where);
}

const distance = (a, b) => (a === a && b === b ? Math.abs(a - b) : Infinity);

/** The terms make the total, up to the rounding of binary64 and `allowance`, what they may be off; the distance is exact up to its one rounding */
export function closure(rule, total, terms, allowance, where) {
  return gap(rule, Math.abs(exactSum([...terms, -total])), TOLERANCE * exactSum(terms.map(Math.abs)) + allowance, where);
}

export function within(rule, low, value, high, tolerance, where) {
  return gap(rule, Math.max(low - value, value - high, 0), tolerance, where);
}

/** The sum of finite numbers, rounded once, half to even (Shewchuk, "Adaptive precision floating-point arithmetic", 1997; as Python's fsum) */
export function exactSum(values) {
  const partials = [];
  for (let x of values) {
    let kept = 0;
    for (let y of partials) {
      if (Math.abs(x) < Math.abs(y)) [x, y] = [y, x];
      const high = x + y;
      const low = y - (high - x);
      if (low) partials[kept++] = low;
      x = high;
    }
    partials.length = kept;
    partials.push(x);
  }
  return rounded(partials);
}

/** Of partials that do not overlap, the largest last */
function rounded(partials) {
  let n = partials.length;
  if (!n) return 0;
  let high = partials[--n];
  let low = 0;
  while (n && !low) {
    const x = high;
    const y = partials[--n];
    high = x + y;
    low = y - (high - x);
  }
  if (n && ((low < 0 && partials[n - 1] < 0) || (low > 0 && partials[n - 1] > 0))) {
    const twice = low * 2;
    const other = high + twice;
    if (twice === other - high) return other;
  }
  return high;
}

/** The worst gap of each rule so far; memory does not grow with the ledger. */
export class Tally {
  constructor(rules) {
    this.byRule = new Map(rules.map((rule) => [rule, { rule, checked: 0, worstGap: 0, tolerance: 0, where: "", violated: false }]));
  }

  take(gaps) {
    for (const each of gaps) {
      const old = this.byRule.get(each.rule);
      const isWorse = each.violated === old.violated ? each.size > old.worstGap : each.violated;
      if (!old.checked || isWorse) {
        Object.assign(old, { worstGap: each.size, tolerance: each.tolerance, where: each.where, violated: each.violated });
      }
      old.checked++;
    }
  }

  results() {
    return [...this.byRule.values()];
  }
}
