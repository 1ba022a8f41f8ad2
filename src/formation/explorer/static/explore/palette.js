// Colours, from the page's style, so that light and dark have their own; scales that colour-blind people can read: one hue, or blue and orange.

const NAMES = ["text", "soft", "line", "card", "page", "accent", "positive", "negative", "neutral", "chosen", "refused", "idle"];
const STOPS = ["size-0", "size-1", "size-2", "size-3", "signed-0", "signed-1", "signed-2", "signed-3", "signed-4", "heat-0", "heat-1", "heat-2"];
const LEVELS = 256; // of a scale
let known = null;
const ramps = new Map(); // scale -> its colours

export function palette() {
  if (!known) {
    const style = getComputedStyle(document.documentElement);
    known = Object.fromEntries([...NAMES, ...STOPS].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }
  return known;
}

/** `listener` is called when light becomes dark or dark light */
export function followTheme(listener) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    known = null;
    ramps.clear();
    listener();
  });
}

export const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const hexOf = (values) => `#${values.map((v) => Math.round(v).toString(16).padStart(2, "0")).join("")}`;

/** The colours of a scale from 0 to 1: "size", "heat" or "signed", whose middle is 0.5 */
export function rampOf(scale) {
  if (!ramps.has(scale)) ramps.set(scale, Array.from({ length: LEVELS }, (_, n) => between(STOPS.filter((name) => name.startsWith(`${scale}-`)).map((name) => channels(palette()[name])), n / (LEVELS - 1))));
  return ramps.get(scale);
}

/** Which of them stands for `share` */
export const levelOf = (share) => Math.round(Math.min(Math.max(share, 0), 1) * (LEVELS - 1));
export const colourAt = (scale, share) => rampOf(scale)[levelOf(share)];

function between(stops, share) {
  const at = share * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return hexOf(stops[low].map((v, i) => v + (stops[low + 1][i] - v) * (at - low)));
}

/** Of black and white, the one that is read better on `colour` (WCAG 2.2, relative luminance) */
export function inkOn(colour) {
  const [r, g, b] = channels(colour).map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}
