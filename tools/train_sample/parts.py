"""The parts both samples' models are made of: a matrix, a gated MLP, and experts as one matrix product each.

Shapes: N = B*T tokens, D hidden, E experts, K chosen, F expert width, S padded slots.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SEGMENT = 64  # rows: an expert's share of a batch is padded to a multiple, so that few matrix shapes occur


class Matrix(nn.Module):
    """y = x W^T. `spread` is the standard deviation at the start; by default 0.6 over the root of the fan-in."""

    def __init__(self, rows: int, columns: int, spread: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns) * (spread or 0.6 * columns**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Gated(nn.Module):
    """A dense MLP, or the shared expert."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = Matrix(width, hidden), Matrix(width, hidden)
        self.down_proj = Matrix(hidden, width, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class GroupedExperts(torch.autograd.Function):
    """x [N,D] through the chosen experts' matrices, times their weights [N,K], added up -> [N,D].

    Rows are gathered into padded slots sorted by expert (`Arrangement`), so that each expert is one matrix product;
    both directions only gather, because scattered additions are slow on a CPU. A padding slot has the weight 0.
    The weight is put in front of the second matrix, where a row is short.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor, arranged: "Arrangement") -> Tensor:
        x, gate_up = x.index_select(0, arranged.source), gate_up.flatten(1, 2)  # [S,D], [E,2F,D]
        hidden, y = x.new_empty(len(x), gate_up.shape[1]), torch.empty_like(x)
        for e, rows in enumerate(arranged.segments):
            torch.mm(x[rows], gate_up[e].T, out=hidden[rows])
        gate, up = hidden.chunk(2, -1)
        inner = F.silu(gate) * up  # [S,F]
        weight = x.new_zeros(len(x), 1).index_copy_(0, arranged.slot, weights.reshape(-1, 1))  # [S,1]
        weighed = inner * weight
        for e, rows in enumerate(arranged.segments):
            torch.mm(weighed[rows], down[e].T, out=y[rows])
        ctx.save_for_backward(x, gate_up, down, hidden, inner, weight)
        ctx.arranged = arranged
        return arranged.added(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        (x, gate_up, down, hidden, inner, weight), arranged = ctx.saved_tensors, ctx.arranged
        dy = gradients[0].index_select(0, arranged.source)  # [S,D]
        d_weighed, d_down, weighed = torch.empty_like(inner), torch.empty_like(down), inner * weight
        for e, rows in enumerate(arranged.segments):
            torch.mm(dy[rows], down[e], out=d_weighed[rows])
            torch.mm(dy[rows].T, weighed[rows], out=d_down[e])
        d_weights = (d_weighed * inner).sum(-1).index_select(0, arranged.slot).view(-1, arranged.chosen)  # [N,K]
        d_hidden = swiglu_gradient(hidden, d_weighed * weight)  # [S,2F]
        dx, d_gate_up = dy, torch.empty_like(gate_up)
        for e, rows in enumerate(arranged.segments):
            torch.mm(d_hidden[rows], gate_up[e], out=dx[rows])
            torch.mm(d_hidden[rows].T, x[rows], out=d_gate_up[e])
        return arranged.added(dx), d_gate_up.unflatten(1, (2, -1)), d_down, d_weights, None


def swiglu_gradient(hidden: Tensor, d_inner: Tensor) -> Tensor:
    """d silu(gate)*up by [gate, up] = hidden [S,2F]."""
    gate, up = hidden.chunk(2, -1)
    logistic = torch.sigmoid(gate)
    d_gate = d_inner * up * (logistic * (1 + gate * (1 - logistic)))
    return torch.cat([d_gate, d_inner * gate * logistic], -1)


@dataclass(frozen=True)
class Arrangement:
    """Which token fills each padded slot [S], the slot of each (token, choice) [N*K], and each expert's slots."""

    source: Tensor
    slot: Tensor
    segments: list[slice]
    chosen: int

    def added(self, y: Tensor) -> Tensor:
        """y [S,D], the rows of each token added up [N,D]"""
        return y.index_select(0, self.slot).view(-1, self.chosen, y.shape[1]).sum(1)

    @classmethod
    def of(cls, chosen: Tensor, counts: Tensor) -> "Arrangement":
        """chosen [N,K] expert ids; counts [E], how often each occurs."""
        flat = chosen.flatten()
        padded = (counts + SEGMENT - 1) // SEGMENT * SEGMENT
        ends = padded.cumsum(0)
        order = flat.argsort(stable=True)
        expert = flat[order]
        place = torch.arange(len(flat)) - (counts.cumsum(0) - counts)[expert] + (ends - padded)[expert]
        slot = torch.empty_like(order).index_copy_(0, order, place)
        source = torch.zeros(int(ends[-1]), dtype=torch.long).index_copy_(0, place, order // chosen.shape[1])
        bounds = [0, *ends.tolist()]
        return cls(source, slot, [slice(*pair) for pair in itertools.pairwise(bounds)], chosen.shape[1])


def experts_start(experts: int, width: int, hidden: int) -> tuple[nn.Parameter, nn.Parameter]:
    """gate and up [E,2,F,D], and down [E,D,F], of all experts of a layer"""
    gate_up = torch.randn(experts, 2, width, hidden) * 0.6 * hidden**-0.5
    return nn.Parameter(gate_up), nn.Parameter(torch.randn(experts, hidden, width) * 0.02)


def counted_loss(head: Matrix, x: Tensor, targets: Tensor) -> Tensor:
    """The mean loss of rows x [N,D] over the targets [N] that are not negative."""
    counted = (targets >= 0).nonzero()[:, 0]
    return F.cross_entropy(head(x.index_select(0, counted)), targets[counted])
