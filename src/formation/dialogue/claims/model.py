"""A checkpoint that stands in for a side of a transcript: what it is, and what it says of the tokens that the side said, computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from formation.dialogue.certificate.certified import Certified, examine
from formation.dialogue.claims.claim import NotHere
from formation.dialogue.claims.readings import Readings, forced, model_of
from formation.dialogue.claims.trial import MOST_PROMPT, Trial
from formation.dialogue.side import Manner
from formation.dialogue.taught import Speaker, Taught, first_messages, speaker_of, taught
from formation.dialogue.transcripts.transcript import Transcript
from formation.errors import UnsupportedError, UsageError
from formation.model.catalog import read_model
from formation.run.distributions import Distribution
from formation.run.executor import Progress
from formation.run.generate import Engine
from formation.run.identity import identify
from formation.run.machine import show_bytes
from formation.text.conversation import conversation_ids
from formation.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Terms:
    """How a checkpoint is run and addressed"""

    memory: str | int | None = None
    threads: int | None = None
    manner: Manner = field(default_factory=Manner)
    progress: Callable[[Progress], None] | None = None
    say: Callable[[str], None] = lambda line: None
    mirrors: Sequence[str | Path] = ()


class Model:
    """One side's checkpoint"""

    def __init__(self, transcript: Transcript, side: int, checkpoint: Checkpoint, terms: Terms) -> None:
        self.transcript, self.side, self.checkpoint, self.terms = transcript, side, checkpoint, terms
        self.keep: frozenset[int] = frozenset()  # messages whose first distribution somebody will ask for

    @cached_property
    def sha256(self) -> str:
        return identify(self.checkpoint).sha256

    @property
    def label(self) -> str:
        return f"{self.checkpoint.config['model_type']} {self.sha256[:12]}"

    @cached_property
    def manner(self) -> Manner:
        return self.speaker.told(self.terms.manner)

    @cached_property
    def speaker(self) -> Speaker:
        return speaker_of(self.checkpoint)

    @cached_property
    def taught(self) -> Taught:
        """As many messages as the model has positions for. Raises NotHere where the template cannot hold them, or none fits."""
        try:
            whole = taught(self.transcript, self.side, self.speaker, self.manner)
            context = read_model(self.checkpoint.config).shape.context
            fit = max((each.message for each in whole.stretches if each.end - 1 <= context), default=0)
            if not fit:
                raise NotHere(f"the first message of {self.transcript.names[self.side]} ends beyond the {context} positions of {self.label}")
            if fit == whole.stretches[-1].message:
                return whole
            return taught(first_messages(self.transcript, fit), self.side, self.speaker, self.manner)
        except (UsageError, UnsupportedError) as error:
            raise NotHere(f"{self.label} cannot be taught this dialogue: {error}") from None

    @cached_property
    def readings(self) -> Readings:
        last = self.taught.stretches[-1].message
        missing = f"{self.label} was given messages 1 to {last}: the others have no token, or lie beyond its context"
        template = hashlib.sha256(self.speaker.template.source.encode()).hexdigest()[:12]
        under = f"under {self.label}, its own template {template}, given the messages before"
        self.terms.say(f"{self.label}: one pass of {len(self.taught.ids) - 1} positions over {show_bytes(self.checkpoint.total_bytes)} of weights")
        with self._engine() as engine:
            return forced(engine, self.taught, self.speaker, under, missing, self.keep)

    @cached_property
    def prior(self) -> Distribution:
        """Of the first token of a turn where nothing was said before but an empty message"""
        manner = self.manner
        messages = [*manner.opening, {"role": "user", "content": ""}]
        ids = conversation_ids(self.speaker.template, messages, {}, thinking=manner.thinking, today=manner.today)
        with self._engine() as engine:
            return model_of(engine.logits(ids)[-1], engine.threads)

    @cached_property
    def trial(self) -> Trial:
        ids = self.taught.ids[: min(self.taught.stretches[0].begin, MOST_PROMPT)]
        return Trial(self.checkpoint, ids, self.terms.memory, self.terms.threads, self.terms.progress, self.terms.say)

    def certified(self, text: str) -> Certified:
        tokenizer = self.speaker.tokenizer
        asked = [(text, token) for token in tokenizer.encode(text)]
        return examine(self.checkpoint, tokenizer, asked, memory=self.terms.memory, threads=self.terms.threads, steps=0)

    def _engine(self) -> Engine:
        return Engine(self.checkpoint, memory=self.terms.memory, threads=self.terms.threads, progress=self.terms.progress)

    def document(self) -> dict[str, Any]:
        name = self.transcript.names[self.side]
        return {"name": name, "model_type": self.checkpoint.config["model_type"], "checkpoint_sha256": self.sha256}
