"""The published int4 format of the experts: symmetric, groups of 32 along the input, compressed-tensors `pack-quantized`."""

import torch
from torch import Tensor

GROUP = 32  # weights that share a scale


def quantise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [..., out, in] -> q int8 [..., out, in] in -8..7 and scale BF16 [..., out, in/32]."""
    groups = weight.unflatten(-1, (-1, GROUP))
    scale = (groups.abs().amax(-1) / 7.5).clamp_min(1e-8).bfloat16()
    q = (groups / scale.float().unsqueeze(-1)).round().clamp(-8, 7)
    return q.flatten(-2).to(torch.int8), scale


def dequantise(q: Tensor, scale: Tensor) -> Tensor:
    """q * scale, the product rounded to bfloat16, as F32 (rule 5 of the numerics contract)."""
    product = q.unflatten(-1, (-1, GROUP)).float() * scale.float().unsqueeze(-1)
    return product.bfloat16().float().flatten(-2)


def straight_through(weight: Tensor) -> Tensor:
    """The weight as it will be exported, with the gradient of the weight itself."""
    plain = weight.detach()
    return weight + (dequantise(*quantise(plain)) - plain)


def pack(q: Tensor) -> Tensor:
    """q [out, in] -> I32 [out, in/8]: eight nibbles of value + 8, the lowest first along the input."""
    nibbles = (q.long() + 8).unflatten(-1, (-1, 8))
    words = (nibbles << (4 * torch.arange(8))).sum(-1)
    return (words - ((words >> 31) << 32)).to(torch.int32)  # the top bit is the sign


def unpack(words: Tensor) -> Tensor:
    """The inverse of `pack`: I32 [out, in/8] -> int8 [out, in]."""
    return ((words.unsqueeze(-1) >> (4 * torch.arange(8))) & 15).flatten(-2).to(torch.int8) - 8
