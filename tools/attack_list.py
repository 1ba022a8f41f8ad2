"""Prints the attacks and the kill matrix into docs/certify.md, between their markers: `python -m tools.attack_list`. A test refuses drift."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from formation.certify import suite
from formation.certify.attack import Attack
from formation.certify.certification import read_bundle
from formation.certify.forgery import Scene
from formation.certify.matrix import Matrix, matrix
from formation.certify.on_text import DOCUMENTS, FORMS, NUMBERS, WITHOUT_NUMBERS
from formation.certify.on_weights import EVERY
from formation.evidence.checks import CHECKS

PAGE = Path(__file__).parents[1] / "docs" / "certify.md"
ATTACKS = ("<!-- attacks: made by tools/attack_list.py -->", "<!-- end of the attacks -->")
MATRIX = ("<!-- kill matrix: made by tools/attack_list.py -->", "<!-- end of the kill matrix -->")
SHOWN = 4  # attacks of a check in the matrix


def page_with(page: str, markers: tuple[str, str], made: str) -> str:
    """`page` with what stands between the markers made anew"""
    before, _, rest = page.partition(markers[0])
    _, _, after = rest.partition(markers[1])
    return f"{before}{markers[0]}\n{made}\n{markers[1]}{after}"


def attack_list() -> str:
    parts = []
    for group in suite.GROUPS:
        parts += [f"\n### On {group.name}: {len(group.attacks)}\n\n", forms() if group.name == "text" else "", table(group.attacks)]
    return "".join([*parts, f"\n### On weights, with `--checkpoint`: {len(EVERY)}\n\n", table(EVERY)])


def forms() -> str:
    documents = ", ".join(f"`{name}` ({check})" for name, check in DOCUMENTS.items())
    rest = f"those of numbers ({', '.join(NUMBERS)}) not in {' and '.join(f'`{name}`' for name in WITHOUT_NUMBERS)}, which have none"
    return f"Each of {documents} in each of these forms, {rest}: {', '.join(FORMS)}. Beside these:\n\n"


def table(attacks: Sequence[Attack]) -> str:
    listed = [attack for attack in attacks if not (attack.group == "text" and attack.name.partition(": ")[2] in FORMS)]
    rows = [f"| {a.name} | {a.adversary} | {a.mutation} | {a.expected}{' (claim withheld)' if a.withheld else ''} |\n" for a in listed]
    return "".join(["| attack | who has | what they do | refused by |\n|---|---|---|---|\n", *(row.replace("\\", "\\\\") for row in rows)])


def kill_matrix(found: Matrix) -> str:
    rows = []
    for check in CHECKS:
        names = sorted(found[check.name], key=lambda name: ": " in name)  # forms of texts last
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        which = "; ".join(names[:SHOWN]) or "UNTESTED"
        rows.append(f"| {check.id} | {check.name} | {len(names)} | {which}{more} |\n")
    return "".join(["\n| | without the check | get through | which |\n|---|---|---|---|\n", *rows])


def scenes(folder: Path) -> list[Scene]:
    """A greedy run with all rows, a sampled one, and one that scores a given text"""
    from tests.evidence.whole_bundles import SAMPLE, SCORED, Kind, make

    made = [make(folder / name, kind) for name, kind in (("greedy", Kind()), ("sampled", Kind(sampler=SAMPLE)), ("scored", SCORED))]
    return [Scene(read_bundle(path)) for path in made]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = matrix(scenes(Path(folder)))
    page = page_with(PAGE.read_text(encoding="utf-8"), ATTACKS, attack_list())
    PAGE.write_text(page_with(page, MATRIX, kill_matrix(made)), encoding="utf-8")


if __name__ == "__main__":
    main()
