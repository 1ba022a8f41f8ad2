"""Arguments that several commands share, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

POLICY_NAMES = ("fading", "lru", "lfu", "segmented")  # of weights/policy.py, which --help does not wait for

if TYPE_CHECKING:
    from formation.run.sample import Sampler
    from formation.weights.checkpoint import Checkpoint


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CKPT", help="folder with config.json, safetensors shards and tokenizer files")


def add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--memory", metavar="SIZE", help="budget for weights, caches and activations, such as 8GiB (default: 70 %% of what is free)")
    parser.add_argument("--threads", type=_count, metavar="N", help="threads that compute (default: all cores)")


def add_experts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-guess", action="store_true", help="read no expert before a router has chosen it: fewer bytes, the same bits")
    words = "which experts stay in memory: the same bits (default: fading; `formation bench --replay` compares them)"
    parser.add_argument("--policy", choices=POLICY_NAMES, default=POLICY_NAMES[0], help=words)


def add_streaming(parser: argparse.ArgumentParser) -> None:
    """The machine, and where else the weights are"""
    add_machine(parser)
    words = "another folder with shards of the checkpoint, on another disk or mount: read side by side; may be given again"
    parser.add_argument("--mirror", action="append", default=[], metavar="DIR", help=words)


def read_checkpoint(args: argparse.Namespace) -> Checkpoint:
    """With its mirrors. Raises CheckpointError, HeaderError, ReadError."""
    from formation.weights.mirror import open_mirrored

    return open_mirrored(args.checkpoint, args.mirror)


def read_checkpoints(args: argparse.Namespace, places: Sequence[str]) -> list[Checkpoint]:
    """Of a command that takes several, each with those of the mirrors that are its own. Raises as `read_checkpoint`."""
    from formation.weights.mirror import open_several

    return open_several(places, args.mirror)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def add_sampler(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("choice of tokens", "greedy, unless a temperature is given")
    group.add_argument("--temperature", type=float, default=0.0, metavar="T", help="above 0: sample (default 0: greedy)")
    group.add_argument("--top-k", type=int, default=0, metavar="K", help="keep the K most probable (default 0: all)")
    group.add_argument("--top-p", type=float, default=1.0, metavar="P", help="keep the fewest that reach P together (default 1)")
    group.add_argument("--min-p", type=float, default=0.0, metavar="P", help="keep those at least P times as probable as the best (default 0)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the counter-based generator (default 0)")


def gives_sampler(args: argparse.Namespace) -> bool:
    return (args.temperature, args.top_k, args.top_p, args.min_p, args.seed) != (0.0, 0, 1.0, 0.0, 0)


def read_sampler(args: argparse.Namespace) -> Sampler:
    from formation.errors import UsageError
    from formation.run.sample import Greedy, Sample

    if args.temperature == 0.0:
        if (args.top_k, args.top_p, args.min_p, args.seed) != (0, 1.0, 0.0, 0):
            raise UsageError("sampling: expected --temperature with --top-k, --top-p, --min-p or --seed, got none", hint="add --temperature 1")
        return Greedy()
    return Sample(args.temperature, args.top_k, args.top_p, args.min_p, args.seed)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1024, got {text!r}")
    return int(text)
