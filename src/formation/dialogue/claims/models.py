"""The checkpoints and the log that stand in for the sides of a transcript, opened when the first claim needs them: what needs no model loads none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formation.dialogue.claims.claim import NotHere
from formation.dialogue.transcripts.transcript import Transcript

if TYPE_CHECKING:
    from formation.dialogue.claims.model import Model, Terms
    from formation.dialogue.claims.readings import Readings


class Models:
    """Of both sides, as far as they were given: `folders` by side"""

    def __init__(
        self, transcript: Transcript, folders: Mapping[int, str] | None = None, event_log: Path | None = None, terms: Terms | None = None
    ) -> None:  # fmt: skip
        """Raises UsageError, EnvironmentFault and EvidenceError for a log that is not this dialogue's, and what opening a checkpoint raises."""
        self._transcript, self._event_log = transcript, event_log
        self._models = opened(transcript, folders, terms) if folders else {}
        if event_log:
            self._logged  # noqa: B018 - refused now, not at the first claim

    @cached_property
    def _logged(self) -> list[Readings]:
        from formation.dialogue import events
        from formation.dialogue.claims.readings import logged

        assert self._event_log is not None
        return logged(self._transcript, events.read(self._event_log))

    def expect(self, messages: frozenset[int]) -> None:
        """The first distributions of these will be asked for: those of others are not kept, as each is as long as the vocabulary."""
        for model in self._models.values():
            model.keep = messages

    def of(self, side: int) -> Model:
        """Raises NotHere."""
        if side not in self._models:
            name = self._transcript.names[side]
            raise NotHere(f"needs a checkpoint that stands in for {name}: give --as '{name}=CKPT'")
        return self._models[side]

    def readings(self, side: int) -> Readings:
        """Of the log where there is one: it was measured as the tokens were said. Raises NotHere."""
        return self._logged[side] if self._event_log else self.of(side).readings

    def document(self) -> list[dict[str, Any]]:
        return [self._models[side].document() for side in sorted(self._models)]


def opened(transcript: Transcript, folders: Mapping[int, str], terms: Terms | None) -> dict[int, Model]:
    from formation.dialogue.claims.model import Model, Terms
    from formation.weights.mirror import open_several

    given = terms or Terms()
    checkpoints = open_several(list(folders.values()), given.mirrors)
    return {side: Model(transcript, side, checkpoint, given) for side, checkpoint in zip(folders, checkpoints, strict=True)}
