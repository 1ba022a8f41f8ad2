"""Which bytes of a message each token stands for, when a server gives tokens and text apart.

The text is the message; the tokens must spell it, or their number is wrong and none of their log probabilities can be placed. Allowed for: text that
comes later or in other pieces than its tokens, white space taken off in front, a last token that only ends the turn, and bytes that a server cannot
show and replaces by U+FFFD: those tokens stand for nothing, and the last of them for all that they spell together.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence

from formation.dialogue.remote.reply import ReplyRefusal, Token

REPLACED = "\ufffd".encode()
Placed = tuple[Token, bytes]  # a token, and the bytes of the message that it stands for


class Spelling:
    """Of one message. `count` tokens were placed."""

    def __init__(self) -> None:
        self.count = 0
        self._tokens: list[Token] = []  # not placed yet
        self._text = b""  # without tokens yet
        self._begun = False  # with the text, white space aside

    def feed(self, tokens: Sequence[Token], text: str) -> Iterator[Placed]:
        """The tokens that can be placed now. Raises ReplyRefusal for tokens that do not spell the text."""
        self._tokens += tokens
        self._text += text.encode()
        while self._tokens and (spelt := self._next()) is not None:
            yield self._place(spelt)
        if self._tokens and self._text:
            if REPLACED in self._text or any(REPLACED in token.spelt for token in self._tokens):
                yield from self._all_to_the_last()
            elif not any(way.startswith(self._text) for way in self._ways()):
                raise self.refusal()

    def end(self, finish: str | None) -> Iterator[Placed]:
        """What is left when the message has ended: the token that ends a turn, half a character where a limit cut it. Raises as `feed` does."""
        ends_turn = finish == "stop" and bool(self._tokens)
        rest = [token.spelt for token in (self._tokens[:-1] if ends_turn else self._tokens)]
        taken_off = not self._begun and b"".join(rest).isspace()
        if self._text or not (taken_off or is_half(rest)):
            raise self.refusal()
        while self._tokens:
            nothing = taken_off or (ends_turn and len(self._tokens) == 1) or self._tokens[0].spelt == REPLACED
            yield self._place(b"" if nothing else self._tokens[0].spelt)

    def _next(self) -> bytes | None:
        """What the next token stands for, if that can be told"""
        if not self._text:
            return None if self._tokens[0].spelt else b""
        return next((way for way in self._ways() if self._text.startswith(way)), None)

    def _ways(self) -> list[bytes]:
        spelt = self._tokens[0].spelt
        return [spelt] if self._begun else [spelt, spelt.lstrip()]

    def _place(self, spelt: bytes) -> Placed:
        self._text = self._text.removeprefix(spelt)
        self.count += 1
        self._begun = self._begun or bool(spelt)
        return self._tokens.pop(0), spelt

    def _all_to_the_last(self) -> Iterator[Placed]:
        while self._tokens:
            yield self._place(b"" if len(self._tokens) > 1 else self._text)

    def refusal(self) -> ReplyRefusal:
        got = repr(b"".join(token.spelt for token in self._tokens)[:30]).removeprefix("b") if self._tokens else "none"
        told = f"for {self._text[:30]!r}".replace("b", "", 1) if self._text else "behind the end of the message"
        return ReplyRefusal(f"expected tokens that spell the message, each with its log probability, got after {self.count} of them {got} {told}")


def is_half(spelt: Sequence[bytes]) -> bool:
    """Whether this is the beginning of one character, or stands for one, or is nothing at all"""
    try:
        return all(each == REPLACED for each in spelt) or not codecs.getincrementaldecoder("utf-8")().decode(b"".join(spelt))
    except UnicodeDecodeError:
        return False


def check_spelling(tokens: Sequence[Token], text: str, finish: str | None) -> None:
    """Raises ReplyRefusal where they do not."""
    spelling = Spelling()
    for _ in (*spelling.feed(tokens, text), *spelling.end(finish)):
        pass
