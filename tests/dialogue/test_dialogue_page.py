"""docs/dialogue.md says what the code does: its tables of events are those of the event table, its commands and its example run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.dialogue.golden import OWN

from formation.cli.main import build_parser
from formation.dialogue.event_table import EVENTS, RECORDS, Field
from formation.dialogue.stops.words import DEFAULT, read_rule
from formation.ledger.zero import Kind

PAGE = (Path(__file__).parents[2] / "docs" / "dialogue.md").read_text()
START, END = "dialogue/event_table.py -->\n", "<!-- end of events -->"


def table(name: str, fields: tuple[Field, ...]) -> str:
    rows = [
        f"| `{field.name}` | {field.type.replace(' | ', ', ')} | {field.definition or '–'} | {', '.join(field.absent) or '–'} |" for field in fields
    ]
    return "\n".join([f"#### {name}", "", "| field | type | what it is | may be absent |", "|---|---|---|---|", *rows, ""])


def tables() -> str:
    events = "\n".join(table(f"event `{kind}`", fields) for kind, fields in EVENTS.items())
    return events + "\n" + "\n".join(table(f"record `{name}`", fields) for name, fields in RECORDS.items())


def test_the_tables_of_events_are_those_of_the_code() -> None:
    assert tables() == PAGE.split(START)[1].split(END)[0], "put this between the two comments of docs/dialogue.md:\n" + tables()


def test_the_commands_of_the_page_are_commands_and_its_rules_are_rules() -> None:
    commands = re.findall(r"^    formation (dialogue .*?)(?: +#.*)?$", PAGE, re.M)
    assert 9 == len(commands)
    for command in commands:
        build_parser().parse_args(shlex.split(command))
    rows = PAGE.split("| condition | holds when |")[1].split("\n\n")[0]
    words = [each for row in rows.splitlines()[2:] for each in re.findall(r"`([^`]+)`", row) if each not in ("[END]", "anywhere")]
    assert 21 == len(words)
    assert all(read_rule(each) for each in words)
    assert all(f"`{words}`" in PAGE for words in DEFAULT)


def test_every_zero_kind_is_on_the_page() -> None:
    rows = PAGE.split("| zero kind |")[1].split("\n\n")[0]
    assert list(Kind) == [row.split("`")[1].split("(")[0] for row in rows.splitlines()[2:]]


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, live = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (tmp_path / "talk.md").write_bytes(OWN.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/dialogue.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.startswith("('Night Owl', 'lamp-2') (7, 7) []\n")
    assert 4 == len(out.splitlines())
    exec(compile(live, "docs/dialogue.md", "exec"), {})
    told = capsys.readouterr().out.splitlines()
    assert ["2 messages", "token"] == [told[0], told[1].split()[0]] and 0 > float(told[1].split()[2]) > -0.1


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (Path(__file__).parents[2] / "src/formation/dialogue").glob("*.py") if path.stem != "__init__")
)
def test_the_packages_page_names_every_module(name: str) -> None:
    import formation.dialogue

    assert name in str(formation.dialogue.__doc__)
