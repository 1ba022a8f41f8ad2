"""Which texts are one token of a tokenizer, and which tokens their own text is not encoded to: nobody can type them."""

from __future__ import annotations

from dataclasses import dataclass

from formation.ledger.zero import NO_SUCH_TOKEN, Kind, Zero
from formation.text.vocabulary import Tokenizer


@dataclass(frozen=True)
class Reach:
    """Of a text: the ids that it is encoded to, the id whose bytes it is, if there is one, and why it is no token, None if it is one."""

    ids: tuple[int, ...]
    token: int | None
    zero: Zero | None


def of_text(tokenizer: Tokenizer, text: str) -> Reach:
    """The name of a special token is the token's, yet as text it is never encoded to it. Takes a pass over the vocabulary where the text is encoded
    to several ids. Raises PromptError for text that is not Unicode."""
    ids = tuple(tokenizer.encode(text))
    if len(ids) == 1:
        return Reach(ids, ids[0], None)
    token = tokenizer.specials.get(text)
    if token is None:
        wanted = text.encode()
        token = next((each for each in range(tokenizer.size) if wanted and tokenizer.token_bytes(each) == wanted), None)
    return Reach(ids, token, NO_SUCH_TOKEN if token is None else Zero(Kind.UNREACHABLE_BY_TOKENIZER, repr(text)))
