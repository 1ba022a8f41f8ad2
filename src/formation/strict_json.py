"""JSON as hostile input: it has one meaning, or it is refused.

RFC 8259 leaves duplicate names, NaN and nesting to the reader; two readers of one file may then see two different tables.
Here a name occurs once per object, numbers are finite, the text is UTF-8, and deep nesting is a sentence, not a crash.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


class JsonRefusal(ValueError):
    """Why a text was refused; callers add the file's name and turn it into an error of the tree."""


def parse_json(data: bytes) -> Any:
    """The value that `data` means. Raises JsonRefusal, and nothing else, on any bytes."""
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        raise JsonRefusal(f"expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None
    except json.JSONDecodeError as error:
        raise JsonRefusal(f"expected JSON, got an error at character {error.pos}: {error.msg[:1].lower()}{error.msg[1:]}") from None
    except RecursionError:
        raise JsonRefusal("expected shallow JSON, got nesting beyond this interpreter's depth") from None
    except JsonRefusal:
        raise
    except ValueError:  # int() refuses more digits than sys.get_int_max_str_digits()
        raise JsonRefusal("expected numbers of sensible length, got an integer with thousands of digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise JsonRefusal(f"expected each name once, got {_first_repeated(pairs)!r} twice")
    return table


def _first_repeated(pairs: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _constant(text: str) -> NoReturn:
    raise JsonRefusal(f"expected finite numbers, got {text}")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonRefusal(f"expected finite numbers, got {text[:40]}")
    return value
