"""What recording keeps in memory beyond what the run itself keeps, before running: an upper bound that the plan counts.

Of a pass over n new positions, per layer and until the next: x, a, u, m, x' and the combination of the experts (6 D numbers a position), what
attention keeps or the gates of a delta net, four rows of the router, and of each detailed position the outputs of its experts ((K + 1) D); and a
piece of the softmax weights, and one state of a delta layer with its copies.
Of every step whose token is not known yet its rows, (4 + K + 1) D numbers a layer, and as much of the one before, whose lines are made meanwhile:
for these one product of its L rows with lm_head (L V), and scratch memory.
"""

from __future__ import annotations

from formation.ledger.fields import LEVELS
from formation.model.architecture import Model
from formation.model.attention import WATCHED_BYTES
from formation.probe.head import BLOCK_ROWS
from formation.probe.pending import PIECE_MACS
from formation.probe.recorder import KEPT_BYTES
from formation.probe.spool import IN_MEMORY_BYTES

NUMBER = 4
LINE_BYTES = {"minimal": 6 << 10, "standard": 16 << 10, "full": 20 << 10}  # of the values of one line, as Python holds them
SPOOLED_BYTES = {"minimal": 2 << 10, "standard": 6 << 10, "full": 8 << 10}  # and as text
RECORD_BYTES, RECORD_TEXT = 400, 80  # of one of its records of attention
STATE_COPIES = 4  # of one state on its way to its digest
COPIES = 3  # of a line's values while it is made
FIXED_BYTES = 1 << 19


def capture_bytes(model: Model, positions: int, *, level: str, prompt_level: str, steps: int = 1, prompt: int | None = None) -> int:
    """For a run of `positions`, of which its first pass shows `prompt` (None: all), and of which `steps` await their token together. Levels as the
    recorder's."""
    shape = model.shape
    waiting = (steps + 1) * shape.layers * (_step_layer_bytes(model) + _line_bytes(model, level))
    first = _pass_bytes(model, positions if prompt is None else prompt, positions, steps, level, prompt_level)
    later = _pass_bytes(model, 1, positions, 1, level, prompt_level) + _finish_bytes(model, level)
    return FIXED_BYTES + waiting + _kept_bytes(model, positions, steps, level) + max(first, later)


def _pass_bytes(model: Model, rows: int, keys: int, steps: int, level: str, prompt_level: str) -> int:
    shape = model.shape
    row = NUMBER * (6 * shape.hidden + 3 * shape.experts + 3 * shape.chosen + 1) + max(_mixer_bytes(model, layer) for layer in range(shape.layers))
    detailed = (rows if prompt_level != "minimal" else steps) if max(map(LEVELS.index, (level, prompt_level))) else 0
    experts = detailed * (shape.chosen + 1) * shape.hidden * NUMBER
    one = model.heads * keys * NUMBER
    attention = min(rows * one, max(WATCHED_BYTES, one)) + one if detailed else 0
    summaries = detailed * _line_bytes(model, prompt_level)
    places = (rows - steps) * (shape.layers + 1)
    spooled = min(IN_MEMORY_BYTES, places * _spooled_bytes(model, prompt_level)) + places * 8
    return rows * row + experts + attention + summaries + spooled + STATE_COPIES * _state_bytes(model)


def _kept_bytes(model: Model, keys: int, steps: int, level: str) -> int:
    """Softmax weights that wait to be summarised, and states of delta layers that wait to be digested"""
    kinds = [model.kind(layer) for layer in range(model.shape.layers)]
    weights = 0 if level == "minimal" else min(KEPT_BYTES, steps * kinds.count("attention") * model.heads * keys * NUMBER)
    return weights + min(KEPT_BYTES, steps * kinds.count("delta") * _state_bytes(model))


def _mixer_bytes(model: Model, layer: int) -> int:
    """What a layer shows of one position: a cache entry, or two gates a head, of whose state there are 256 numbers or more"""
    return model.cache_bytes(layer, 1) // 128 if model.kind(layer) == "delta" else model.cache_bytes(layer, 64) // 64


def _state_bytes(model: Model) -> int:
    """Of the largest delta layer, 0 without any"""
    return max((model.cache_bytes(layer, 1) for layer in range(model.shape.layers) if model.kind(layer) == "delta"), default=0)


def _step_layer_bytes(model: Model) -> int:
    return (4 + model.shape.chosen + 1) * model.shape.hidden * NUMBER


def _line_bytes(model: Model, level: str) -> int:
    return LINE_BYTES[level] + (3 * model.heads * RECORD_BYTES if level == "full" else 0)


def _spooled_bytes(model: Model, level: str) -> int:
    return SPOOLED_BYTES[level] + (3 * model.heads * RECORD_TEXT if level == "full" else 0)


def _finish_bytes(model: Model, level: str) -> int:
    """Lens logits and the rows they come from; blocks of lm_head for its mean row; one row of it and its like in binary64; lines in the making"""
    shape = model.shape
    own = 3 * shape.vocabulary * NUMBER + (COPIES - 1) * shape.layers * _line_bytes(model, level)
    if level == "minimal":
        return own
    lens = shape.layers * (shape.vocabulary + 2 * shape.hidden) * NUMBER
    scratch = (shape.layers + 8) * shape.hidden * NUMBER + 16 * shape.vocabulary + 2 * _step_layer_bytes(model)
    piece = min(PIECE_MACS // shape.hidden, shape.layers * shape.vocabulary) * NUMBER
    return own + lens + (BLOCK_ROWS * NUMBER + 12 * 8) * shape.hidden + scratch + piece
