"""Two small sides: random checkpoints, as small as a mixture of experts gets, so that whole dialogues fit into a test."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from formation.dialogue.chain import Chain
from formation.dialogue.local import LocalSide, open_local
from formation.dialogue.side import Manner
from formation.run.generate import Engine
from formation.run.sample import Sample
from formation.weights.checkpoint import open_checkpoint
from small_models import qwen_config, small_checkpoint, small_config

KIMI = small_config(num_hidden_layers=2, n_routed_experts=4, num_experts_per_tok=2, max_position_embeddings=1024)
QWEN = qwen_config(num_hidden_layers=2, full_attention_interval=2, num_experts=4, num_experts_per_tok=2, max_position_embeddings=1024)


def two_checkpoints(folder: Path) -> tuple[Path, Path]:
    return small_checkpoint(folder / "kimi", KIMI, seed=1), small_checkpoint(folder / "qwen", QWEN, seed=2)


def a_side(name: str, checkpoint: Path, seed: int, **manner: Any) -> LocalSide:
    engine = Engine(open_checkpoint(checkpoint), memory="32MiB", threads=1)
    return open_local(name, engine, Manner(**{"chain": Chain(Sample(1.0, seed=seed)), "most_tokens": 4} | manner))


class StoppedClock:
    """So that two runs have the same transcripts"""

    def now(self) -> datetime:
        return datetime(2026, 1, 31, 23, 59, 59)

    def seconds(self) -> float:
        return 0.0
