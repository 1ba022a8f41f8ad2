"""The first sample's model in torch, for training: DeepSeek-V3's arithmetic at a small size.

Shapes: B rows, T positions, D hidden, H heads, C latent width, R rotary width, V value width.
Parameters carry the published names wherever a published tensor exists, so that export is a renaming;
only the routed experts are stacked, [E, 2, F, D] and [E, D, F].
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..parts import Gated, Matrix, counted_loss
from .experts import Gate, Mixture
from .int4 import dequantise, quantise
from .shape import Norm, Shape

QUANTISED_SHARE = 0.25  # of all steps, the last
BIAS_RATE = 0.01
BALANCE_TAIL = 0.05  # the last share of steps leaves the bias alone


def yarn_frequencies(shape: Shape) -> Tensor:
    """[R/2] inverse frequencies: slow ones are divided by the factor, fast ones stay, between them a ramp (YaRN, 3.2)."""
    width = shape.qk_rope_head_dim
    plain = shape.rope_theta ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)

    def pair_turning(rotations: float) -> float:
        return width * math.log(shape.original_positions / (rotations * 2 * math.pi)) / (2 * math.log(shape.rope_theta))

    low = max(math.floor(pair_turning(shape.beta_fast)), 0)
    high = min(math.ceil(pair_turning(shape.beta_slow)), width - 1)
    ramp = ((torch.arange(width // 2) - low) / max(high - low, 0.001)).clamp(0, 1)
    return (plain / shape.yarn_factor * ramp + plain * (1 - ramp)).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate interleaved pairs [..., T, R]; the result keeps all firsts, then all seconds: dot products are the same."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Attention(nn.Module):
    """Multi-head latent attention, expanded (not absorbed)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = s = shape
        heads, eps = s.num_attention_heads, s.latent_norm_eps
        self.q_a_proj = Matrix(s.q_lora_rank, s.hidden_size)
        self.q_a_layernorm = Norm(s.q_lora_rank, eps)
        self.q_b_proj = Matrix(heads * (s.qk_nope_head_dim + s.qk_rope_head_dim), s.q_lora_rank)
        self.kv_a_proj_with_mqa = Matrix(s.kv_lora_rank + s.qk_rope_head_dim, s.hidden_size)
        self.kv_a_layernorm = Norm(s.kv_lora_rank, eps)
        self.kv_b_proj = Matrix(heads * (s.qk_nope_head_dim + s.v_head_dim), s.kv_lora_rank)
        self.o_proj = Matrix(s.hidden_size, heads * s.v_head_dim, 0.02)
        width = s.qk_nope_head_dim + s.qk_rope_head_dim
        self.scale = width**-0.5 * (0.1 * math.log(s.yarn_factor) + 1) ** 2

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        s, (rows, length, _) = self.shape, x.shape
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).view(rows, length, s.num_attention_heads, -1).transpose(1, 2)  # [B,H,T,nope+R]
        latent, shared = self.kv_a_proj_with_mqa(x).split([s.kv_lora_rank, s.qk_rope_head_dim], -1)  # [B,T,C], [B,T,R]
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).view(rows, length, s.num_attention_heads, -1).transpose(1, 2)  # [B,H,T,nope+V]
        q_nope, q_rope = q.split([s.qk_nope_head_dim, s.qk_rope_head_dim], -1)
        k_nope, v = kv.split([s.qk_nope_head_dim, s.v_head_dim], -1)
        k_rope = rotate(shared, cos, sin).unsqueeze(1).expand(-1, s.num_attention_heads, -1, -1)
        q = torch.cat([q_nope, rotate(q_rope, cos, sin)], -1) * self.scale
        scores = q @ torch.cat([k_nope, k_rope], -1).mT + mask  # [B,H,T,T]
        return self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, length, -1))  # [B,T,D]


