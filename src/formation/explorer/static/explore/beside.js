// Numbers of several cells side by side, and how far each is from the first: for pins, and for two ledgers.

import { element } from "../verify/elements.js";
import { FIELDS } from "../verify/fields.js";
import { groupsOf } from "./cell.js";
import { isAbsent } from "./opened.js";
import { part, shown } from "./parts.js";
import { numbersOf } from "./provenance.js";

const HEADS = ["lm_head", "sampler", "token"];
const NUMBERS = ["f32", "f64", "int"];
const OF_EXPERT = [["gate", "gates"], ["selection", "chosen_selection"], ["write norm", "expert_write_norms"], ["cosine of its write with m", "expert_write_cosines"], ["contribution to y", "dla_experts"]];
const NO_EXPERT = { absent: "no expert selected" };
const NOT_CHOSEN = { absent: "not chosen" };
const NOT_CAPTURED = { absent: "not captured at this level" };
const isScalar = ({ dtype }) => NUMBERS.includes(dtype);

/** A column: { title, ledger, drawer, position, layer, expert }. [title, [{ name, values, ats }]]: `ats` say where in the ledger each stands. */
export function rowsOf(columns) {
  const first = ofCell(columns[0]);
  const token = FIELDS.filter((field) => HEADS.includes(field.slot) && isScalar(field)).map(({ slot, name }) => row(columns, name, (column) => lineOf(column, slot)[name], () => slot));
  const cells = groupsOf(Object.assign({}, ...columns.slice(1).map(ofCell), first)).map(([title, fields]) =>
    [title, fields.filter(isScalar).map(({ name }) => row(columns, name, (column) => ofCell(column)[name], ({ layer }) => `layer ${layer}`))]);
  const experts = OF_EXPERT.map(([title, name]) => row(columns, title, (column) => ofExpert(column, name), () => null));
  return [["Token", token], ["Expert", experts], ...cells].map(([title, rows]) => [title, rows.filter(({ values }) => values.some((value) => value !== NOT_CAPTURED))]).filter(([, rows]) => rows.length);
}

function row(columns, name, valueOf, slotOf) {
  const values = columns.map((column) => valueOf(column) ?? NOT_CAPTURED);
  return { name, values, ats: columns.map((column, n) => (slotOf(column) && !isAbsent(values[n]) ? { position: column.position, slot: slotOf(column), name } : null)) };
}

const ofCell = ({ ledger, position, layer }) => ledger.cell(position, layer);

function lineOf({ ledger, position }, slot) {
  return ledger.positions[position].kind === "prompt" ? new Proxy({}, { get: () => ({ absent: "not a step" }) }) : ledger.values(position, slot);
}

function ofExpert(column, name) {
  const cell = ofCell(column);
  const values = cell[name];
  if (values === undefined || isAbsent(values)) return values;
  if (column.expert < 0) return NO_EXPERT;
  const n = cell.chosen.indexOf(column.expert);
  return n < 0 ? NOT_CHOSEN : values[n];
}

/** Of two numbers, the first less the second; null where one is absent */
export const apart = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : null);

/** Tables in groups that open; `open` is the set of titles that are, `what` says what stands side by side */
export function sideBySide(columns, open, what) {
  return rowsOf(columns).map(([title, rows]) => {
    const isNothing = rows.every((row) => reasonOf(row) && reasonOf(row) === reasonOf(rows[0]));
    const group = element("details.group", element("summary", title, element("span.quiet", isNothing ? ` absent: ${reasonOf(rows[0])}` : ` ${rows.length}`)));
    const fill = () => group.children.length < 2 && group.append(part("div.scrolls-x", { tabindex: "0", role: "region", "aria-label": `${title}, ${what}` }, tableOfRows(columns, rows.filter((row) => !reasonOf(row)))), ...gathered(rows));
    group.open = open.has(title);
    if (group.open) fill();
    group.addEventListener("toggle", () => {
      open[group.open ? "add" : "delete"](title);
      fill();
    });
    return group;
  });
}

/** Why a row is absent, if it is in every column and for one reason */
const reasonOf = ({ values }) => (values.every((value) => isAbsent(value) && value.absent === values[0].absent) ? values[0].absent : "");

/** Rows without any number as a sentence for each reason */
function gathered(rows) {
  const reasons = new Set(rows.map(reasonOf).filter(Boolean));
  return [...reasons].map((reason) => part("p.gathered", {}, part("span.absent", {}, `${reason}:`), ` ${rows.filter((row) => reasonOf(row) === reason).map(({ name }) => name).join(", ")}`));
}

function tableOfRows(columns, rows) {
  const heads = columns.flatMap(({ title }, n) => [part("th", { scope: "col" }, title), ...(n ? [part("th", { scope: "col", title: `${columns[0].title} − ${title}` }, "Δ")] : [])]);
  const body = rows.map(({ name, values, ats }) => element("tr", part("th", { scope: "row" }, name), ...values.flatMap((value, n) =>
    [element("td", ...cellOf(columns[n], value, ats[n])), ...(n ? [difference(values[0], value)] : [])])));
  return element("table.beside", element("thead", element("tr", part("th", { scope: "col" }, "field"), ...heads)), element("tbody", ...body));
}

function cellOf(column, value, at) {
  if (isAbsent(value)) return [part("span.absent", {}, value.absent)];
  return at ? numbersOf(column, at) : [element("span.value", shown(value))];
}

function difference(a, b) {
  const found = apart(a, b);
  if (found === null) return part("td.quiet", {}, isAbsent(a) && isAbsent(b) ? "" : "–");
  return part(`td.numeric${found ? ".differs" : ".quiet"}`, { title: String(found) }, found === 0 ? "0" : `${found > 0 ? "+" : ""}${shown(found)}`);
}

/** The same with all digits */
export function tableOfBeside(columns) {
  const plain = (value) => (isAbsent(value) ? `absent: ${value.absent}` : value);
  const rows = rowsOf(columns).flatMap(([title, found]) => found.map(({ name, values }) =>
    [title, name, ...values.flatMap((value, n) => [plain(value), ...(n ? [apart(values[0], value) ?? "absent"] : [])])]));
  return { head: ["group", "field", ...columns.flatMap(({ title }, n) => [title, ...(n ? [`difference from ${title}`] : [])])], rows };
}
