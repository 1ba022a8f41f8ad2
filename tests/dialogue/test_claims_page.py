"""docs/claims.md says what the code does: its table of procedures, its verdicts and scopes, its commands and its example."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from formation.cli.main import build_parser
from formation.dialogue.claims.catalog import MODULES, PROCEDURES
from formation.dialogue.claims.claim import SCOPES, VERDICTS
from formation.dialogue.claims.judge import RELATIONS
from formation.dialogue.claims.procedure import MODEL

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "claims.md").read_text()
START, END = "dialogue/claims/catalog.py -->\n", "<!-- end of procedures -->"


def table() -> str:
    rows = ["| procedure | what it finds | inputs | scope | without a model |", "|---|---|---|---|---|"]
    for name, each in PROCEDURES.items():
        inputs = ", ".join(f"`{one.name}`" if one.needed else f"[`{one.name}`]" for one in each.inputs) or "–"
        rows.append(f"| `{name}` | {each.about} | {inputs} | {each.scope} | {'–' if each.needs == MODEL else 'yes'} |")
    return "\n".join(rows) + "\n"


def test_the_table_of_procedures_is_that_of_the_code() -> None:
    assert table() == PAGE.split(START)[1].split(END)[0], "put this between the two comments of docs/claims.md:\n" + table()
    assert len(PROCEDURES) == sum(len(module.PROCEDURES) for module in MODULES)  # no name twice


def test_verdicts_scopes_and_relations_are_on_the_page() -> None:
    assert list(VERDICTS) == first_column("| verdict | when |") and list(SCOPES) == first_column("| scope | what the verdict is about |")
    assert all(f"`{relation}`" in PAGE for relation in RELATIONS)


def first_column(head: str) -> list[str]:
    return [row.split("|")[1].strip() for row in PAGE.split(head)[1].split("\n\n")[0].splitlines()[2:]]


def test_the_commands_of_the_page_are_commands() -> None:
    commands = re.findall(r"^    formation ((?:claims|certificate) .*?)(?: +#.*)?$", PAGE, re.M)
    assert 5 == len(commands)
    for command in commands:
        build_parser().parse_args(shlex.split(command))


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "transcript.md").write_bytes((ROOT / "examples" / "small-talk" / "transcript.md").read_bytes())
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(code, "docs/claims.md", "exec"), {})
    *told, last = capsys.readouterr().out.splitlines()
    assert 3 == len(told) and -200 < float(last.split()[0]) < -100


def test_what_the_page_prints_of_the_certificate_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    args = build_parser(["certificate"]).parse_args(
        ["certificate", str(ROOT / "src/formation/samples/kimi_k25"), "--tokens", "len", "--memory", "8MiB"]
    )
    assert 0 == args.run(args)
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    printed = [line.strip() for line in PAGE.split("## The certificate\n")[1].split("\nA softmax")[0].splitlines() if line.strip()]
    assert 4 == len(printed) and all(line in shown for line in printed)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "src/formation/dialogue/claims").glob("*.py") if path.stem != "__init__"))
def test_the_packages_page_names_every_module(name: str) -> None:
    assert name in (ROOT / "src/formation/dialogue/claims/__init__.py").read_text()
