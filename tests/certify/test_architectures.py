"""A small bundle of every supported architecture is certified, with its checkpoint: what a model lacks is said, everything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audit.sealed_runs import sealed
from formation.certify import certify, on_ledger, on_norms, on_routing, on_values, suite
from formation.certify.on_weights import EVERY
from formation.evidence.keys import PrivateKey
from formation.ledger.fields import FIELDS
from formation.ledger.progress import Watch
from formation.model.catalog import ARCHITECTURES
from formation.run.order import Order
from small_models import flat_config, qwen3_config, qwen_config, small_checkpoint

OF_THE_MODEL = (on_ledger.GROUP, on_values.GROUP, on_routing.GROUP, on_norms.GROUP)  # the others are on files, of whatever model
CONFIGS: dict[str, Callable[..., dict[str, Any]]] = {"deepseek_v3": flat_config, "qwen3_next": qwen_config, "qwen3_moe": qwen3_config}
KEYS: dict[str, dict[str, Any]] = {"qwen3_next": {"full_attention_interval": 2}}
# attacks that have no object: in any of these runs, which are greedy, of few ids, and without writes among their rows; and in this model
SAMPLED = {f"derived value {field.name}" for field in FIELDS if (field.slot, field.tag) == ("sampler", "derived")} | {
    "draw of another generator", "draw outside its interval", "other filters", "scores of another temperature", "token more likely than its interval",
    "top masses rounded up", "truncated mass that is not the rest",
}  # fmt: skip
ALWAYS = SAMPLED | {"one id spelled twice", "write that was not added"}
UNBIASED = {"a billion experts", "another bias", "gates from selection", "router logit that gives no such score"}
NO_DELTA = {"lying state", "delta layer that remembers more than all", "shared gate beyond one"}
LACKS = {
    "deepseek_v3": NO_DELTA | {"a billion experts without biases", "scores of another total", "slots of one kind renamed"},
    "qwen3_next": UNBIASED | {"slots of one kind renamed"},
    "qwen3_moe": UNBIASED | NO_DELTA | {"slots renamed"},
}


def test_every_architecture_is_here() -> None:
    assert set(ARCHITECTURES.values()) == {ARCHITECTURES[name] for name in CONFIGS}
    assert CONFIGS.keys() == LACKS.keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bundle_of_it_is_certified(name: str, tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "ATTACKS", tuple(attack for group in OF_THE_MODEL for attack in group.attacks))
    checkpoint = small_checkpoint(tmp_path / "model", CONFIGS[name](num_hidden_layers=2, **KEYS.get(name, {})))
    bundle = sealed(checkpoint, tmp_path / "run.ofb", key, Watch("standard", "standard", "boundaries"), Order((5, 6, 7, 5), 2))
    found = certify(bundle, checkpoint=checkpoint, mutations=30, memory="24MiB", threads=2)
    assert ([], []) == ([f"{o.attack.name}: {o.observed}" for o in found.outcomes if o.state == suite.THROUGH], found.tally.failures)
    assert ALWAYS | LACKS[name] == {o.attack.name for o in found.outcomes if o.state == suite.NOT_APPLICABLE}
    assert found.passed and len(suite.ATTACKS) + len(EVERY) == len(found.outcomes)
