"""Before running: what stays in memory, what is read per token, and whether the budget can hold the run at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from formation.errors import BudgetError
from formation.model.architecture import Key, Model, Part, Shape
from formation.run.machine import show_bytes
from formation.weights.checkpoint import TensorEntry
from formation.weights.layout import Unit, slot_bytes
from formation.weights.rows import row_buffer_bytes

LARGEST_CHUNK = 256  # rows computed together; the bits do not depend on it
GOLDEN = (5**0.5 - 1) / 2
ROUTER_SHARE = 20  # one part in so many of the budget may hold routers of layers that do not stay: experts are guessed with them

Parts = Mapping[Key, Part]
Tensors = Mapping[str, TensorEntry]


@dataclass(frozen=True)
class Sizes:
    """Bytes of every part of a model, as they lie in the checkpoint (or as expected, where only its names are known)."""

    embedding: int
    layers: tuple[int, ...]  # what every token needs of each layer
    experts: Mapping[int, int]  # {layer: bytes of its largest expert}
    expert_total: int
    head: int
    chosen: int
    row_buffer: int = 0  # through which single rows of the embedding are read
    routers: Mapping[int, int] = field(default_factory=dict)  # {layer: bytes of its router apart}, where guesses may want it

    @property
    def always(self) -> int:
        """What every token needs: all but the routed experts and the embedding, of which single rows are read."""
        return sum(self.layers) + self.head

    @property
    def total(self) -> int:
        return self.embedding + self.always + self.expert_total

    def of(self, key: Key) -> int:
        """Bytes of a part that is read whole"""
        if key == ("head",):
            return self.head
        return (self.experts if key[0] == "expert" else self.routers if key[0] == "router" else self.layers)[key[1]]

    @property
    def experts_per_token(self) -> int:
        return self.chosen * sum(self.experts.values())


@dataclass(frozen=True)
class Parameters:
    total: int
    active: int  # that one token's forward pass multiplies by: all but the embedding and the experts that are not chosen


def count_parameters(parts: Parts, shape: Shape) -> Parameters:
    def count(key: Key) -> int:
        return sum(s.parameters for s in parts[key].stored)

    always = sum(count(("layer", layer)) for layer in range(shape.layers)) + count(("head",))
    expert = sum(count(("expert", layer, 0)) for layer in shape.expert_layers())
    return Parameters(count(("embedding",)) + always + shape.experts * expert, always + shape.chosen * expert)


def measure_sizes(parts: Parts, shape: Shape, nbytes: Callable[[Part], int] = lambda part: part.nbytes) -> Sizes:
    """Sizes of all parts, by the declared shapes or as `nbytes` measures them."""
    by_key = {key: nbytes(part) for key, part in parts.items()}
    return Sizes(
        embedding=by_key[("embedding",)],
        layers=tuple(by_key[("layer", layer)] for layer in range(shape.layers)),
        experts={n: max(by_key[("expert", n, e)] for e in range(shape.experts)) for n in shape.expert_layers()},
        expert_total=sum(size for key, size in by_key.items() if key[0] == "expert"),
        head=by_key[("head",)],
        chosen=shape.chosen,
    )


def stored_sizes(parts: Parts, shape: Shape, tensors: Tensors) -> Sizes:
    """Bytes as the parts lie in the shards."""
    return measure_sizes(parts, shape, lambda part: sum(tensors[name].nbytes for name in part.names))


def slot_sizes(parts: Parts, shape: Shape, tensors: Tensors) -> Sizes:
    """Bytes that the parts take in memory: whole pages, as direct reads want them."""

    def size(part: Part) -> int:
        return slot_bytes(Unit(part.key, part.names), tensors)

    sizes = measure_sizes(parts, shape, size)
    embedding = tensors[parts[("embedding",)].names[0]]
    routers = {key[1]: size(part) for key, part in parts.items() if key[0] == "router"}
    return replace(sizes, row_buffer=row_buffer_bytes(embedding), routers=routers)


@dataclass(frozen=True)
class Plan:
    """How a run of `positions` positions fits into `budget` bytes."""

    sizes: Sizes
    budget: int
    positions: int
    chunk: int  # rows computed together
    cache_bytes: int  # what all layers keep of the past
    state_bytes: int  # of it, the states of delta layers: the same for any number of positions
    activation_bytes: int
    capture_bytes: int  # what a probe keeps
    resident: tuple[Key, ...]  # parts kept for the whole run
    resident_bytes: int
    transient_bytes: int  # room for parts that are read again each time
    routers: tuple[Key, ...] = ()  # of layers that do not stay: kept apart, to guess experts with
    router_bytes: int = 0

    @property
    def stream_bytes(self) -> int:
        """What the weights may use together."""
        return self.budget - self.cache_bytes - self.activation_bytes - self.capture_bytes

    @property
    def expert_cache_bytes(self) -> int:
        return self.stream_bytes - self.resident_bytes - self.transient_bytes - self.router_bytes

    @cached_property
    def always_read_bytes(self) -> int:
        """Always-needed bytes that are read again for every pass."""
        return self.sizes.always - self.resident_bytes

    @property
    def bytes_per_token(self) -> int:
        """Read for one decoded token when no expert is cached."""
        return self.always_read_bytes + self.sizes.experts_per_token

    def bytes_per_prompt(self, positions: int, experts: int) -> int:
        """Expected bytes of one layer-major pass: each of `experts` is chosen by at least one position or not read."""
        share = 1.0 - (1.0 - self.sizes.chosen / experts) ** positions
        return self.sizes.always + int(share * self.sizes.expert_total)


def make_plan(
    model: Model, sizes: Sizes, budget: int, positions: int, logit_rows: int = 1, capture: int = 0, *, lengths: Sequence[int] = ()
) -> Plan:  # fmt: skip
    """Raises BudgetError, saying how much is needed and for what, when the run cannot fit. `capture` bytes are a probe's.
    `lengths` are those of several sequences, where `positions` is their sum."""
    kept = [[model.cache_bytes(layer, n) for layer in range(model.shape.layers)] for n in lengths or [positions]]
    cache, states = sum(map(sum, kept)), sum(layers[layer] for layers in kept for layer in delta_layers(model))
    floor = _least_weights(sizes)
    chunk, activations = _activations(model, positions, logit_rows, budget - cache - floor - capture)
    needed = cache + activations + floor + capture
    if needed > budget:
        raise BudgetError(
            f"memory budget: expected at least {show_bytes(needed)}, got {show_bytes(budget)}: weights in use {show_bytes(floor)}, "
            f"attention cache of {positions} positions {show_bytes(cache - states)}, activations {show_bytes(activations)}"
            + (f", states of delta layers {show_bytes(states)}" if states else "")
            + (f", capture {show_bytes(capture)}" if capture else ""),
            hint=f"give --memory {_rounded_up(needed)} or more, or fewer positions",
        )
    resident, transient = _residents(sizes, budget - cache - activations - capture)
    stays = sum(sizes.of(key) for key in resident)
    plan = Plan(sizes, budget, positions, chunk, cache, states, activations, capture, resident, stays, transient)
    routers = [("router", layer) for layer in sizes.routers if ("layer", layer) not in resident]
    size = sum(sizes.of(key) for key in routers)
    fits = size <= min(budget // ROUTER_SHARE, plan.expert_cache_bytes, plan.stream_bytes - stays - floor)
    return replace(plan, routers=tuple(routers), router_bytes=size) if fits else plan


def delta_layers(model: Model) -> list[int]:
    return [layer for layer in range(model.shape.layers) if model.kind(layer) == "delta"]


def _least_weights(sizes: Sizes) -> int:
    """The least that any moment of a pass holds: one layer with two of its experts, or the head."""
    layers = (size + 2 * sizes.experts.get(layer, 0) for layer, size in enumerate(sizes.layers))
    return max(*layers, sizes.head) + sizes.row_buffer


def _activations(model: Model, positions: int, logit_rows: int, room: int) -> tuple[int, int]:
    """(rows per chunk, bytes): the residual stream of all positions four times over, routing, logits, and one chunk's scratch."""
    shape = model.shape
    fixed = positions * (5 * shape.hidden * 4 + shape.experts * 16) + 2 * logit_rows * shape.vocabulary * 4
    chunk = min(LARGEST_CHUNK, positions)
    while chunk > 1 and chunk * model.row_bytes() > min(room - fixed, max(room // 8, 1 << 20)):
        chunk //= 2
    return chunk, fixed + chunk * model.row_bytes()


def _residents(sizes: Sizes, room: int) -> tuple[tuple[Key, ...], int]:
    """Always-needed parts that stay, and the room for the others to pass through, a token's experts beside them. As many stay as fit."""
    experts = max(sizes.chosen, 2) * max(sizes.experts.values(), default=0)

    def passing(parts: Sequence[Key]) -> int:
        """Of those that do not stay, one is in use while the next is read; where all stay, experts are."""
        return sum(sorted(map(sizes.of, parts), reverse=True)[:2]) or experts

    kept, rest = _first_to_stay(sizes), list[Key]()
    left = room - sizes.row_buffer - experts - sizes.always
    while kept and left < passing(rest):
        rest.append(kept.pop())
        left += sizes.of(rest[-1])
    for key in reversed(rest):
        others = [other for other in rest if other != key]
        if passing(others) <= left - sizes.of(key):
            rest, left = others, left - sizes.of(key)
            kept.append(key)
    return tuple(kept), max(0, min(passing(rest), left)) if rest else 0


def _first_to_stay(sizes: Sizes) -> list[Key]:
    """The head and layers larger than most, for which a slot would have to be kept anyway; then layers spread evenly over the pass, however
    many of them stay, so that the disk always has one to read while others compute: multiples of the golden ratio fall apart like that."""
    common = Counter(sizes.layers).most_common(1)[0][0]
    layers = sorted(range(len(sizes.layers)), key=lambda layer: (sizes.layers[layer] <= common, layer * GOLDEN % 1.0))
    return [("head",), *(("layer", layer) for layer in layers)]


def _rounded_up(count: int) -> str:
    return f"{-(-count // 2**20)}MiB"
