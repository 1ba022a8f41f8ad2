// The bundle that this page holds: each file as gzip in base64, in an element that runs nothing (view.py makes them).

import { fromBase64, looseText } from "../verify/bytes.js";
import { ContainerRefusal } from "../verify/refusals.js";

const FILES = 'script[type="application/gzip"]';
const NAME = 'script[type="text/plain"][data-name]';

export const bundleName = () => looseText(fromBase64(document.querySelector(NAME)?.dataset.name ?? "") ?? new Uint8Array());

/** [name, Blob] of every file that unpacks, and a sentence for the first that does not */
export async function embeddedFiles() {
  const files = [];
  let damage = "";
  for (const element of document.querySelectorAll(FILES)) {
    const name = element.dataset.file;
    try {
      files.push([name, await unpacked(element.textContent)]);
    } catch {
      damage ||= `${name}: expected whole gzip data in this page, got damaged`;
    }
  }
  return { files, damage };
}

export const refuseDamage = (damage) => {
  throw new ContainerRefusal(damage);
};

async function unpacked(text) {
  const stream = new Blob([fromBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).blob();
}
