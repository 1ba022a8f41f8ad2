"""What a checkpoint and its tokenizer have, whatever they are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from formation.dialogue.claims.claim import ELSEWHERE, INVENTORY, Finding
from formation.dialogue.claims.procedure import MODEL, Case, Input, Procedure

if TYPE_CHECKING:
    from formation.dialogue.claims.model import Model

SHOWN = 3

OF = Input("of", "name", "the side whose checkpoint is meant (default: who said the message)")
MESSAGE = Input("message", "number", "the message looked at (default: the claim's)")


def model_of(case: Case) -> Model:
    return case.models.of(case.side)


def tensors(case: Case) -> Finding:
    words, model = [word.lower() for word in case.get("words")], model_of(case)
    found = sorted(name for name in model.checkpoint.tensors if any(word in name.lower() for word in words))
    shown = f": {', '.join(found[:SHOWN])}{' …' if len(found) > SHOWN else ''}" if found else ""
    whole = len(model.checkpoint.tensors)
    return Finding(len(found), "tensors", INVENTORY, f"under {model.label}: of {whole}, with {' or '.join(words)} in the name{shown}; {ELSEWHERE}")


def tokens(case: Case) -> Finding:
    model, text = model_of(case), case.get("text")
    ids = model.speaker.tokenizer.encode(text)
    return Finding(len(ids), "tokens", INVENTORY, f"under {model.label}: its tokenizer has {ids} for {text!r}; {ELSEWHERE}")


def is_token(case: Case) -> Finding:
    model, text = model_of(case), case.get("text")
    from formation.dialogue import reach  # behind it: without a model nothing is loaded

    found = reach.of_text(model.speaker.tokenizer, text)
    why = f"the token {found.token}" if found.zero is None else str(found.zero)
    return Finding(found.zero is None, "", INVENTORY, f"under {model.label}: {text!r} is encoded to {list(found.ids)}, {why}; {ELSEWHERE}")


def certificate(case: Case) -> Finding:
    model, text = model_of(case), case.get("text")
    found = model.certified(text)
    nats, own = found.text_floor_nats(text), [each for each in found.named if each.name == text]
    caveat = f"under {model.label}: ln p ≥ {nats:.4f} in every context, from lm_head and final norm, {len(own)} tokens together; {ELSEWHERE}"
    return Finding("POSITIVE", "kind of zero", INVENTORY, caveat, (nats, 0.0), "positive")


TEXT = Input("text", "text", "the text", True)
PROCEDURES = (
    Procedure("tensors", "how many tensors have one of these words in their name", INVENTORY, MODEL, (
        Input("words", "words", "such as reward, value_head", True), OF, MESSAGE), tensors),
    Procedure("tokens", "how many tokens a text is", INVENTORY, MODEL, (TEXT, OF, MESSAGE), tokens),
    Procedure("is_token", "is a text one token that it is encoded to", INVENTORY, MODEL, (TEXT, OF, MESSAGE), is_token),
    Procedure("certificate", "can a text have no probability in any context", INVENTORY, MODEL, (TEXT, OF, MESSAGE), certificate),
)  # fmt: skip
