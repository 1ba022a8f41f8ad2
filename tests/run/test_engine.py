"""The engine as a library: steps, samplers, reading each layer once, and accounts that add up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import formation
from formation.errors import NonFiniteError, PromptError, ReadError, UsageError
from formation.model.taps import Site, Tap
from small_models import small_checkpoint, small_config


def engine(folder: Path, **options: object) -> formation.Engine:
    return formation.Engine(formation.open(folder), **({"memory": "16MiB", "threads": 2} | options))


def test_greedy_steps_take_the_largest_logit_and_positions_follow(k25_folder: Path) -> None:
    with engine(k25_folder) as e:
        steps = list(e.generate([5, 6, 7], 4))
    assert [s.position for s in steps] == [3, 4, 5, 6]
    assert [s.id for s in steps] == [int(s.logits.argmax()) for s in steps]


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others(k25_folder: Path) -> None:
    def draw(seed: int) -> list[int]:
        with engine(k25_folder) as e:
            return [s.id for s in e.generate([1, 2], 8, formation.Sample(temperature=1.5, seed=seed))]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_sampled_token_lies_in_the_interval_of_its_draw(k25_folder: Path) -> None:
    with engine(k25_folder) as e:
        for step in e.generate([1, 2], 8, formation.Sample(temperature=1.0, top_k=20, top_p=0.9, seed=3)):
            draw = step.choice.draw
            assert draw is not None
            assert draw.low <= draw.draw < draw.high
            assert draw.kept <= 20


def test_generation_ends_after_a_stop_token(k25_folder: Path) -> None:
    with engine(k25_folder) as e:
        ids = [s.id for s in e.generate([5, 6, 7], 8)]
        assert [s.id for s in e.generate([5, 6, 7], 8, stop={ids[2]})] == ids[: ids.index(ids[2]) + 1]


def test_no_tokens_are_no_steps(k25_folder: Path) -> None:
    with engine(k25_folder) as e:
        assert list(e.generate([5], 0)) == []
        with pytest.raises(PromptError):
            e.generate([5], -1)


def test_a_context_can_be_filled_to_its_last_position(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "short", small_config(max_position_embeddings=8))
    with engine(folder) as e:
        assert len(list(e.generate([1] * 8, 1))) == 1
        with pytest.raises(PromptError):
            e.generate([1] * 8, 2)


def test_every_layer_is_read_once_for_a_prompt(k25_folder: Path) -> None:
    with engine(k25_folder) as e:
        (step,) = e.generate(list(range(100)), 1)
    by_part = {p.part: p for p in step.reads.parts}
    assert list(by_part) == ["embedding", "layer 0", "layer 1", "layer 2", "layer 3", "lm_head"]
    assert (by_part["layer 0"].disk_uses, by_part["layer 0"].cache_uses) == (1, 0)
    for layer in ("layer 1", "layer 2", "layer 3"):  # its own part, and each of at most 24 experts
        assert 1 < by_part[layer].disk_uses + by_part[layer].cache_uses <= 25


def test_accounts_add_up_to_what_the_disk_gave(k25_folder: Path) -> None:
    with engine(k25_folder, guess=False) as e:
        steps = list(e.generate([3, 4, 5], 6))
        assert e._executor is not None
        assert sum(s.reads.disk_bytes for s in steps) == e._executor.stream.bytes_read
    for step in steps:  # nothing is dropped or left over in this budget
        assert step.reads.disk_bytes == sum(p.disk_bytes for p in step.reads.parts)
    assert steps[-1].reads.cache_bytes > steps[-1].reads.disk_bytes  # everything fits into this budget


def test_a_probe_sees_every_tap_once_per_position_and_changes_nothing(k25_folder: Path) -> None:
    class Counting:
        def __init__(self) -> None:
            self.seen: dict[Site, int] = {}

        def wants(self, tap: Tap) -> bool:
            return True

        def __call__(self, site: Site, positions: np.ndarray, values: np.ndarray) -> None:
            assert len(values) == len(positions)
            self.seen[site] = self.seen.get(site, 0) + len(positions)

    probe, ids = Counting(), list(range(20))
    with engine(k25_folder, probe=probe) as e, engine(k25_folder) as blind:
        assert e.logits(ids).tobytes() == blind.logits(ids).tobytes()
    for layer in range(4):
        for tap in (Tap.CACHE_ENTRY, Tap.ATTENTION_WEIGHTS, Tap.ATTENTION_WRITE, Tap.AFTER_ATTENTION, Tap.MLP_WRITE, Tap.RESIDUAL):
            assert probe.seen[Site(tap, layer)] == 20
    routed = sum(count for site, count in probe.seen.items() if site.tap == Tap.EXPERT_OUTPUT and site.expert >= 0)
    assert routed == 3 * 20 * 4
    assert {Tap.EMBEDDING, Tap.FINAL_NORM, Tap.LOGITS} <= {site.tap for site in probe.seen}


@pytest.mark.parametrize("bound", [1, 4 * 4 * 20 * 3])
def test_attention_weights_are_shown_in_bounded_pieces_with_the_same_bits(k25_folder: Path, monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    class Pieces:
        def __init__(self) -> None:
            self.sizes: list[int] = []
            self.rows: dict[tuple[int, int], bytes] = {}

        def wants(self, tap: Tap) -> bool:
            return tap is Tap.ATTENTION_WEIGHTS

        def __call__(self, site: Site, positions: np.ndarray, values: np.ndarray) -> None:
            if site.tap is Tap.ATTENTION_WEIGHTS:
                self.sizes.append(values.nbytes)
                for position, weights in zip(positions.tolist(), values, strict=True):
                    assert not weights[:, position + 1 :].any()
                    self.rows[site.layer, position] = weights[:, : position + 1].tobytes()

    ids, whole, pieces = list(range(20)), Pieces(), Pieces()
    with engine(k25_folder, probe=whole) as e:
        wanted = e.logits(ids).tobytes()
    monkeypatch.setattr("formation.model.attention.WATCHED_BYTES", bound)
    with engine(k25_folder, probe=pieces) as e:
        assert wanted == e.logits(ids).tobytes()
    assert whole.rows == pieces.rows and 4 * 20 == len(pieces.rows)
    assert 4 == len(whole.sizes)
    assert max(pieces.sizes) <= max(bound, 4 * 4 * 20) < max(whole.sizes)


def test_taps_obey_the_sum_rules_bit_for_bit(k25_folder: Path) -> None:
    class Keeping(dict):
        def wants(self, tap: Tap) -> bool:
            return False

        def __call__(self, site: Site, positions: np.ndarray, values: np.ndarray) -> None:
            self[site] = values.copy()

    kept = Keeping()
    with engine(k25_folder, probe=kept) as e:
        e.logits([9, 8, 7])
    x = kept[Site(Tap.EMBEDDING)]
    for layer in range(4):
        u = kept[Site(Tap.AFTER_ATTENTION, layer)]
        assert np.array_equal(u, x + kept[Site(Tap.ATTENTION_WRITE, layer)])
        x = kept[Site(Tap.RESIDUAL, layer)]
        assert np.array_equal(x, u + kept[Site(Tap.MLP_WRITE, layer)])


def test_a_shard_replaced_during_a_run_ends_it(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "changing")
    with engine(folder, memory="1MiB") as e:
        steps = e.generate([1, 2, 3], 50)
        next(steps)
        for shard in folder.glob("*.safetensors"):
            data = shard.read_bytes()
            shard.write_bytes(data[:-4] + bytes(4))
        with pytest.raises(ReadError, match="safetensors"):
            list(steps)


def test_sampling_settings_outside_their_range_are_refused_when_made() -> None:
    for wrong in ({"temperature": 0}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}, {"min_p": 1.5}, {"seed": -1}):
        with pytest.raises(UsageError):
            formation.Sample(**wrong)


def test_many_prompts_of_different_lengths_use_one_engine(k25_folder: Path) -> None:
    with engine(k25_folder) as e:
        long, short = e.logits(list(range(60))), e.logits([0, 1, 2])
    assert np.array_equal(long[:3], short)


@pytest.mark.parametrize("part", ["mlp.experts.1.down_proj", "self_attn.o_proj"])
def test_a_checkpoint_with_a_value_that_is_not_finite_is_blamed_on_that_tensor(tmp_path: Path, part: str) -> None:
    checkpoint = formation.open(small_checkpoint(tmp_path / "small"))
    layer = checkpoint.config.get("text_config", checkpoint.config)["first_k_dense_replace"]
    (entry,) = (e for name, e in checkpoint.tensors.items() if f".{layer}.{part}.weight" in name and e.dtype == "BF16")
    with (checkpoint.path / entry.file).open("r+b") as file:
        file.seek(entry.begin)
        file.write(b"\xc0\x7f" * (entry.nbytes // 2))  # NaN
    with engine(checkpoint.path) as e, pytest.raises(NonFiniteError) as refused:
        e.logits(list(range(40)))
    assert f"tensor {entry.name} holds a non-finite value at element 0" in str(refused.value.hint)
