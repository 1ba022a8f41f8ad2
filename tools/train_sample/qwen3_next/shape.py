"""The sizes of the second sample."""

from dataclasses import dataclass

from .tokens import ROWS


@dataclass(frozen=True)
class Shape:
    """The sizes, under the names the published config uses."""

    vocab_size: int = ROWS
    hidden_size: int = 160
    num_hidden_layers: int = 4
    full_attention_interval: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 48
    partial_rotary_factor: float = 0.25
    rope_theta: float = 10000.0
    linear_num_key_heads: int = 2
    linear_num_value_heads: int = 4
    linear_key_head_dim: int = 32
    linear_value_head_dim: int = 32
    linear_conv_kernel_dim: int = 4
    num_experts: int = 24
    num_experts_per_tok: int = 4
    moe_intermediate_size: int = 32
    shared_expert_intermediate_size: int = 32
    router_aux_loss_coef: float = 0.02
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 2048

    @property
    def rotary(self) -> int:
        """Dimensions of a head that are rotated"""
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def layer_types(self) -> list[str]:
        every = self.full_attention_interval
        return ["linear_attention" if (layer + 1) % every else "full_attention" for layer in range(self.num_hidden_layers)]
