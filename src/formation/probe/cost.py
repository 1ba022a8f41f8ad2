"""What recording keeps in memory beyond what the run itself keeps, before running: an upper bound that the plan can count.

Of a pass over n new positions, per layer and until the next: x, a, u, m, x' and the combination of the experts (6 D numbers a position), what
attention keeps, four rows of the router, and of each detailed position the outputs of its experts ((K + 1) D). Of every step whose token is
not known yet its rows, (4 + K + 1) D numbers a layer. When it becomes known, one product of its L rows with lm_head (L V).
"""

from __future__ import annotations

from formation.ledger.fields import LEVELS
from formation.model.architecture import Model
from formation.probe.head import BLOCK_ROWS
from formation.probe.spool import IN_MEMORY_BYTES

NUMBER = 4
LINE_BYTES = 1 << 15  # of the values of one line, as Python holds them
RECORD_BYTES = 400  # of one of its records of attention
FIXED_BYTES = 1 << 20


def capture_bytes(model: Model, positions: int, *, level: str, prompt_level: str, steps: int = 1, chunk: int = 256) -> int:
    """For a first pass over `positions`, of which `steps` await their token together, computed `chunk` rows at a time. Steps after it, of one
    position each, need less. Levels as the recorder's."""
    waiting = steps * model.shape.layers * (_step_layer_bytes(model) + _line_bytes(model, level))
    return FIXED_BYTES + waiting + max(_pass_bytes(model, positions, steps, level, prompt_level, chunk), _finish_bytes(model, level))


def _pass_bytes(model: Model, positions: int, steps: int, level: str, prompt_level: str, chunk: int) -> int:
    shape = model.shape
    cache_width = model.cache_bytes(64) // 64  # of one position, in bytes
    row = NUMBER * (6 * shape.hidden + 3 * shape.experts + 3 * shape.chosen) + cache_width
    detailed = (positions if prompt_level != "minimal" else steps) if max(map(LEVELS.index, (level, prompt_level))) else 0
    experts = detailed * (shape.chosen + 1) * shape.hidden * NUMBER
    attention = min(chunk, positions) * model.heads * positions * NUMBER if detailed else 0  # made for whoever wants to see it
    summaries = detailed * _line_bytes(model, prompt_level)
    places = positions * (shape.layers + 1)
    spooled = min(IN_MEMORY_BYTES, places * LINE_BYTES) + places * 8
    return positions * row + experts + attention + summaries + spooled


def _step_layer_bytes(model: Model) -> int:
    return (4 + model.shape.chosen + 1) * model.shape.hidden * NUMBER


def _line_bytes(model: Model, level: str) -> int:
    return LINE_BYTES + (3 * model.heads * RECORD_BYTES if level == "full" else 0)


def _finish_bytes(model: Model, level: str) -> int:
    """Lens logits and the rows they come from; blocks of lm_head for its mean row; one row of it and its like in binary64"""
    shape = model.shape
    if level == "minimal":
        return 3 * shape.vocabulary * NUMBER
    lens = shape.layers * (shape.vocabulary + 2 * shape.hidden) * NUMBER
    return lens + 3 * shape.vocabulary * NUMBER + (BLOCK_ROWS * NUMBER + 12 * 8) * shape.hidden + _step_layer_bytes(model) * 2
