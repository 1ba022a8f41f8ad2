"""The tensors of the second sample under Qwen3-Next's names, and how they are spread over shards: all BF16."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from .model import Block, CentredNorm, Sample
from .shape import Shape

SHARD_BYTES = 1_300_000  # a shard ends before the tensor that would make it larger, wherever in a layer that is

Named = Iterator[tuple[str, Tensor]]
Tensors = dict[str, Tensor]


class Predictor(nn.Module):
    """The published multi-token-prediction block: one layer with full attention over the token ahead and the last residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * shape.hidden_size, shape.hidden_size, bias=False)
        self.layers = nn.ModuleList([Block(shape, "full_attention")])
        self.norm, self.pre_fc_norm_embedding, self.pre_fc_norm_hidden = (CentredNorm(shape.hidden_size, shape.rms_norm_eps) for _ in range(3))


def untrained_predictor(shape: Shape) -> Predictor:
    """As it starts, from a fixed seed: it is there to be skipped."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Predictor(shape)


def named_tensors(module: nn.Module) -> Named:
    """The parameters under the published names, the stacked experts one by one; BF16."""
    for name, parameter in module.named_parameters():
        place, _, last = name.rpartition(".")
        if last not in ("gate_up", "down"):
            yield name, parameter.detach().bfloat16()
            continue
        for e, expert in enumerate(parameter.detach().bfloat16()):
            matrices = {"gate_proj": expert[0], "up_proj": expert[1]} if last == "gate_up" else {"down_proj": expert}
            yield from ((f"{place}.experts.{e}.{matrix}.weight", tensor) for matrix, tensor in matrices.items())


def all_tensors(model: Sample) -> Named:
    """The text model's, then those of the block for several tokens ahead."""
    for name, tensor in named_tensors(model):
        yield (name if name.startswith("lm_head.") else f"model.{name}"), tensor
    for name, tensor in named_tensors(untrained_predictor(model.shape)):
        yield f"mtp.{name}", tensor


def cut(named: Iterable[tuple[str, Tensor]]) -> list[Tensors]:
    """Tensors in their order, in parts of at most SHARD_BYTES."""
    parts: list[Tensors] = [{}]
    for name, tensor in named:
        if sum(other.nbytes for other in parts[-1].values()) + tensor.nbytes > SHARD_BYTES:
            parts.append({})
        parts[-1][name] = tensor
    return parts


def shards(model: Sample) -> list[Tensors]:
    return cut(all_tensors(model))
