"""Prints the checks of `formation verify` into docs/spec/bundle.md, between its markers: `python tools/check_list.py`. A test refuses drift."""

from __future__ import annotations

from pathlib import Path

from formation.evidence.checks import BY_NUMBER, CHECKS, LEVELS, RETIRED, Check

PAGE = Path(__file__).parents[1] / "docs" / "spec" / "bundle.md"
BEGIN, END = "<!-- list of checks: made by tools/check_list.py -->", "<!-- end of the list of checks -->"


def page_with_list(page: str) -> str:
    """`page` with what stands between the markers made anew"""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{markdown()}{END}{after}"


def markdown() -> str:
    levels = [f"| {level} | {meaning} |\n" for level, meaning in LEVELS.items()]
    head = "\n| level | passed means |\n|---|---|\n", *levels, "\n| check | level | says | does not say | needs |\n|---|---|---|---|---|\n"
    retired = [f"| V{number} {was} |\n" for number, was in RETIRED.items()]
    return "".join([*head, *map(row, CHECKS), "\n| retired |\n|---|\n", *retired]) + "\n"


def row(check: Check) -> str:
    needs = ", ".join(BY_NUMBER[number].id for number in check.needs)
    return f"| {check.id} {check.name} | {check.level} | {check.says} | {check.says_not} | {needs} |\n"


if __name__ == "__main__":
    PAGE.write_text(page_with_list(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
