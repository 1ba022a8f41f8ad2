"""From a bundle to the bytes of a PDF: the sections as data, given to a template that sets them.

Nothing of the bundle becomes markup: the template is constant and takes everything as one JSON text, whose strings are set as they are. Typst gets
no folder, no package and no font but those it carries; the document has no date, so that the same bundle gives the same bytes.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from formation.errors import EnvironmentFault
from formation.note import sections
from formation.note.material import Material, gather

TEMPLATE = Path(__file__).with_name("note.typ")
HINT = "pip install 'formation-ledger[note]'"


def make_note(folder: str | Path, *, token: int = 1) -> bytes:
    """The note on the bundle in `folder`, its figures about token number `token`. Raises EnvironmentFault without typst or a bundle,
    EvidenceError for a bundle that fails a check, UsageError for a token that it does not have."""
    typst = typesetter()  # before the long work
    return compiled(typst, document(gather(Path(folder), token)))


def typesetter() -> Any:
    try:
        return import_module("typst")
    except ImportError:
        raise EnvironmentFault("expected the package typst, got none", hint=HINT) from None


def document(material: Material) -> dict[str, Any]:
    """All that the template gets: texts, numbers as they are printed, marks of the figures"""
    head = material.head
    return {
        "title": sections.title(material),
        "subtitle": sections.SUBTITLE,
        "run_id": material.bundle.run_id,
        "root": head.root,
        "lines": f"{head.lines:,}",
        "sections": [each.document() for each in sections.sections(material)],
    }


def compiled(typst: Any, content: dict[str, Any]) -> bytes:
    inputs = {"content": json.dumps(content, ensure_ascii=True, sort_keys=True)}
    return bytes(typst.compile(TEMPLATE.read_bytes(), format="pdf", sys_inputs=inputs, ignore_system_fonts=True, font_paths=[]))
