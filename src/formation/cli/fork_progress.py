"""How far a fork or a challenge is: which branch, which layer, what was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from formation.cli.speech import LiveLine

if TYPE_CHECKING:
    from formation.dialogue.forks.source import Formed
    from formation.run.executor import Progress


class ForkProgress(LiveLine):
    def __init__(self) -> None:
        super().__init__()
        self._where = "what comes before the fork"

    def token(self, choice: str, sample: int, formed: Formed) -> None:
        self._where = f"{choice}, sample {sample}: …{formed.spelt.decode('utf-8', 'replace')}"
        self._tell("")

    def part(self, what: str, number: int) -> None:
        """Of a challenge"""
        self._where = f"{what} {number + 1}"
        self._tell("")

    def progress(self, p: Progress) -> None:
        self._tell(f" · layer {min(p.layer + 1, p.layers)}/{p.layers} of {p.positions} positions, {p.bytes_read / 1e9:.2f} GB read")

    def _tell(self, more: str) -> None:
        if self.is_due():
            self.show(self._where.replace("\n", "⏎") + more)
