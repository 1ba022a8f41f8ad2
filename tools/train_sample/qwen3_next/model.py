"""The second sample's model in torch, for training: Qwen3-Next's arithmetic at a small size.

Shapes: B rows, T positions, D hidden, H heads, G key heads, K and V widths, R rotary width, E experts.
Parameters carry the published names wherever a published tensor exists, so that export is a renaming;
only the routed experts are stacked, [E, 2, F, D] and [E, D, F].
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..parts import Arrangement, Gated, GroupedExperts, Matrix, counted_loss, experts_start
from .delta import delta_rule
from .shape import Shape

UNIT_EPS = 1e-6  # of the norm that brings q and k to length 1: in no config key


class CentredNorm(nn.Module):
    """RMS norm times 1 + weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.zeros(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), 1 + self.weight, self.eps)


class GatedNorm(nn.Module):
    """RMS norm times weight, times silu of the gate."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps) * F.silu(gate)


class Convolution(nn.Module):
    """Each channel's last taps, weighed and summed. [B,T,channels] -> [B,T,channels]"""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, 1, taps) * 0.5 * taps**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x.transpose(1, 2), (self.weight.shape[-1] - 1, 0))
        return F.conv1d(padded, self.weight, groups=len(self.weight)).transpose(1, 2)


class DeltaNet(nn.Module):
    """Gated delta net; projections give q, k, v, z (and b, a) of one key head after the other."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = s = shape
        self.keys, self.values = s.linear_num_key_heads * s.linear_key_head_dim, s.linear_num_value_heads * s.linear_value_head_dim
        self.in_proj_qkvz = Matrix(2 * self.keys + 2 * self.values, s.hidden_size)
        self.in_proj_ba = Matrix(2 * s.linear_num_value_heads, s.hidden_size, 0.02)
        self.conv1d = Convolution(2 * self.keys + self.values, s.linear_conv_kernel_dim)
        steps = torch.exp(torch.empty(s.linear_num_value_heads).uniform_(math.log(0.001), math.log(0.1)))
        self.dt_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))  # softplus of it is `steps`
        self.A_log = nn.Parameter(torch.empty(s.linear_num_value_heads).uniform_(1, 16).log())
        self.norm = GatedNorm(s.linear_value_head_dim, s.rms_norm_eps)
        self.out_proj = Matrix(s.hidden_size, self.values, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        s, heads = self.shape, self.shape.linear_num_value_heads
        shared = heads // s.linear_num_key_heads
        width, value = s.linear_key_head_dim, s.linear_value_head_dim
        q, k, v, z = self.in_proj_qkvz(x).unflatten(-1, (s.linear_num_key_heads, -1)).split([width, width, shared * value, shared * value], -1)
        b, a = (part.flatten(-2) for part in self.in_proj_ba(x).unflatten(-1, (s.linear_num_key_heads, -1)).chunk(2, -1))  # [B,T,H]
        rows = F.silu(self.conv1d(torch.cat([part.flatten(-2) for part in (q, k, v)], -1)))
        q, k, v = rows.split([self.keys, self.keys, self.values], -1)
        q, k = (unit(part.unflatten(-1, (-1, width))).repeat_interleave(shared, 2).transpose(1, 2) for part in (q, k))  # [B,H,T,K]
        log_decay = -self.A_log.exp() * F.softplus(a + self.dt_bias)
        v = v.unflatten(-1, (heads, value)).transpose(1, 2)
        y = delta_rule(q * width**-0.5, k, v, log_decay.transpose(1, 2), torch.sigmoid(b).transpose(1, 2))  # [B,H,T,V]
        return self.out_proj(self.norm(y.transpose(1, 2), z.unflatten(-1, (shared, value)).flatten(2, 3)).flatten(-2))


def unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + UNIT_EPS)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B,n,T,K]: the first R dimensions turned as pairs (i, i + R/2); cos, sin [T,R/2]."""
    first, second, rest = x.split([cos.shape[-1], cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]], -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


