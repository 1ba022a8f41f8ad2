"""What differs between the samples, and the choice of one on the command line."""

from __future__ import annotations

import argparse
import importlib
import pathlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from .vocabulary import Vocabulary, Wire

if TYPE_CHECKING:
    from torch import Tensor, nn

NAMES = ("kimi_k25", "qwen3_next")
SmallFiles = dict[str, dict[str, Any] | str]  # name -> JSON object or text


class Trained(Protocol):
    """What a sample's torch model offers beside `nn.Module`: ids [B,T] -> logits, or with targets -> the mean loss."""

    def is_matrix(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether Muon trains the parameter, and not AdamW."""
        ...

    def begin_step(self, done: float) -> None:
        """`done` is the share of all steps that lie behind, in this and in `end_step`."""
        ...

    def added_loss(self) -> Tensor | float:
        """What training adds to the loss of the batch just computed."""
        ...

    def end_step(self, done: float) -> None: ...

    def routing_line(self) -> str:
        """The state of the router, for the log."""
        ...

    def settle(self) -> None:
        """What is left to do after the last step."""
        ...

    def exported(self, parameter: Tensor) -> Tensor:
        """The parameter's values as the files hold them, F32."""
        ...

    def routing_facts(self, ids: Tensor) -> Iterator[str]:
        """What is known of the router on ids [B,T], a line each."""
        ...


@dataclass(frozen=True)
class Kind:
    """One sample: its vocabulary and its wire format, and on demand its model and its files. Making a corpus must not load torch, which
    replaces a function of the standard library by one without a docstring."""

    name: str
    wire: Wire
    shown: tuple[str, ...]  # the continuations that answers.json gets
    learn: Callable[[Iterable[str], pathlib.Path], None]  # from texts, into the folder of the data
    load: Callable[[pathlib.Path], Vocabulary]  # from that folder, or from the exported one
    rows: int  # of 256 tokens a step
    digits: tuple[int, int]  # of a shard's number and of their count, in its name

    def model(self) -> nn.Module:
        """As training begins; `Trained`."""
        return self._module("model").Sample()

    def shards(self, model: nn.Module) -> list[dict[str, Tensor]]:
        """The published tensors of each shard."""
        return self._module("layout").shards(model)

    def files(self, data: pathlib.Path) -> SmallFiles:
        """Everything in the folder but the shards, their index and the evaluation's files; the vocabulary comes from `data`."""
        return self._module("published").files(data)

    def reference(self, folder: pathlib.Path) -> nn.Module:
        """The exported folder as a model of transformers, F32."""
        return self._module("reference").load(folder)

    def _module(self, name: str) -> ModuleType:
        return importlib.import_module(f".{self.name}.{name}", __package__)


def by_name(name: str) -> Kind:
    kind: Kind = importlib.import_module(f".{name}", __package__).KIND
    return kind


def chosen(parser: argparse.ArgumentParser) -> tuple[Kind, argparse.Namespace]:
    """The arguments of the command line, and the sample they name."""
    parser.add_argument("--sample", choices=NAMES, default="kimi_k25", help="which of the two (default: the first)")
    arguments = parser.parse_args()
    return by_name(arguments.sample), arguments
