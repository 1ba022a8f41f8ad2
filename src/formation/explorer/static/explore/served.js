// The bundle as the server has it that gave this page (cli/serve.py): ranges of its files, from there and from nowhere else.

import { ContainerRefusal } from "../verify/refusals.js";
import { Unreachable } from "./stored.js";

/** Gives bytes `begin` to `end` of a file */
export async function served(name, begin, end) {
  const { status, bytes } = await answer(name, begin, end);
  if (status === 206 && bytes.length === end - begin) return bytes;
  throw new ContainerRefusal(`${name}: expected bytes ${begin} to ${end - 1} from the server, got ${bytes.length} with status ${status}`);
}

async function answer(name, begin, end) {
  try {
    const found = await fetch(`files/${name}`, { headers: { Range: `bytes=${begin}-${end - 1}` }, redirect: "error" });
    return { status: found.status, bytes: new Uint8Array(await found.arrayBuffer()) };
  } catch {
    throw new Unreachable("the server that gave this page does not answer");
  }
}
