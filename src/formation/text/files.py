"""The small text files of a checkpoint folder, read strictly: an unreadable file or a JSON key given twice is an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from formation.errors import CheckpointError, ReadError
from formation.strict_json import JsonRefusal, parse_json

_AGAIN = "download the file again"


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises CheckpointError where there is no such file, else ReadError."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: expected this file, got none", hint="download it from the same checkpoint") from error
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}", hint="check the checkpoint folder") from error


def read_text(path: Path) -> str:
    """The file as UTF-8. Raises ReadError, CheckpointError."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: expected UTF-8, got an invalid byte at offset {error.start}", hint=_AGAIN) from error


def read_object(path: Path) -> dict[str, Any]:
    """The file as one JSON object read strictly (strict_json). Raises ReadError, CheckpointError."""
    try:
        value = parse_json(read_bytes(path))
    except JsonRefusal as refusal:
        raise CheckpointError(f"{path}: {refusal}", hint=_AGAIN) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}", hint=_AGAIN)
    return value


def config_values(config: Mapping[str, Any], key: str) -> list[Any]:
    """What config.json says for `key`, at its top level and in its `text_config` (which wrapped models have), without null."""
    inner = config.get("text_config")
    places = [config, inner] if isinstance(inner, Mapping) else [config]
    return [place[key] for place in places if place.get(key) is not None]
