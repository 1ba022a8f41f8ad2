// One row of rows/ or router/, read from the bytes in this page.

import { bytesOfBlob } from "../verify/container.js";
import { ContainerRefusal } from "../verify/refusals.js";
import { POSITIONS, fileName, fitting, layouts } from "../verify/sidecars.js";

/** Row `index` of a tensor of a position; null where the bundle does not keep it, or the file is not in its one form */
export async function rowOf({ blobs, ledger }, folder, tensor, position, index) {
  const first = position - (position % POSITIONS);
  const name = `${folder}/${fileName(first)}`;
  if (!blobs.has(name)) return null;
  const blob = blobs.get(name);
  try {
    const { layout, positions } = await fitting(layouts(folder, ledger.run), blob, first, name);
    if (position - first >= positions) return null;
    return await bytesOfBlob(cut(blob, layout, layout.start(first) + (position - first) * layout.positionBytes, tensor, index));
  } catch (refusal) {
    if (!(refusal instanceof ContainerRefusal)) throw refusal;
    return null;
  }
}

function cut(blob, layout, begin, tensor, index) {
  let at = begin;
  for (const [name, rows, width] of layout.tensors) {
    if (name === tensor) return blob.slice(at + index * width * 4, at + (index + 1) * width * 4);
    at += rows * width * 4;
  }
  throw new ContainerRefusal(`expected rows of ${tensor}, got others`);
}
