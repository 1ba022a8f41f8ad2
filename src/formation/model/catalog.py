"""From a parsed `config.json` to its model. A new architecture is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from formation.errors import UnsupportedError
from formation.model import deepseek_v3, qwen3_moe, qwen3_next
from formation.model.architecture import Model

ARCHITECTURES: dict[str, Callable[[Mapping[str, Any]], Model]] = {
    "kimi_k25": deepseek_v3.read,
    "kimi_k2": deepseek_v3.read,
    "deepseek_v3": deepseek_v3.read,
    "qwen3_moe": qwen3_moe.read,
    "qwen3_next": qwen3_next.read,
}


def read_model(config: Mapping[str, Any]) -> Model:
    """Raises UnsupportedError for a model_type that is not in the catalogue, and for any key not understood."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise UnsupportedError(
            f"config.json: model_type: expected {', '.join(sorted(ARCHITECTURES))}, got {kind!r}",
            hint="docs/how-it-works.md says how an architecture is added",
        )
    return ARCHITECTURES[kind](config)
