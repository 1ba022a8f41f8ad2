// Numbers as colours, with a legend that says which.

import { colourAt } from "./palette.js";
import { tick } from "./parts.js";

const LEFT = 46;

/** { share, scale, ends, note } of values up to `largest`: where on the scale (palette.js) one stands */
export function scaledTo(kind, largest) {
  const logs = Math.log(Math.max(largest, 2));
  const kinds = {
    rank: { share: (v) => 1 - Math.log(v) / logs, ends: [tick(largest), "1"], scale: "size" },
    share: { share: (v) => v, ends: ["0", "1"], scale: "size" },
    size: { share: (v) => v / largest, ends: ["0", tick(largest)], scale: "size" },
    signed: { share: (v) => 0.5 + v / largest / 2, ends: [tick(-largest), `+${tick(largest)}`], scale: "signed" },
  };
  const { share, ends, scale } = kinds[kind];
  return { share, ends, scale, note: kind === "rank" ? "logarithmic" : "" };
}

/** How many of `size` pixels each stand between two labels that need `room`: a round number */
export function everyOf(size, room) {
  const least = Math.max(room / size, 1);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((m) => m * power).find((count) => count >= least);
}

/** The scale's colours with their ends, and how absent looks */
export function legend(scene, { ends, scale, note, hasAbsent = true }, y, ink) {
  const width = 120;
  scene.text({ x: LEFT, y: y + 14, text: ends[0], fill: ink.soft });
  const begin = LEFT + 8 + ends[0].length * 6.5;
  for (let i = 0; i < 24; i++) scene.rect({ x: begin + (i * width) / 24, y: y + 4, w: width / 24 + 0.5, h: 11, fill: colourAt(scale, i / 23) });
  const end = `${ends[1]}${note ? `, ${note}` : ""}`;
  scene.text({ x: begin + width + 6, y: y + 14, text: end, fill: ink.soft });
  if (!hasAbsent) return;
  const absent = begin + width + 24 + end.length * 6.5;
  scene.hatch({ x: absent, y: y + 4, w: 16, h: 11 }).text({ x: absent + 21, y: y + 14, text: "absent", fill: ink.soft });
}
