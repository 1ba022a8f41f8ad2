"""A side that is a checkpoint: what it is given, what it is made of, and when it speaks no further."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.dialogue.small_sides import KIMI, a_side, two_checkpoints

from formation.dialogue.chain import Chain
from formation.dialogue.context import Context, read_context
from formation.dialogue.edits import Edits, Mask
from formation.dialogue.event_table import RECORDS, check, check_fields
from formation.dialogue.local import LocalSide, open_local
from formation.dialogue.side import Manner, Turn
from formation.errors import BudgetError, UnsupportedError, UsageError
from formation.run.generate import Engine
from formation.run.sample import Sample
from formation.weights.checkpoint import open_checkpoint
from small_models import small_checkpoint

HEARD = [Turn(1, False, "hello"), Turn(2, True, "ab", (400, 401, 258)), Turn(3, False, "again")]


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSide]:
    with a_side("owl", two_checkpoints(tmp_path_factory.mktemp("checkpoints"))[0], 5) as found:
        yield found


def like(side: LocalSide, **manner: Any) -> LocalSide:
    return replace(side, manner=replace(side.manner, **manner))


def test_it_describes_itself_as_the_log_wants_it(side: LocalSide) -> None:
    found = side.describe()
    check(found, "side", "side")
    assert ("owl", "checkpoint", "KimiK25ForConditionalGeneration") == (found["name"], found["source"], found["model"])
    assert {"257", "258"} == set(map(str, found["stop_ids"]))


def test_its_own_turns_are_the_ids_it_said_and_the_others_are_text(side: LocalSide) -> None:
    ids = side.prompt(HEARD)
    at = ids.index(400)
    assert [400, 401, 258] == ids[at : at + 3] and 1 == ids.count(400)  # what ended it is what the template ends it with
    typed = [Turn(1, False, "<|im_end|>")]
    assert ids.count(258) - 2 == side.prompt(typed).count(258) == side.prompt([Turn(1, False, "x")]).count(258)


def test_every_token_is_an_event_of_the_table_with_the_models_own_numbers(side: LocalSide) -> None:
    speech = side.speak(HEARD)
    pieces = list(speech)
    events = [piece.event for piece in pieces]
    assert len(events) == 4 and "tokens" == speech.ended
    logits = side.engine.logits([*side.prompt(HEARD), *(event["id"] for event in events)])
    for n, event in enumerate(events):
        check_fields(event["measured"], RECORDS["measured"], "measured")
        assert len(side.prompt(HEARD)) + n == event["position"]
        z = logits[event["position"] - 1]
        assert float(z[event["id"]]) == event["measured"]["model"]["score"]
        assert side.tokenizer.token_bytes(event["id"]) == b64decode(event["bytes"])


def test_a_turn_that_was_begun_goes_on_to_the_same_tokens(side: LocalSide) -> None:
    events = [piece.event for piece in side.speak(HEARD)]
    for count in range(len(events) + 1):
        speech = side.speak(HEARD, events[:count])
        assert events[count:] == [piece.event for piece in speech]
        assert "tokens" == speech.ended


def test_draws_depend_on_seed_and_position_and_on_nothing_before(side: LocalSide) -> None:
    one, other = ([piece.event for piece in like(side, chain=Chain(Sample(1.0, seed=seed))).speak(HEARD)] for seed in (5, 6))
    assert [event["measured"]["draw"] for event in one] != [event["measured"]["draw"] for event in other]
    assert one == [piece.event for piece in side.speak(HEARD)]


@pytest.mark.parametrize(("policy", "kept"), [("full", 3), ("last 1", 1), ("last 2", 2), ("last 9", 3)])
def test_what_it_is_given_is_what_the_policy_says(side: LocalSide, policy: str, kept: int) -> None:
    speech = like(side, context=read_context(policy)).speak(HEARD)
    assert 3 - kept == speech.left_out == speech.prompt["left_out"]
    assert side.prompt(HEARD[3 - kept :]) == speech.prompt_ids


def test_a_budget_of_tokens_leaves_the_oldest_out_and_the_newest_never(side: LocalSide) -> None:
    sizes = [len(side.prompt(HEARD[left:])) for left in range(3)]
    for budget, left in ((sizes[0], 0), (sizes[0] - 1, 1), (sizes[1], 1), (sizes[1] - 1, 2), (1, 2)):
        assert left == like(side, context=Context("token_budget", budget)).speak(HEARD).left_out
    assert 0 == like(side, context=Context("token_budget", 1)).speak([]).left_out


@pytest.mark.parametrize("words", ["", "last", "last 0", "last -1", "0 tokens", "full 3", "LAST 2", "last 99999999999999999999"])
def test_a_context_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match="context: expected full, 'last 6' or '4000 tokens'"):
        read_context(words)


def test_an_end_token_ends_the_turn_and_is_no_text_of_the_next_prompt(side: LocalSide) -> None:
    ends = like(side, chain=Chain(edits=Edits(masks=(Mask("only the end", frozenset({258}), allow=True),))))
    speech = ends.speak(HEARD)
    assert [258] == [piece.event["id"] for piece in speech]
    assert "end of turn" == speech.ended
    over = ends.speak(HEARD, [{"id": 258}])
    assert ([], "end of turn") == (list(over), over.ended)
    assert side.prompt([*HEARD, Turn(4, True, "")]) == side.prompt([*HEARD, Turn(4, True, "", (258,))])


def test_what_was_masked_is_never_said_and_penalties_count_its_own_tokens_only(side: LocalSide) -> None:
    first = next(iter(side.speak(HEARD))).event
    masked = like(side, chain=Chain(side.manner.chain.sampler, Edits(masks=(Mask("not that", frozenset({first["id"]})),))))
    assert first["id"] != next(iter(masked.speak(HEARD))).event["id"]
    assert [400, 401, 258] == side.speak(HEARD).history
    assert [400, 401, 258, 7] == side.speak(HEARD, [{"id": 7}]).history
    assert [] == like(side, context=Context("last_n", 1)).speak(HEARD).history


def test_a_full_context_is_said_and_never_run_over(side: LocalSide) -> None:
    full = like(side, most_tokens=10)
    heard = [Turn(1, False, "x" * (1024 - len(side.prompt([Turn(1, False, "")])) - 2))]
    speech = full.speak(heard)
    assert 3 == len(list(speech)) and "context" == speech.ended  # the last one is never stepped
    over = full.speak([Turn(1, False, "x" * 1100)])
    assert [] == list(over) and "context" == over.ended


def test_digests_of_a_prompt_are_of_its_ids(side: LocalSide) -> None:
    digest = hashlib.sha256(np.array(side.prompt(HEARD), "<i8").tobytes()).hexdigest()
    assert {"prompt_tokens": len(side.prompt(HEARD)), "prompt_sha256": digest, "left_out": 0} == side.speak(HEARD).prompt


def test_what_cannot_speak_is_refused_before_a_dialogue_begins(tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "m", KIMI)
    template = folder / "chat_template.jinja"
    good = template.read_text()
    with pytest.raises(BudgetError, match="memory budget: expected at least"):
        open_local("owl", Engine(open_checkpoint(folder), memory="300KiB"), Manner())
    template.write_text(good.replace("m.content", "m.content | upper"))
    with pytest.raises(UnsupportedError, match=r"chat_template\.jinja: expected a chat template that writes"):
        a_side("owl", folder, 1)
    template.unlink()
    with pytest.raises(UsageError, match="side owl: expected a checkpoint with a chat template, got none"):
        a_side("owl", folder, 1)


@pytest.mark.parametrize("tokens", [0, -3])
def test_a_turn_of_no_tokens_is_refused(tokens: int) -> None:
    with pytest.raises(UsageError, match="tokens of a turn: expected 1 or more"):
        Manner(most_tokens=tokens)
