// What the user handed over, from a drop or from a picker: a folder's files by their paths in it, or one file.

import { FIRST_LINE } from "./receipt.js";

/** { name, files: [[path, File]] } of a folder, { name, file } of a file */
export async function fromDrop(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length && transfer.files.length === 1) return fromFile(transfer.files[0]);
  if (entries.length === 1 && entries[0].isFile) return fromFile(await fileOf(entries[0]));
  const isFolder = entries.length === 1;
  const inside = isFolder ? await childrenOf(entries[0]) : entries;
  const files = [];
  for (const entry of inside) await collect(entry, "", files);
  return { name: isFolder ? entries[0].name : `${entries.length} files`, files };
}

export const fromFile = (file) => ({ name: file.name, file });

/** Of a folder picker, whose paths begin with the folder's own name */
export function fromPicker(list) {
  const paths = [...list].map((file) => [file.webkitRelativePath || file.name, file]);
  const name = paths[0]?.[0].split("/")[0] ?? "";
  return { name, files: paths.map(([path, file]) => [path.slice(path.indexOf("/") + 1), file]) };
}

export async function isReceipt(file) {
  return (await file.slice(0, FIRST_LINE.length + 1).text()) === `${FIRST_LINE}\n`;
}

async function collect(entry, prefix, files) {
  if (entry.isFile) return files.push([prefix + entry.name, await fileOf(entry)]);
  const children = await childrenOf(entry);
  if (!children.length) files.push([`${prefix}${entry.name}/`, new Blob([])]);
  for (const child of children) await collect(child, `${prefix}${entry.name}/`, files);
  return files.length;
}

const fileOf = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));

/** A directory reader gives some entries at a time, none at its end. */
async function childrenOf(entry) {
  const reader = entry.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return all;
    all.push(...some);
  }
}
