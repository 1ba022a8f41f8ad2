// Numbers as colours, with a legend that says which.

import { colourAt } from "./palette.js";
import { tick } from "./parts.js";

const LEFT = 46;

/** { colour, scale, ends, note } of values up to `largest` */
export function scaledTo(kind, largest) {
  const logs = Math.log(Math.max(largest, 2));
  const kinds = {
    rank: { share: (v) => 1 - Math.log(v) / logs, ends: [tick(largest), "1"], scale: "size" },
    share: { share: (v) => v, ends: ["0", "1"], scale: "size" },
    size: { share: (v) => v / largest, ends: ["0", tick(largest)], scale: "size" },
    signed: { share: (v) => 0.5 + v / largest / 2, ends: [tick(-largest), `+${tick(largest)}`], scale: "signed" },
  };
  const { share, ends, scale } = kinds[kind];
  return { ends, scale, note: kind === "rank" ? "logarithmic" : "", colour: (value) => colourAt(scale, share(value)) };
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
