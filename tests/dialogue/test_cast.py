"""Both sides under one memory budget."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.dialogue.small_sides import two_checkpoints

from formation.dialogue.cast import Means, Role, cast, manner_of, read_places, write_places
from formation.dialogue.chain import Chain
from formation.dialogue.context import Context
from formation.dialogue.edits import Edits, Mask
from formation.dialogue.local import LocalSide
from formation.dialogue.side import Manner
from formation.errors import BudgetError, CheckpointError, EnvironmentFault
from formation.run.sample import Sample
from small_models import small_checkpoint, small_config


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return small_checkpoint(folder / "big", small_config(num_hidden_layers=4)), two_checkpoints(folder)[1]


def roles(*checkpoints: Path, **manner: object) -> list[Role]:
    return [Role(name, str(path), Manner(**manner)) for name, path in zip(("owl", "lamp"), checkpoints, strict=True)]


def budgets(sides: list[LocalSide]) -> list[int]:
    return [side.engine.budget for side in sides]


@pytest.mark.parametrize("memory", [6 << 20, 24 << 20, 64 << 20])
def test_two_checkpoints_share_by_need_and_use_it_up(checkpoints: tuple[Path, Path], memory: int) -> None:
    with cast(roles(*checkpoints), Means(memory, 1)) as (sides, lines):
        big, small = budgets(sides)
        assert memory - 1 <= big + small <= memory and big > small
        assert ["owl: big, ", "lamp: qwen, "] == [line[: line.index(",") + 2] for line in lines]
        for side in sides:
            side.engine.plan(200, 1, side.past)


def test_a_budget_that_cannot_hold_both_is_refused_with_both_needs(checkpoints: tuple[Path, Path]) -> None:
    refused = pytest.raises(BudgetError, match=r"expected at least .* and .* for the two checkpoints, got 524 kB")
    with refused, cast(roles(*checkpoints), Means(512 << 10)):
        pass


@pytest.mark.parametrize("context", [Context(), Context("token_budget", 32)], ids=["full", "so-many-tokens"])
def test_a_budget_that_does_not_hold_long_contexts_is_split_for_shorter_ones(checkpoints: tuple[Path, Path], context: Context) -> None:
    with cast(roles(*checkpoints, context=context, most_tokens=8), Means(3 << 20, 1)) as (sides, lines):
        assert (3 << 20) - 1 <= sum(budgets(sides)) <= 3 << 20
        most = [int(line.split("up to ")[1].split()[0]) for line in lines]
        assert all(20 < count <= 1024 for count in most)


def test_one_checkpoint_on_both_sides_is_opened_once_whatever_it_is_called(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(checkpoints[1])
    with cast(roles(checkpoints[1], tmp_path / "link"), Means(16 << 20, 1)) as (sides, lines):
        assert sides[0].engine is sides[1].engine and sides[0].past is not sides[1].past
        assert 16 << 20 == sides[0].engine.budget
        assert all("that both sides share" in line for line in lines)


def test_a_side_that_is_not_there_is_refused(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a checkpoint folder"), cast(roles(checkpoints[0], tmp_path / "none"), Means(16 << 20)):
        pass


def test_where_the_sides_were_is_read_back_and_a_broken_note_is_named(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    given = [*roles(*checkpoints)[:1], Role("lamp", "http://localhost:1/v1#m", Manner())]
    write_places(tmp_path, given)
    assert [str(checkpoints[0].resolve()), "http://localhost:1/v1#m"] == read_places(tmp_path)
    for broken in (b"{}", b'{"sources":["a"]}', b'{"sources":[1,2]}', b"[]"):
        (tmp_path / "sides.json").write_bytes(broken)
        with pytest.raises(EnvironmentFault, match=r"sides\.json: expected the sources of two sides"):
            read_places(tmp_path)


@pytest.mark.parametrize(
    "manner",
    [
        Manner(),
        Manner("Be brief.", True, Context("last_n", 3), Chain(Sample(0.5, 3, 0.9, 0.1, 2**63, 1)), 7),
        Manner(
            thinking=False, context=Context("token_budget", 9), chain=Chain(edits=Edits(1.5, 0.5, -0.5, ((3, 1.5),), (Mask("no", frozenset({4})),)))
        ),
    ],
    ids=["usual", "sampled", "edited"],
)
def test_a_manner_is_what_the_log_says_it_is(manner: Manner) -> None:
    assert manner == manner_of(manner.document())
