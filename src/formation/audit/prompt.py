"""Whether the text that an anchor names is what its ids say: a run starts from the ids, and a reader looks at the text."""

from __future__ import annotations

from collections.abc import Iterator
from unicodedata import normalize

from formation.audit.compare import Difference, Findings, short
from formation.errors import UsageError
from formation.ledger.anchor import Anchor
from formation.text import Tokenizer
from formation.text.prompt import Prompt, make_prompt
from formation.weights.checkpoint import Checkpoint

IDS_ALONE = "ids without a text"
EXACT = "its text gives exactly its ids"
HELD = "its ids hold its text and more, such as a system message, which no anchor names"


def check_prompt(anchor: Anchor, checkpoint: Checkpoint, tokenizer: Tokenizer, findings: Findings) -> str:
    """What can be said of the prompt's text; a text that the ids do not hold is a finding."""
    if anchor.prompt_text is None:
        return IDS_ALONE
    findings.values += 1
    if any(tuple(made.ids) == anchor.prompt_ids for made in readings(anchor.prompt_text, checkpoint)):
        return EXACT
    if normalize("NFC", anchor.prompt_text.strip()) in normalize("NFC", tokenizer.decode(anchor.prompt_ids)):
        return HELD
    findings.add(Difference(-1, "run", "prompt text", "a text that the prompt's ids spell", short(anchor.prompt_text)))
    return "its ids do not hold its text"


def readings(text: str, checkpoint: Checkpoint) -> Iterator[Prompt]:
    """The prompts that a text makes without further options: as it is, and as a user's message where there is a template."""
    yield make_prompt(checkpoint.path, checkpoint.config, prompt=text)
    for thinking in (None, False, True):
        try:
            yield make_prompt(checkpoint.path, checkpoint.config, chat=text, thinking=thinking)
        except UsageError:  # no template, or none that knows the option
            return