class Block(nn.Module):
    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden_size, shape.rms_norm_eps)
        dense = index < shape.first_k_dense_replace
        self.mlp = Gated(shape.hidden_size, shape.intermediate_size) if dense else Mixture(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Sample(nn.Module):
    """ids [B,T] -> logits [B,T,vocabulary]; with targets [B,T] (-1: not counted) -> the mean loss."""

    def __init__(self, shape: Shape | None = None) -> None:
        super().__init__()
        self.shape = shape = shape or Shape()
        self.embed_tokens = Matrix(shape.vocab_size, shape.hidden_size, 0.1)
        self.layers = nn.ModuleList(Block(shape, i) for i in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.lm_head = Matrix(shape.vocab_size, shape.hidden_size, 0.02)
        angles = torch.arange(shape.positions)[:, None] * yarn_frequencies(shape)
        self.cos, self.sin = angles.cos(), angles.sin()  # [positions, R/2]

    @property
    def mixtures(self) -> list[Mixture]:
        return [block.mlp for block in self.layers if isinstance(block.mlp, Mixture)]

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> Tensor:
        length = ids.shape[1]
        mask = torch.full((length, length), -1e9).triu(1)
        x = F.embedding(ids, self.embed_tokens.weight)
        for block in self.layers:
            x = block(x, self.cos[:length], self.sin[:length], mask)
        x = self.norm(x)
        return self.lm_head(x) if targets is None else counted_loss(self.lm_head, x.flatten(0, 1), targets.flatten())

    def is_matrix(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether Muon trains it: every matrix but embedding, head and router."""
        return parameter.ndim >= 2 and not name.endswith(("embed_tokens.weight", "lm_head.weight", "mlp.gate.weight"))

    def begin_step(self, done: float) -> None:
        """`done` is the share of all steps: for the last ones the experts are what export will make of them."""
        for mixture in self.mixtures:
            mixture.quantised = done >= 1 - QUANTISED_SHARE

    def added_loss(self) -> float:
        """Nothing: the router is balanced by its bias."""
        return 0.0

    def end_step(self, done: float) -> None:
        """Raise the bias of experts that got less than their share of tokens, lower the others' (noaux_tc)."""
        rate = BIAS_RATE * max(0.0, 1 - done / (1 - BALANCE_TAIL))
        for mixture in self.mixtures:
            mixture.gate.e_score_correction_bias += rate * torch.sign(mixture.load.mean() - mixture.load)
            mixture.load.zero_()

    def routing_line(self) -> str:
        """For the log."""
        return f"largest bias {max(float(mixture.gate.e_score_correction_bias.abs().max()) for mixture in self.mixtures):.3f}"

    def settle(self) -> None:
        """Centre each router's bias: a common shift changes no choice."""
        for mixture in self.mixtures:
            bias = mixture.gate.e_score_correction_bias
            bias -= bias.mean()

    def exported(self, parameter: Tensor) -> Tensor:
        """BF16; the stacked experts int4."""
        return parameter.bfloat16().float() if parameter.ndim < 3 else dequantise(*quantise(parameter))

    @torch.no_grad()
    def routing_facts(self, ids: Tensor) -> Iterator[str]:
        """The largest bias, and the share of tokens [B,T] that would choose other experts without it, by layer."""
        shares: list[str] = []

        def record(gate: Gate, inputs: tuple[Tensor], outputs: tuple[Tensor, Tensor]) -> None:
            without = torch.sigmoid(F.linear(inputs[0], gate.weight)).topk(outputs[0].shape[1], -1)[1].sort(-1)[0]
            shares.append(f"{float((without != outputs[0].sort(-1)[0]).any(-1).float().mean()):.2f}")

        hooks = [mixture.gate.register_forward_hook(record) for mixture in self.mixtures]
        self(ids)
        for hook in hooks:
            hook.remove()
        yield f"bias   {[f'{float(m.gate.e_score_correction_bias.abs().max()):.3f}' for m in self.mixtures]} largest, by layer"
        yield f"moved  {shares} share of tokens choosing others without it"
