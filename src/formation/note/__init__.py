"""The technical note: what one run did, how its tokens formed and what was verified, as a PDF of a few pages made from its bundle alone.

    from formation.note import make_note

    data = make_note("run.ofb")     # the same bytes for the same bundle and versions

material.py reads the bundle, figures.py and sections.py say what stands in the note, note.typ sets it. Needs the extra `note` (typst).
"""

from __future__ import annotations

from formation.note.document import make_note as make_note
