"""From a file to a transcript, whichever form it has, and back. The form of a file is told by its first bytes, of one to be written by its name."""

from __future__ import annotations

from pathlib import Path

from formation.dialogue.transcripts import foreign, jsonl, markdown
from formation.dialogue.transcripts.transcript import LIMITS, Transcript, TranscriptRefusal
from formation.errors import EnvironmentFault, UsageError
from formation.ledger import files

READERS = {"text": markdown.read, "JSONL": jsonl.read, "chat JSON": foreign.read_chat, "UniversalBackrooms": foreign.read_backrooms}
WRITERS = {".md": markdown.write, ".jsonl": jsonl.write}


def form_of(data: bytes) -> str:
    """One of READERS"""
    if data.startswith(b"# "):
        return "text"
    if data.startswith(jsonl.BEGINNINGS):
        return "JSONL"
    return "chat JSON" if data.lstrip()[:1] in (b"{", b"[") else "UniversalBackrooms"


def read(path: Path) -> Transcript:
    """Raises EnvironmentFault for a file that is no transcript."""
    data = files.read_whole(path, LIMITS)
    try:
        if len(data) > LIMITS.size_bytes:
            raise TranscriptRefusal(f"expected at most {LIMITS.size_bytes} bytes, got more")
        return READERS[form_of(data)](data)
    except TranscriptRefusal as refusal:
        raise EnvironmentFault(
            f"{path}: {refusal}", hint="transcripts are read from text ('# A ↔ B'), JSONL, chat JSON and logs of UniversalBackrooms: docs/dialogue.md"
        ) from None


def write(path: Path, transcript: Transcript) -> None:
    """Whole or not at all. Raises UsageError for a name of no known form or a transcript that the form cannot hold, and EnvironmentFault."""
    if path.suffix not in WRITERS:
        raise UsageError(f"{path}: expected a name that ends in {' or '.join(WRITERS)}, got {path.suffix or 'no ending'}")
    try:
        data = WRITERS[path.suffix](transcript)
    except TranscriptRefusal as refusal:
        raise UsageError(f"{path}: {refusal}", hint="JSONL holds every transcript: give a name that ends in .jsonl") from None
    files.write_whole(path, data)
