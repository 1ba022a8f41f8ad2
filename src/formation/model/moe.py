"""The MLP of a layer: dense SwiGLU, or a router, its chosen experts and the shared expert.

Combination order (contract rule 7): from the first chosen expert's gated write in ascending id, the others, then the shared expert.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from formation.kernels import ops
from formation.kernels.tensor import F32, I64, Tensor
from formation.model.linear import Modules
from formation.model.quantisation import Quantisation, Stored, plain
from formation.model.taps import Probe, Site, Tap, require_finite

# Asked for expert ids of a layer in ascending order, gives (id, its tensors) in whatever order they come, each valid until the next is asked for.
Experts = Callable[[int, Sequence[int]], Iterator[tuple[int, Mapping[str, Tensor]]]]

# Of some rows: their numbers, what their outputs [rows, D] are multiplied by (None: nothing), and these
Output = tuple[I64, F32 | None, F32]


@dataclass(frozen=True)
class Mlp:
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    hidden: int  # D
    inner: int  # F
    quantisation: Quantisation

    def stored(self, prefix: str, names: Collection[str]) -> list[Stored]:
        shapes = {"gate_proj": (self.inner, self.hidden), "up_proj": (self.inner, self.hidden), "down_proj": (self.hidden, self.inner)}
        return [s for name, (r, c) in shapes.items() for s in self.quantisation.stored(f"{prefix}.{name}", r, c, names)]

    def row_bytes(self) -> int:
        return 4 * (3 * self.inner + 2 * self.hidden)

    def __call__(self, x: F32, use: Modules) -> F32:
        gate = use.linear("gate_proj", x)  # [T, F]
        inner = ops.silu_mul(gate, use.linear("up_proj", x), threads=use.threads, out=gate)
        return use.linear("down_proj", inner)  # [T, D]


@dataclass(frozen=True)
class MixtureOfExperts:
    """Router, routed experts and one shared MLP (None: no shared expert), which every token uses."""

    router: ops.Router
    biased: bool  # noaux_tc: `e_score_correction_bias` selects, and does not weigh
    expert: Mlp
    shared: Mlp | None
    shared_name: str = "shared_experts"
    shared_gated: bool = False  # the shared MLP's output is multiplied by the sigmoid of `shared_expert_gate`

    def stored(self, prefix: str, names: Collection[str]) -> list[Stored]:
        """What every token of the layer needs: all but the routed experts."""
        found = self.stored_router(prefix)
        if self.shared_gated:
            found.append(plain(f"{prefix}.shared_expert_gate.weight", 1, self.expert.hidden))
        return found + (self.shared.stored(f"{prefix}.{self.shared_name}", names) if self.shared else [])

    def stored_router(self, prefix: str) -> list[Stored]:
        found = [plain(f"{prefix}.gate.weight", self.router.experts, self.expert.hidden)]
        if self.biased:
            found.append(Stored(f"{prefix}.gate.e_score_correction_bias", ("F32", "BF16"), (self.router.experts,)))
        return found

    def stored_expert(self, prefix: str, expert: int, names: Collection[str]) -> list[Stored]:
        return self.expert.stored(f"{prefix}.experts.{expert}", names)

    def row_bytes(self) -> int:
        """Upper bound of the scratch memory of one row, in bytes: an expert's or the shared one's, and what both are added to."""
        return max(mlp.row_bytes() for mlp in (self.expert, self.shared) if mlp) + 16 * self.expert.hidden

    def route(self, h: F32, layer: int, positions: I64, use: Modules, probe: Probe) -> ops.Routing:
        logits = use.linear("gate", h)  # [T, E]
        require_finite(Site(Tap.ROUTER_LOGITS, layer), positions, logits)
        bias = use.vector("gate.e_score_correction_bias") if self.biased else None
        routing = ops.route(self.router, logits, bias, threads=use.threads)
        for tap, values in (
            (Tap.ROUTER_LOGITS, logits),
            (Tap.ROUTER_SCORES, routing.scores),
            (Tap.ROUTER_SELECTION, routing.selection),
            (Tap.CHOSEN, routing.chosen),
            (Tap.GATES, routing.gates),
        ):
            probe(Site(tap, layer), positions, values)
        return routing

    def __call__(self, h: F32, layer: int, positions: I64, use: Modules, experts: Experts, probe: Probe, chunk: int) -> F32:
        """The MoE write of h [T, D]: every expert that any position chose is asked for once; at most `chunk` rows at a time.

        Each is computed when it comes, and added when its turn has come.
        """
        routing = self.route(h, layer, positions, use, probe)
        chosen = np.unique(routing.chosen).tolist()
        arriving = experts(layer, chosen)
        shared = list(self._of_shared(h, layer, positions, use, chunk)) if len(h) <= chunk else None  # while the others are read
        write, started = np.empty_like(h), np.zeros(len(h), np.uint8)

        def add(outputs: Iterable[Output], expert: int = -1) -> None:
            for rows, gates, output in outputs:
                if expert < 0 and gates is not None:
                    probe(Site(Tap.SHARED_GATE, layer), positions[rows], gates)
                probe(Site(Tap.EXPERT_OUTPUT, layer, expert), positions[rows], output)
                ops.accumulate(write, started, rows, output, gates, threads=use.threads)

        early: dict[int, Iterable[Output]] = {}
        turns = iter(chosen)
        turn = next(turns, None)
        for expert, tensors in arriving:
            outputs = self._of_expert(h, layer, expert, positions, routing, Modules(tensors, f"{use.prefix}experts.{expert}.", use.threads), chunk)
            early[expert] = outputs if expert == turn else list(outputs)
            while turn in early:
                add(early.pop(turn), turn)
                turn = next(turns, None)
        add(self._of_shared(h, layer, positions, use, chunk) if shared is None else shared)
        return write

    def _of_expert(
        self, h: F32, layer: int, expert: int, positions: I64, routing: ops.Routing, use: Modules, chunk: int
    ) -> Iterator[Output]:  # fmt: skip
        here = routing.chosen == expert  # [T, K], at most one in a row
        rows, gates = np.flatnonzero(here.any(axis=1)), routing.gates[here]  # [rows]
        for part in chunks(len(rows), chunk):
            output = self.expert(h[rows[part]], use)  # [rows, D]
            require_finite(Site(Tap.EXPERT_OUTPUT, layer, expert), positions[rows[part]], output)
            yield rows[part], gates[part], output

    def _of_shared(self, h: F32, layer: int, positions: I64, use: Modules, chunk: int) -> Iterator[Output]:
        if self.shared is None:
            return
        for part in chunks(len(h), chunk):
            gates = ops.sigmoid(use.linear("shared_expert_gate", h[part])).reshape(-1) if self.shared_gated else None  # [rows]
            yield np.arange(part.start, part.stop), gates, self.shared(h[part], use.under(self.shared_name))


def chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(i, min(i + size, count)) for i in range(0, count, size))
