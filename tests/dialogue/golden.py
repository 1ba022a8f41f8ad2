"""The dialogues that tests read: our own small one, and a recorded one where the machine has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

OWN = Path(__file__).parent / "night_owl.md"
BESIDE = Path(__file__).parents[2].parent / "shared" / "data" / "dialogue-97-messages.md"
RECORDED = Path(os.environ.get("FORMATION_GOLDEN_DIALOGUE", BESIDE))
needs_recorded = pytest.mark.skipif(not RECORDED.is_file(), reason="the recorded dialogue is not here: FORMATION_GOLDEN_DIALOGUE names its file")
