"""Bound the probability of every token from below, in every context, from the final norm and lm_head alone: a certificate that none is ever zero.

No text is run. The bound of all tokens takes two passes over lm_head, that of each token named by --tokens is sharper. Beside it stands the least
probability that was found by looking for the final state in which the token is least likely: it says how much of the bound is true.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from formation.cli.options import add_checkpoint, add_json, add_streaming, read_checkpoint
from formation.cli.speech import LiveLine, harmless
from formation.dialogue.named import FORM

if TYPE_CHECKING:
    from formation.dialogue.certificate.certified import Certified, Named

HELP = "how improbable any token can be, whatever the context"
LOG10_E = 0.4342944819032518


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--tokens", nargs="+", default=[], metavar="TOKEN", help=f"also these, each by the sharper bound: {FORM}")
    parser.add_argument("--search", type=_steps, metavar="N", help="passes of the search for the least likely state after its first (default 4)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON object there too")
    add_streaming(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.dialogue.certificate.certified import STEPS, document, examine, ids_of
    from formation.ledger import files
    from formation.text import load_tokenizer

    live = LiveLine()

    def progress(what: str, done: int, rows: int, read: int) -> None:
        if live.is_due():
            live.show(f"{what}: {done} of {rows} rows · {read / 1e9:.2f} GB read")

    steps = STEPS if args.search is None else args.search
    checkpoint = read_checkpoint(args)
    tokenizer = load_tokenizer(checkpoint.path, checkpoint.config)
    try:
        asked = ids_of(tokenizer, args.tokens)
        found = examine(checkpoint, tokenizer, asked, memory=args.memory, threads=args.threads, steps=steps, progress=progress)
    finally:
        live.end()
    told = document(found)
    if args.out:
        files.write_whole(args.out, (json.dumps(told, indent=1) + "\n").encode())
    print(json.dumps(told) if args.json else harmless("\n".join(lines(found))))
    return 0


def lines(found: Certified) -> Iterator[str]:
    from formation.run.identity import identify

    whole, rounding = found.certificate, found.certificate.rounding
    yield f"{found.checkpoint.path}, checkpoint {identify(found.checkpoint).sha256}"
    for name, sha256 in sorted(found.digests.items()):
        yield f"  {name}: {found.checkpoint.tensors[name].dtype} {list(found.checkpoint.tensors[name].shape)}, SHA-256 {sha256}  [measured]"
    yield f"  every token, in every context:  ln p ≥ {down(whole.floor_of_all_nats, 4)}, p ≥ {power(whole.floor_of_all_nats)}  [derived from weights]"
    yield f"  {prints(whole.floor_of_all_nats)}"
    yield ""
    yield f"  {'id':>8}  {'ln p ≥':>10}  {'sharper ≥':>10}  {'found':>10}  {'gap':>7}  token"
    for each in found.named:
        yield row(found, each)
    for name in dict.fromkeys(each.name for each in found.named):
        if len(own := [each for each in found.named if each.name == name]) > 1:
            nats = found.text_floor_nats(name)
            yield f"  {json.dumps(name, ensure_ascii=False)} is {len(own)} tokens: together ln p ≥ {down(nats, 4)}, p ≥ {power(nats)}"
    yield ""
    yield f"  first row: of {rounding.vocabulary} tokens the one of which the bound of all says least. found: measured, in a final state that was"
    yield "  looked for and that no text is known to lead to; gap: what lies between it and the sharper bound."
    margin = float(whole.margins.max())
    yield f"  rounding of the norm and the head is in the bounds: at most {margin:.3g} nats of a logit, {rounding.slack:.1g} of a bound"


def row(found: Certified, each: Named) -> str:
    spelt = found.spelt(each.token).decode("utf-8", "backslashreplace")
    gap = each.found.logprob_nats - each.floor_nats
    text = json.dumps(spelt, ensure_ascii=False) if spelt else "no token of the tokenizer"
    bounds = f"{down(each.bound_nats, 4):>10}  {down(each.pair.floor_nats, 4):>10}"
    return f"  {each.token:8}  {bounds}  {each.found.logprob_nats:10.4f}  {gap:7.4f}  {text}"


def power(nats: float) -> str:
    """As a power of ten: exp of it is 0 in most arithmetics"""
    return f"10^{down(nats * LOG10_E, 2)}"


def down(number: float, digits: int) -> str:
    """A lower bound stays one when it is printed."""
    return f"{math.floor(number * 10**digits) / 10**digits:.{digits}f}"


def prints(nats: float) -> str:
    """Where a number this small would be printed as 0"""
    from formation.ledger.zero import DTYPES, prints_zero

    dtypes = [dtype for dtype in DTYPES if prints_zero(nats, dtype)]
    return f"not zero, though {', '.join(dtypes)} cannot hold a number as small as the bound" if dtypes else "not zero in any dtype"


def _steps(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 1000):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1000, got {text!r}")
    return int(text)
