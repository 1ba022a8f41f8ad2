"""`formation bench --replay`: what a cache would have held of a recorded run's experts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from formation.cli.main import main
from formation.evidence.bundle import Bundle
from recorded_runs import run


@pytest.fixture(scope="module")
def bundle(k25_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "run.ofb"
    run(k25_folder, out, parity="none")
    return out


def test_every_use_of_the_run_is_counted_and_with_room_for_all_only_first_uses_are_read(bundle: Path, capsys):
    assert 0 == main(["bench", "--replay", str(bundle), "--slots", "500", "--json"])
    facts = json.loads(capsys.readouterr().out)
    used = [(e.layer, e.expert) for e in Bundle(bundle).experts if not e.shared]
    assert len(used) == facts["uses"]
    assert len(set(used)) == facts["experts_used"] <= facts["experts"]
    assert [[len(used) - len(set(used))]] * 4 == [row["hits"] for row in facts["policies"]]


def test_the_table_has_a_line_for_each_policy_and_a_column_for_each_size(bundle: Path, capsys):
    assert 0 == main(["bench", "--replay", str(bundle), "--policies", "lru,optimum", "--slots", "20", "--slots", "10"])
    lines = capsys.readouterr().out.splitlines()
    assert ["10", "20"] == lines[-3].split()[-2:]
    assert ["lru", "optimum"] == [line.split()[0] for line in lines[-2:]]
    shares = [[float(word.rstrip("%")) for word in line.split()[1:]] for line in lines[-2:]]
    assert all(kept <= best for kept, best in zip(*shares, strict=True))


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--policies", "lru,mru"], 2, "policies: expected some of lru, lfu, segmented, optimum, got 'mru'"),
        (["--slots", "1"], 2, "slots: expected at least the 4 experts that a token uses in one layer, got 1"),
    ],
)
def test_a_wrong_option_is_refused_by_name(bundle: Path, capsys, more, code, said):
    assert code == main(["bench", "--replay", str(bundle), *more])
    out, err = capsys.readouterr()
    assert "" == out
    assert said in err


def test_what_is_no_bundle_is_refused(tmp_path: Path, capsys):
    assert 3 == main(["bench", "--replay", str(tmp_path / "none.ofb")])
    assert "expected a bundle" in capsys.readouterr().err
