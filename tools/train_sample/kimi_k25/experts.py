"""The mixture of experts of Kimi K2.5 in torch: a router with a bias, routed experts, shared expert.

Shapes: N = B*T tokens, D hidden, E experts, K chosen.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..parts import Arrangement, Gated, GroupedExperts, experts_start
from .int4 import straight_through
from .shape import Shape


class Gate(nn.Module):
    """The router: sigmoid scores; a bias that moves the choice and not the weights (noaux_tc)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.weight = nn.Parameter(torch.randn(shape.n_routed_experts, shape.hidden_size) * 0.02)
        self.e_score_correction_bias: Tensor
        self.register_buffer("e_score_correction_bias", torch.zeros(shape.n_routed_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.sigmoid(F.linear(x, self.weight))  # [N,E]
        chosen = (scores.detach() + self.e_score_correction_bias).topk(self.shape.num_experts_per_tok, -1, sorted=False)[1]  # [N,K]
        weights = scores.gather(1, chosen)
        return chosen, weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.shape.routed_scaling_factor


class Mixture(nn.Module):
    """Routed experts and the shared one. `load` counts the tokens each expert was given since it was last cleared."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        experts, width, hidden = shape.n_routed_experts, shape.moe_intermediate_size, shape.hidden_size
        self.gate, self.shared_experts = Gate(shape), Gated(hidden, width)
        self.gate_up, self.down = experts_start(experts, width, hidden)
        self.load = torch.zeros(experts)
        self.quantised = False

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)  # [N,D]
        chosen, weights = self.gate(flat)
        counts = torch.bincount(chosen.flatten(), minlength=len(self.load))
        if self.training:
            self.load += counts
        gate_up, down = self.gate_up, self.down
        if self.quantised:
            gate_up, down = straight_through(gate_up), straight_through(down)
        routed = GroupedExperts.apply(flat, gate_up, down, weights, Arrangement.of(chosen, counts))  # [N,D]
        return self.shared_experts(x) + routed.view_as(x)
