"""Writes the JSON Schema of exported documents beside the module that makes it: `python tools/export_schema.py`. A test refuses drift."""

from __future__ import annotations

import json
from pathlib import Path

from formation.ledger import export_schema

PAGE = Path(export_schema.__file__).with_name(export_schema.NAME)


def text() -> str:
    return json.dumps(export_schema.schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
