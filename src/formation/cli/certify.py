"""Attack copies of a bundle, and with them the verifier: every attack must be refused by the check that is there for it.

The attacker is given this program's own hashing and signing. Copies are signed by a throwaway key that plays the signer's part, and the bundle
itself is not changed but for certification.json, which is written also if something got through. With --checkpoint come attacks that only an
audit can find. Exit code 0: all were refused. 1: something was not.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from formation.cli.options import add_json, add_streaming, read_checkpoint
from formation.cli.speech import LiveLine, harmless

if TYPE_CHECKING:
    from formation.certify import Certification
    from formation.certify.suite import Outcome

HELP = "attack a bundle and its verifier"
DEEP = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="NAME.ofb", help="a sealed bundle that verifies")
    parser.add_argument("--checkpoint", metavar="CKPT", help="folder with the weights: about twenty full audits more")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random mutations (default 0)")
    parser.add_argument("--mutations", type=int, default=300, metavar="N", help="how many random mutations (default 300)")
    parser.add_argument("--deep", action="store_true", help=f"{DEEP:,} random mutations, and every bit of every file of at most 4 KiB")
    parser.add_argument("--attacks", action="store_true", help="print every attack, not only the counts")
    parser.add_argument("--out", type=Path, metavar="PATH", help="where the result goes (default: certification.json in the bundle)")
    parser.add_argument("--key", type=Path, metavar="PATH", help="the certifier's private key (default: the user's own, made on first use)")
    add_streaming(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.certify import certify
    from formation.errors import UsageError
    from formation.evidence import keys
    from formation.run import machine

    if args.out is None and not args.bundle.is_dir():
        raise UsageError(f"{args.bundle}: expected a folder, or --out for the result, got neither", hint="add --out certification.json")
    if args.mirror and args.checkpoint is None:
        raise UsageError("certify: expected --checkpoint with --mirror, got none", hint="add --checkpoint CKPT")
    checkpoint = None if args.checkpoint is None else read_checkpoint(args)
    key, began, progress = keys.load_or_create(args.key), time.monotonic(), Progress()
    mutations = DEEP if args.deep else args.mutations
    found = certify(
        args.bundle, checkpoint=checkpoint, seed=args.seed, mutations=mutations, every_bit=args.deep, memory=args.memory, threads=args.threads,
        processes=args.threads or machine.cores(), progress=progress,
    )  # fmt: skip
    progress.end()
    path = args.out or args.bundle / "certification.json"
    found.write(path, key)
    seconds = time.monotonic() - began
    if args.json:
        print(json.dumps({"outcome": found.counts.outcome, **found.result(), "seconds": seconds, "written": str(path)}))
    else:
        print("\n".join(map(harmless, told(found, path, seconds, every=args.attacks))))
    return 0 if found.passed else 1


# ---- the table


def told(found: Certification, path: Path, seconds: float, *, every: bool) -> list[str]:
    counts = found.counts
    lines = [f"{'attacks on':14}{'refused':>9}  by"]
    for group in dict.fromkeys(outcome.attack.group for outcome in found.outcomes):
        lines.append(group_line(group, [outcome for outcome in found.outcomes if outcome.attack.group == group]))
    lines += [*mutation_lines(found), *(outcome_line(outcome) for outcome in found.outcomes if every)]
    lines += [f"GOT THROUGH   {what}" for what in unmet(found)]
    verdict = "certified" if found.passed else "NOT CERTIFIED"
    lines += ["", f"{verdict:14}{counts}; seed {found.seed}; {seconds:.1f} s", f"{'written':14}{path}"]
    return [*lines, "a certification says what was tried and refused; that nothing else would get through, no list of attacks can say"]


def group_line(group: str, outcomes: list[Outcome]) -> str:
    states = [outcome.state for outcome in outcomes]
    made = states.count("refused") + states.count("got through")
    if not made and "not run" in states:
        return f"{group:14}{'–':>9}  not run: {outcomes[0].observed} ({states.count('not run')} attacks)"
    checks = list(dict.fromkeys(o.attack.expected.rpartition(": ")[2] for o in outcomes if o.state == "refused"))
    left = f"; {states.count('not applicable')} without an object here" if "not applicable" in states else ""
    return f"{group:14}{states.count('refused'):>5}/{made:<3}  {shortened(checks)}{left}"


def shortened(names: list[str], most: int = 7) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def mutation_lines(found: Certification) -> list[str]:
    tally = found.tally
    if not tally.count:
        return []
    by = sorted(tally.checks, key=lambda name: (-tally.checks[name], name))
    lines = [f"{'mutations':14}{tally.refused:>5}/{tally.count:<3}  {shortened([f'{name} {tally.checks[name]}' for name in by])}"]
    untold = tally.count - tally.refused - len(tally.failures)
    if untold:
        what = shortened(sorted(tally.untold), 5)
        lines.append(f"{'':14}{untold:>5}      signed by the right key and true as far as anyone can tell without the weights: {what}")
    return lines


def outcome_line(outcome: Outcome) -> str:
    return f"{outcome.state:15}{outcome.attack.group}: {outcome.attack.name} ({outcome.attack.adversary}) – {outcome.observed}"


def unmet(found: Certification) -> list[str]:
    through = (o for o in found.outcomes if o.state == "got through")
    named = [f"{o.attack.group}: {o.attack.name}: expected a refusal by {o.attack.expected}, got {o.observed}" for o in through]
    return [*named, *found.tally.failures]


class Progress(LiveLine):
    def __call__(self, what: str, done: int, of: int) -> None:
        if self.is_due():
            self.show(f"certifying · {what} {done}/{of}")
