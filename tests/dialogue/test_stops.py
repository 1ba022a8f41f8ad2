"""When dialogues end, and that each end says from what it follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dialogue.golden import OWN, RECORDED, needs_recorded
from tests.dialogue.small_sides import StoppedClock, a_side, two_checkpoints

from formation.dialogue import conduct, events
from formation.dialogue.stops.conditions import Amounts, AtLeast, Cycle, Ends, Nothing, Said, Same, Span
from formation.dialogue.stops.rules import Evidence, Rule, Stops
from formation.dialogue.stops.simulate import USUAL, outcome, simulate, simulate_log
from formation.dialogue.stops.words import DEFAULT, read_rule
from formation.dialogue.transcripts import formats
from formation.dialogue.transcripts.transcript import Message, Transcript
from formation.errors import UsageError


def by(*texts: str) -> Transcript:
    """Two sides in turn"""
    return Transcript(("a", "b"), tuple(Message(place % 2, text) for place, text in enumerate(texts)))


def end(rule: str, *texts: str) -> int | None:
    """The message after which the rule ends this dialogue"""
    evidence = outcome(by(*texts), read_rule(rule)).evidence
    return evidence.after if evidence else None


def seen(rule: str, *texts: str) -> list[str]:
    """Of the evidence: the characters it names"""
    evidence = outcome(by(*texts), read_rule(rule)).evidence
    assert evidence is not None
    return [texts[span.message - 1][span.start : span.end] for span in evidence.spans]


# ---- a recorded dialogue

RECORDED_ENDS = {
    "any ends anywhere": 4, "any ends": 4, "both end": 7, "both end bare": 23, "each ends bare 2 times": 25, "each ends bare 3 times": 27,
    "each ends bare 4 times": 29, "any says the same twice": 8, "both say the same twice": 25, DEFAULT[0]: 25,
}  # fmt: skip


@needs_recorded
@pytest.mark.parametrize("rule", RECORDED_ENDS)
def test_the_recorded_dialogue_would_have_ended_at(rule: str) -> None:
    evidence = outcome(formats.read(RECORDED), read_rule(rule)).evidence
    assert evidence is not None
    assert RECORDED_ENDS[rule] == evidence.after
    assert evidence.spans[-1].message == evidence.after


def test_our_own_dialogue_would_have_ended_at() -> None:
    transcript = formats.read(OWN)
    found = {str(each.rule): each.evidence.after if each.evidence else None for each in simulate(transcript, list(map(read_rule, USUAL)))}
    expected = {
        "any ends anywhere": 4, "both end": 7, "both end bare": 10, "each ends bare 2 times": 12, "each ends bare 3 times": None,
        "each ends bare 4 times": None, "any says the same 2 times": 8, "both say the same 2 times": 12, "cycle 3 times": 11,
        "any says nothing": 1, "100 messages": None,
    }  # fmt: skip
    assert expected == found


# ---- what the rules mean


def test_bare_last_and_anywhere() -> None:
    texts = ("the [END] is near", "over. [END]  \n", " \n[END]\n ")
    assert [1, 2, 3] == [end(f"any ends {place}", *texts) for place in ("anywhere", "last", "bare")]
    assert (["[END]"], ["[END]"]) == (seen("any ends bare", *texts), seen("any ends last", *texts))


def test_another_marker_is_looked_for_as_it_is_written() -> None:
    assert 2 == end('any ends with "^C^C"', "[END]", "bye ^C^C")
    assert 1 == end('any ends with "a b" bare', "a b")


def test_any_counts_one_sides_messages_in_a_row_each_counts_all_and_both_wants_them_together() -> None:
    texts = ("[END]", "x", "[END]", "[END]", "y", "[END]", "[END]", "[END]")
    assert 3 == end("any ends 2 times", *texts)
    assert 4 == end("each ends", *texts)
    assert 6 == end("each ends 2 times", *texts)
    assert 4 == end("both end", *texts)
    assert None is end("both end 2 times", *texts)
    assert (1, 4) == (end("A ends", *texts), end("B ends", *texts))
    assert 9 == end("both end twice", "x", "y", "[END]", "[END]", "z", *["[END]"] * 4)


def test_both_wants_two_sides_also_when_one_speaks_twice() -> None:
    twice = Transcript(("a", "b"), (Message(0, "[END]"), Message(0, "[END]"), Message(1, "[END]")))
    evidence = outcome(twice, read_rule("both end")).evidence
    assert evidence is not None
    assert (3, [2, 3]) == (evidence.after, [span.message for span in evidence.spans])


def test_the_same_is_the_same_to_the_character_and_in_a_row() -> None:
    assert 5 == end("any says the same 3 times", "x", "a", "x", "b", "x")
    assert None is end("any says the same", "x", "a", "y", "b", "x")
    assert None is end("any says the same", "x", "a", "x ")
    assert ["x", "a", "x", "a"] == seen("both say the same", "x", "a", "x", "a")
    assert 6 == end("each says the same", "x", "a", "x", "b", "y", "b")
    assert None is end("both say the same", "x", "a", "x", "b", "y", "b")


def test_nothing_is_white_space() -> None:
    assert 2 == end("any says nothing", "x", " \n\t")
    assert 3 == end("any says nothing twice", "", "x", "")
    assert 2 == end("both say nothing", "", "")


def test_cycles_are_found_whatever_their_length() -> None:
    assert 6 == end("cycle twice", *"abcabc")
    assert ["a", "b", "a", "b", "a", "b"] == seen("cycle 3 times", *"zababab")
    assert 3 == end("cycle 3 times", *"aaa")
    assert None is end("cycle of at most 2 messages 2 times", *"abcabcabc")
    assert None is end("cycle twice", *"abcdefgh")


@settings(max_examples=60)
@given(st.lists(st.sampled_from("ab"), max_size=40), st.integers(2, 4), st.integers(1, 6))
def test_cycles_are_those_that_the_definition_has(texts: list[str], times: int, most: int) -> None:
    def goes_round(end: int) -> bool:
        return any(end >= times * length and texts[end - times * length : end] == texts[end - length : end] * times for length in range(1, most + 1))

    expected = next((number for number in range(1, len(texts) + 1) if goes_round(number)), None)
    assert expected == end(f"cycle of at most {most} messages {times} times", *texts)


SHORT = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["[END]", "x", "x [END]", "", " "])), max_size=30)


@settings(max_examples=60)
@given(SHORT, st.sampled_from(["bare", "last", "anywhere"]), st.integers(1, 3))
def test_ends_are_those_that_the_definition_has(said: list[tuple[int, str]], place: str, times: int) -> None:
    def hit(text: str) -> bool:
        return {"bare": text.strip() == "[END]", "last": text.rstrip().endswith("[END]"), "anywhere": "[END]" in text}[place]

    def holds(who: str, end: int) -> bool:
        own = [[hit(text) for side, text in said[:end] if side == each] for each in (0, 1)]
        rows = [len(each) >= times and all(each[-times:]) for each in own]
        last = said[end - 2 * times : end] if end >= 2 * times else []
        return {
            "any": rows[said[end - 1][0]],
            "each": all(sum(each) >= times for each in own),
            "both": all(hit(text) for _, text in last) and [side for side, _ in last].count(0) == times == len(last) - times,
        }[who]

    transcript = Transcript(("a", "b"), tuple(Message(*each) for each in said))
    for who in ("any", "each", "both"):
        expected = next((number for number in range(1, len(said) + 1) if holds(who, number)), None)
        found = outcome(transcript, Rule((Ends(who, place, times),))).evidence
        assert expected == (found.after if found else None)
        if found:
            assert all(transcript.messages[s.message - 1].text[s.start : s.end] == "[END]" for s in found.spans)


def test_a_marker_in_a_prompt_ends_nothing() -> None:
    transcript = Transcript(("a", "b"), (Message(0, "say [END]", "prompt"), Message(0, "hi"), Message(1, "[END]", "prompt"), Message(1, "yes")))
    assert None is outcome(transcript, read_rule("any ends anywhere")).evidence
    messages = outcome(transcript, read_rule("2 messages")).evidence
    assert messages is not None and 2 == messages.after  # prompts are not counted


def test_conditions_of_one_rule_hold_together() -> None:
    texts = ["[END]"] * 6
    assert 1 == end("any ends", *texts)
    assert 4 == end("any ends and 4 messages", *texts)
    evidence = outcome(by(*texts), read_rule("any ends and 4 messages")).evidence
    assert Evidence("any ends and 4 messages", 4, False, (Span(4, 0, 5),), (("messages", 4),)) == evidence


def test_what_a_transcript_does_not_say_cannot_be_told() -> None:
    for rule, unknown in (("5 tokens", ("tokens",)), ("1 hour and 2TB read", ("bytes", "seconds")), ("any ends and 5 tokens", ("tokens",))):
        found = outcome(by("[END]"), read_rule(rule))
        assert (None, unknown) == (found.evidence, found.unknown)
    assert () == outcome(by("x"), read_rule("1 error")).unknown


# ---- as a runner uses them


def test_amounts_end_a_dialogue_within_a_message_and_say_so() -> None:
    stops = Stops([read_rule("any ends"), read_rule("5 tokens"), read_rule("2 seconds")])
    assert None is stops.said(Said(1, 0, "hi"), Amounts(1, 2, 0.5, 10))
    assert None is stops.measured(Amounts(1, 4, 1.9, 10))
    assert Evidence("5 tokens", 1, True, (), (("tokens", 5),)) == stops.measured(Amounts(1, 5, 2.5, 10))


def test_a_rule_about_messages_waits_for_the_end_of_the_message() -> None:
    stops = Stops([read_rule("any ends and 5 tokens")])
    assert None is stops.said(Said(1, 0, "[END]"), Amounts(1, 4))
    assert None is stops.measured(Amounts(1, 6))
    assert None is stops.said(Said(2, 1, "no"), Amounts(2, 7))
    evidence = stops.said(Said(3, 0, "[END]"), Amounts(3, 9))
    assert evidence is not None and ("any ends and 5 tokens", 3, False) == (evidence.rule, evidence.after, evidence.within)


def test_of_two_rules_that_hold_the_first_given_ends_the_dialogue_and_no_rule_misses_a_message() -> None:
    stops = Stops([read_rule("any ends twice"), read_rule("any ends")])
    first = stops.said(Said(1, 0, "[END]"), Amounts(1))
    second = stops.said(Said(3, 0, "[END]"), Amounts(2))
    assert ("any ends", "any ends 2 times") == (first and first.rule, second and second.rule)


def test_an_error_ends_by_default_and_an_interrupt_always() -> None:
    stops = Stops([read_rule(words) for words in DEFAULT])
    stops.said(Said(1, 0, "hi"), Amounts(1))
    assert Evidence("1 error", 1, True, (), (("errors", 1),)) == stops.measured(Amounts(1, errors=1))
    assert Evidence("Ctrl-C", 1, True, (), (("interrupts", 2),)) == stops.interrupted(2)
    document = stops.interrupted(1).document()
    assert {"rule": "Ctrl-C", "after": 1, "within": True, "spans": [], "amounts": [{"what": "interrupts", "amount": 1}]} == document


# ---- how they are written

WHO = st.sampled_from(["any", "each", "both", "A", "B"])
MARKERS = st.text(st.characters(exclude_characters='"\n', exclude_categories=["Cs"]), min_size=1, max_size=8)
CONDITIONS = st.one_of(
    st.builds(Ends, WHO, st.sampled_from(["bare", "last", "anywhere"]), st.integers(1, 1000), MARKERS | st.just("[END]")),
    st.builds(Same, WHO, st.integers(2, 1000)),
    st.builds(Nothing, WHO, st.integers(1, 1000)),
    st.builds(Cycle, st.integers(2, 1000), st.integers(1, 1000)),
    st.builds(AtLeast, st.sampled_from(["messages", "tokens", "errors", "bytes"]), st.integers(1, 10**15)),
    st.builds(AtLeast, st.just("seconds"), st.integers(1, 10**9).map(lambda n: n / 1000)),
)


@given(st.lists(CONDITIONS, min_size=1, max_size=4))
def test_a_rule_is_read_as_it_is_written(conditions: list) -> None:
    rule = Rule(tuple(conditions))
    assert rule == read_rule(str(rule))


SPOKEN = {
    "both end bare, twice": "both end bare 2 times", "any says the same": "any says the same 2 times", "any says nothing once": "any says nothing",
    "cycle": "cycle 3 times", "2 hours": "7200 seconds", "1 minute": "60 seconds", "1.5 TB read": "1500000000000 bytes read",
    "500MiB read": "524288000 bytes read", "1 token and 1 message": "1 token and 1 message", '  A  ends   with "stop now" anywhere ':
    'A ends with "stop now" anywhere', "each end": "each ends",
}  # fmt: skip


@pytest.mark.parametrize("words", SPOKEN)
def test_rules_are_read_aloud(words: str) -> None:
    assert SPOKEN[words] == str(read_rule(words))


NO_RULES = (
    "", "any", "any stops", "any ends bare bare", "any ends 0 times", "any ends 1001 times", "any ends twice twice", "any ends 2", "both end and",
    "and", "any says", "any says the", "any says the same once", "cycle of 3", "cycle of at most 0 messages", "0 messages", "-1 tokens",
    "1.5 messages",    "5",
    "5 parsecs", "2 TB", "2 XB read", "1e400 seconds", "0 seconds", "any ends with bare", "any ends with", 'any ends with "', 'any ends with ""',
    '"any" ends', "any ends 2 times read", "²  messages", "9999999999999999 messages",
)  # fmt: skip


@pytest.mark.parametrize("words", NO_RULES, ids=range(len(NO_RULES)))
def test_what_is_no_rule_is_refused_with_an_example(words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_rule(words)
    assert caught.value.hint


# ---- a log


def test_a_log_tells_what_a_transcript_does_not(tmp_path: Path) -> None:
    """Rules of tokens, of seconds and bytes where their times are beside it, and where within a turn they hold"""
    log = a_log(tmp_path, "4 messages")
    found = list(events.read(log))
    rules = [read_rule(words) for words in ("3 messages", "5 tokens", "1000 tokens", "2 seconds", "1MB read", "any ends", "5 tokens and any ends")]
    told = simulate_log(found, rules, {number: (0.5 * number, 1 << 18) for number in range(len(found))})
    assert [3, 1, None, 0, None, None, None] == [each.evidence and each.evidence.after for each in told]
    assert [False, True, True] == [told[place].evidence.within for place in (0, 1, 3)]  # type: ignore[union-attr]
    assert (("tokens", 5),) == told[1].evidence.amounts  # type: ignore[union-attr]
    without = simulate_log(found, rules, {})
    assert [("seconds",), ("bytes",)] == [each.unknown for each in without if each.unknown]
    assert told[1] == without[1]


def test_a_log_says_of_its_own_rule_what_ended_it(tmp_path: Path) -> None:
    log = a_log(tmp_path, "7 tokens")
    *_, end = events.read(log)
    (outcome,) = simulate_log(list(events.read(log)), [read_rule("7 tokens")], {})
    assert outcome.evidence and end.body["evidence"] == outcome.evidence.document()


def a_log(folder: Path, stop: str) -> Path:
    """Of a dialogue of two sides of four tokens a turn"""
    kimi, qwen = two_checkpoints(folder)
    with a_side("owl", kimi, 1) as owl, a_side("lamp", qwen, 2) as lamp:
        conduct.begin(folder / "talk.dlg", [owl, lamp], conduct.Terms(stops=(stop,)), clock=StoppedClock()).run()
    return folder / "talk.dlg" / events.NAME