class Attention(nn.Module):
    """Grouped-query attention with norms of q and k and an output gate; `q_proj` gives each head's query, then its gate."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = s = shape
        self.q_proj = Matrix(2 * s.num_attention_heads * s.head_dim, s.hidden_size)
        self.k_proj = Matrix(s.num_key_value_heads * s.head_dim, s.hidden_size)
        self.v_proj = Matrix(s.num_key_value_heads * s.head_dim, s.hidden_size)
        self.o_proj = Matrix(s.hidden_size, s.num_attention_heads * s.head_dim, 0.02)
        self.q_norm, self.k_norm = CentredNorm(s.head_dim, s.rms_norm_eps), CentredNorm(s.head_dim, s.rms_norm_eps)
        angles = torch.arange(s.max_position_embeddings)[:, None] * s.rope_theta ** -(torch.arange(0, s.rotary, 2) / s.rotary)
        self.cos, self.sin = angles.cos(), angles.sin()  # [positions, R/2]

    def forward(self, x: Tensor) -> Tensor:
        s, cos, sin = self.shape, self.cos[: x.shape[1]], self.sin[: x.shape[1]]
        shared = s.num_attention_heads // s.num_key_value_heads
        q, gate = self.q_proj(x).unflatten(-1, (s.num_attention_heads, 2, s.head_dim)).unbind(-2)  # [B,T,H,K]
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin)
        k, v = (proj(x).unflatten(-1, (-1, s.head_dim)) for proj in (self.k_proj, self.v_proj))
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin).repeat_interleave(shared, 1)
        mixed = F.scaled_dot_product_attention(q, k, v.transpose(1, 2).repeat_interleave(shared, 1), is_causal=True)  # [B,H,T,K]
        return self.o_proj((mixed.transpose(1, 2) * torch.sigmoid(gate)).flatten(-2))


class Mixture(nn.Module):
    """Softmax router, its chosen experts with weights that sum to 1, and the shared expert behind its gate.

    `balance` is the load-balancing term of the last batch (arXiv 2101.03961, eq. 4, times the experts chosen), `load` the
    share of tokens that each expert was given in it.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.chosen = shape.num_experts_per_tok
        self.gate = Matrix(shape.num_experts, shape.hidden_size, 0.02)
        self.gate_up, self.down = experts_start(shape.num_experts, shape.moe_intermediate_size, shape.hidden_size)
        self.shared_expert = Gated(shape.hidden_size, shape.shared_expert_intermediate_size)
        self.shared_expert_gate = Matrix(1, shape.hidden_size, 0.02)
        self.balance, self.load = torch.zeros(()), torch.zeros(shape.num_experts)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)  # [N,D]
        scores = self.gate(flat).softmax(-1)  # [N,E]
        weights, chosen = scores.topk(self.chosen, -1, sorted=False)  # [N,K]
        counts = torch.bincount(chosen.flatten(), minlength=len(self.load))
        self.load = counts / len(flat)
        self.balance = len(self.load) * (self.load * scores.mean(0)).sum()
        weights = weights / weights.sum(-1, keepdim=True)
        routed = GroupedExperts.apply(flat, self.gate_up, self.down, weights, Arrangement.of(chosen, counts))  # [N,D]
        return (routed + torch.sigmoid(self.shared_expert_gate(flat)) * self.shared_expert(flat)).view_as(x)


class Block(nn.Module):
    def __init__(self, shape: Shape, kind: str) -> None:
        super().__init__()
        self.input_layernorm = CentredNorm(shape.hidden_size, shape.rms_norm_eps)
        if kind == "linear_attention":
            self.linear_attn = DeltaNet(shape)
        else:
            self.self_attn = Attention(shape)
        self.post_attention_layernorm = CentredNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = Mixture(shape)

    @property
    def mixer(self) -> nn.Module:
        return self.linear_attn if hasattr(self, "linear_attn") else self.self_attn

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Sample(nn.Module):
    """ids [B,T] -> logits [B,T,vocabulary]; with targets [B,T] (-1: not counted) -> the mean loss."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or Shape()
        self.embed_tokens = Matrix(shape.vocab_size, shape.hidden_size, 0.1)
        self.layers = nn.ModuleList(Block(shape, kind) for kind in shape.layer_types)
        self.norm = CentredNorm(shape.hidden_size, shape.rms_norm_eps)
        self.lm_head = Matrix(shape.vocab_size, shape.hidden_size, 0.02)

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        x = F.embedding(ids, self.embed_tokens.weight)
        for block in self.layers:
            x = block(x)
        x = self.norm(x)
        return self.lm_head(x) if targets is None else counted_loss(self.lm_head, x.flatten(0, 1), targets.flatten())

    def is_matrix(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether Muon trains it: every matrix but embedding, head, router and the few rows that make gates."""
        apart = ("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight", "in_proj_ba.weight", "shared_expert_gate.weight", "conv1d.weight")
        return parameter.ndim >= 2 and not name.endswith(apart)

    def begin_step(self, done: float) -> None:
        """Nothing depends on how far training is."""

    def added_loss(self) -> Tensor:
        """The load balancing of all layers, by the weight the published config gives it."""
        return self.shape.router_aux_loss_coef * sum(block.mlp.balance for block in self.layers) / len(self.layers)

    def end_step(self, done: float) -> None:
        """Nothing is set by hand: the router is balanced by the loss."""

    def routing_line(self) -> str:
        """Of the last batch in training."""
        loads = torch.stack([block.mlp.load for block in self.layers]) * (self.shape.num_experts / self.shape.num_experts_per_tok)
        return f"load of an expert {float(loads.min()):.2f} to {float(loads.max()):.2f}"

    def settle(self) -> None:
        """Nothing is left to do."""

    def exported(self, parameter: Tensor) -> Tensor:
        return parameter.bfloat16().float()

    @torch.no_grad()
    def routing_facts(self, ids: Tensor) -> Iterator[str]:
        """The load of the least and of the most used expert, as multiples of an even share, by layer."""
        self(ids)
        loads = [block.mlp.load * (self.shape.num_experts / self.shape.num_experts_per_tok) for block in self.layers]
        yield f"load   {[f'{float(load.min()):.2f} to {float(load.max()):.2f}' for load in loads]} times an even share, by layer"
