"""Ten thousand positions of real text in each sample, every token at each of them: none is below its bound."""

from __future__ import annotations

import math

import numpy as np
import pytest

import formation
from formation.dialogue.certificate.bounds import certify
from formation.dialogue.certificate.lm_head import LmHead
from formation.kernels import readout
from formation.samples import NAMES, folder
from formation.text import load_tokenizer

POSITIONS, WINDOW = 10_000, 1000


@pytest.mark.parametrize("name", NAMES)
def test_no_real_position_is_below_the_bound(name: str) -> None:
    checkpoint = formation.open(folder(name))
    with LmHead(checkpoint, memory="16MiB", threads=2) as head:
        found = certify(head)
    text = "".join((folder(name) / file).read_text() for file in ("PYTHON-LICENSE.txt", "answers.json"))
    ids = load_tokenizer(checkpoint.path, checkpoint.config).encode(text)[:POSITIONS]
    assert POSITIONS == len(ids)
    least = np.full(found.rounding.vocabulary, np.inf, np.float32)
    with formation.Engine(checkpoint, memory="128MiB", threads=2) as engine:
        for first in range(0, POSITIONS, WINDOW):
            logits = engine.logits(ids[first : first + WINDOW])
            sums = readout.logit_statistics(logits, threads=2).log_sum_exp
            np.minimum(least, (logits - sums.astype(np.float32)[:, None]).min(axis=0), out=least)
    floors = np.array([found.floor_nats(token) for token in range(len(least))])
    assert (least >= floors).all()  # by tens of nats: what binary32 loses here is nothing beside it
    assert -50 < least.min() < -20 and math.exp(least.min()) > 0
