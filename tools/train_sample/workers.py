"""Parts of a batch, side by side: each has its own thread of Python and its own copy of the model over the same parameters.

Threads that share one operation wait for each other at its end, hundreds of times a step; where other programs use the
processor too, that is most of the time. Workers wait once a step.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn


class Workers:
    """`model` itself is the first worker's; the copies share its storage, and keep gradients and counts of their own."""

    def __init__(self, model: nn.Module, count: int) -> None:
        self.models = [model, *(_sharing(model) for _ in range(count - 1))]
        self.pool = ThreadPoolExecutor(count) if count > 1 else None

    def gradients(self, ids: Tensor, targets: Tensor) -> float:
        """Puts the mean gradient of the parts into the first model's parameters; returns the mean loss."""
        if self.pool is None:
            return _backward(self.models[0], ids, targets, torch.get_num_threads())
        count, threads = len(self.models), [torch.get_num_threads()] * len(self.models)
        losses = list(self.pool.map(_backward, self.models, ids.chunk(count), targets.chunk(count), threads))
        for parameters in zip(*(model.parameters() for model in self.models), strict=True):
            parameters[0].grad = torch.stack([parameter.grad for parameter in parameters]).mean(0)
            for parameter in parameters[1:]:
                parameter.grad = None
        return sum(losses) / count


def _sharing(model: nn.Module) -> nn.Module:
    """A copy with the same storage"""
    other = copy.deepcopy(model)
    for mine, theirs in zip([*other.parameters(), *other.buffers()], [*model.parameters(), *model.buffers()], strict=True):
        mine.data = theirs.data
    return other


def _backward(model: nn.Module, ids: Tensor, targets: Tensor, threads: int) -> float:
    torch.set_num_threads(threads)  # of this thread of Python
    loss = model(ids, targets)
    (loss + model.added_loss()).backward()
    return float(loss.detach())
