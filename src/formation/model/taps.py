"""Named points of the forward pass at which a tensor can be observed, and the check that keeps non-finite values out.

A probe is called with copies-to-be: it must copy what it keeps, because buffers are reused. It must not write into them.
Every tensor's first axis is the positions it is told about. In a pass over several sequences these are places: see sequences.py.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from formation.errors import NonFiniteError
from formation.kernels import ops
from formation.kernels.tensor import F32, I64


class Tap(StrEnum):
    EMBEDDING = "embedding"  # x_0: the row of the embedding table                                        [T, D]
    CACHE_ENTRY = "cache_entry"  # what attention keeps of a position: latent, rotated key; keys, values  [T, C+R]
    DELTA_BETA = "delta_beta"  # how much each head of a delta layer writes                               [T, H]
    DELTA_DECAY = "delta_decay"  # what is left of each head's state when it writes                       [T, H]
    DELTA_STATE = "delta_state"  # each head's state after a position; made only when wanted              [1, H, K, V]
    DELTA_TAIL = "delta_tail"  # the rows before the convolution that the next sees, oldest first; then   [1, taps-1, channels]
    ATTENTION_WEIGHTS = "attention_weights"  # softmax over keys 0..p, zero beyond; made only when wanted [T, H, keys]
    ATTENTION_WRITE = "attention_write"  # a_l                                                            [T, D]
    AFTER_ATTENTION = "after_attention"  # u_l = x_l + a_l                                                [T, D]
    ROUTER_LOGITS = "router_logits"  # [T, E]
    ROUTER_SCORES = "router_scores"  # sigmoid or softmax of the logits                                   [T, E]
    ROUTER_SELECTION = "router_selection"  # scores + bias: decides who is chosen                         [T, E]
    CHOSEN = "chosen"  # expert ids, ascending                                                            [T, K] int64
    GATES = "gates"  # weights of the chosen, in the same order                                           [T, K]
    SHARED_GATE = "shared_gate"  # weight of the shared expert's output, where it has one                 [rows]
    EXPERT_OUTPUT = "expert_output"  # one expert, before its gate; the shared expert is expert -1        [rows, D]
    MLP_WRITE = "mlp_write"  # m_l                                                                        [T, D]
    RESIDUAL = "residual"  # x_{l+1} = u_l + m_l                                                          [T, D]
    FINAL_NORM = "final_norm"  # [T, D]
    LOGITS = "logits"  # [T, vocabulary]


SEQUENCE = 1 << 40  # from a place to that of the same position in the next sequence


class Site(NamedTuple):
    """Where a tensor was tapped. `layer` is -1 outside the layers; `expert` is -1 except at EXPERT_OUTPUT of a routed one."""

    tap: Tap
    layer: int = -1
    expert: int = -1

    def __str__(self) -> str:
        layer = f" of layer {self.layer}" if self.layer >= 0 else ""
        return self.tap.replace("_", " ") + layer + (f", expert {self.expert}" if self.expert >= 0 else "")


class Probe(Protocol):
    """What a run shows its tensors to."""

    def wants(self, tap: Tap) -> bool: ...

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None: ...


class Blind:
    """The probe of a run without capture."""

    def wants(self, tap: Tap) -> bool:
        return False

    def __call__(self, site: Site, positions: I64, values: F32 | I64) -> None:
        pass


def require_finite(site: Site, positions: I64, values: F32) -> None:
    """Raise NonFiniteError that names the tap, layer and position at which `values` [T, …] first holds NaN or infinity."""
    where = ops.finite(values)
    if where is not None:
        number, position = divmod(int(positions[where // (values.size // len(positions))]), SEQUENCE)
        of = f" of sequence {number}" if number else ""
        raise NonFiniteError(f"expected finite values, got {values.reshape(-1)[where]} in {site} at position {position}{of}")
