"""The sizes of the first sample, and its norm."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tokens import VOCABULARY


@dataclass(frozen=True)
class Shape:
    """The sizes, under the names the published config uses."""

    vocab_size: int = VOCABULARY
    hidden_size: int = 192
    num_hidden_layers: int = 5
    first_k_dense_replace: int = 1
    intermediate_size: int = 512
    moe_intermediate_size: int = 64
    n_routed_experts: int = 24
    num_experts_per_tok: int = 4
    routed_scaling_factor: float = 2.827
    num_attention_heads: int = 4
    q_lora_rank: int = 96
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 48
    qk_rope_head_dim: int = 16
    v_head_dim: int = 48
    rms_norm_eps: float = 1e-5
    latent_norm_eps: float = 1e-6  # of q_a_layernorm and kv_a_layernorm; transformers' default, in no config key
    rope_theta: float = 50000.0
    yarn_factor: float = 8.0
    original_positions: int = 256
    positions: int = 2048
    beta_fast: float = 32.0
    beta_slow: float = 1.0


class Norm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
