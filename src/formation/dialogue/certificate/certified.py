"""The certificate of a checkpoint as a document: the bounds, what was found beneath which states, and from which tensors."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from formation.dialogue.certificate import bounds
from formation.dialogue.certificate.attained import Attained, attained
from formation.dialogue.certificate.bounds import BYTES_OF_A_TOKEN, Certificate, Pairwise, certify, pairwise
from formation.dialogue.certificate.lm_head import LmHead, Passing
from formation.dialogue.named import check_id, read_named
from formation.errors import UsageError
from formation.kernels import golden
from formation.ledger import canonical
from formation.ledger.fields import absent
from formation.probe.encode import digest
from formation.run.identity import identify
from formation.text import Tokenizer
from formation.version import __version__
from formation.weights.checkpoint import Checkpoint

FORMAT = "formation-certificate/1"
STEPS = 4  # passes of the search for the least likely state, after its first
MOST_NAMED = 64
NO_TEXT = "no token of the tokenizer"
FIELDS = {
    "bound_nats": {"tag": "derived", "unit": "nats", "recompute": "weights", "formula": bounds.FORMULA_ALL},
    "pairwise_nats": {"tag": "derived", "unit": "nats", "recompute": "weights", "formula": bounds.FORMULA_PAIR},
    "found_nats": {"tag": "measured", "unit": "nats", "definition": "ln p in the least favourable last residual row that was looked for"},
    "state_sha256": {"tag": "measured", "unit": "", "definition": "of that row as little-endian binary32"},
    "radius": {"tag": "derived", "unit": "", "recompute": "weights", "formula": "sqrt(d) (1 + gamma(ceil((M + 1) / 2) + 5)), M = ceil(d / 16) + 3"},
    "logit_rounding": {"tag": "derived", "unit": "", "recompute": "weights", "formula": "gamma(M + 2), of R |w * g|"},
    "slack": {"tag": "derived", "unit": "", "recompute": "weights", "formula": "(d + V + 64) 2^-52, of a bound"},
    "largest_margin_nats": {"tag": "derived", "unit": "nats", "recompute": "weights", "formula": "max_j e_j"},
    "sha256": {"tag": "measured", "unit": "", "definition": "of the tensor's bytes, or of the canonical list of the checkpoint's files"},
}


@dataclass(frozen=True)
class Named:
    """A token with both bounds, and the state found for it. `name` is what was asked for, empty for the least certain one."""

    name: str
    token: int
    bound_nats: float
    pair: Pairwise
    found: Attained

    @property
    def floor_nats(self) -> float:
        """The better of the two bounds"""
        return max(self.bound_nats, self.pair.floor_nats)


@dataclass(frozen=True, eq=False)
class Certified:
    """What `examine` found; the first of `named` is the least certain token."""

    checkpoint: Checkpoint
    certificate: Certificate
    named: tuple[Named, ...]
    digests: dict[str, str]
    tokenizer: Tokenizer

    def spelt(self, token: int) -> bytes:
        """Empty for a row of lm_head that is no token"""
        return self.tokenizer.token_bytes(token) if token < self.tokenizer.rows else b""

    def text_floor_nats(self, name: str) -> float:
        """Of a text that was asked for: its tokens one after the other, each in whatever context"""
        return sum(each.floor_nats for each in self.named if each.name == name)


def ids_of(tokenizer: Tokenizer, words: Sequence[str]) -> list[tuple[str, int]]:
    """Each word, as named.py has it, with the ids that it names. Raises UsageError, PromptError."""
    named = {word: read_named(word) for word in words}
    found = [(word, token) for word, it in named.items() for token in ([it] if isinstance(it, int) else tokenizer.encode(it))]
    if len(found) > MOST_NAMED or len(set(named.values())) < len(words):
        raise UsageError(f"tokens: expected at most {MOST_NAMED} different ones, got {len(found)} in {len(words)} words")
    return found


def examine(
    checkpoint: Checkpoint, tokenizer: Tokenizer, asked: Sequence[tuple[str, int]] = (), *, memory: str | int | None = None,
    threads: int | None = None, steps: int = STEPS, progress: Passing | None = None,
) -> Certified:  # fmt: skip
    """Of all tokens, and of those that are `asked` for, each with a name: `ids_of` makes them. Raises what opening a model raises, UsageError,
    BudgetError, ReadError and NonFiniteError."""
    taken = tokenizer.rows * (BYTES_OF_A_TOKEN + (len(asked) + 1) * 12)
    with LmHead(checkpoint, memory=memory, threads=threads, taken=taken, progress=progress) as head:
        for _, token in asked:
            check_id(token, head.vocabulary)  # before anything is read
        found = certify(head)
        tokens = [("", found.least), *asked]
        pairs = pairwise(head, found, [token for _, token in tokens])
        states = attained(head, found, pairs, steps)
    named = (
        Named(name, token, found.floor_nats(token), pair, state)
        for (name, token), pair, state in zip(tokens, pairs, states, strict=True)
    )  # fmt: skip
    return Certified(checkpoint, found, tuple(named), head.digests, tokenizer)


# ---- as a document


def document(certified: Certified) -> dict[str, Any]:
    """Values, and under `fields` what each of them is: measured or derived, and from what. Nothing here is declared."""
    checkpoint, found = certified.checkpoint, certified.certificate
    identity, rounding = identify(checkpoint), found.rounding
    return {
        "format": FORMAT, "formation": __version__, "contract": golden.CONTRACT, "contract_digest": golden.CONTRACT_DIGEST,
        "checkpoint": {"sha256": identity.sha256, "tensor_table_root": identity.tensor_table_root, "model_type": checkpoint.config["model_type"]},
        "tensors": [tensor(checkpoint, name, sha256) for name, sha256 in sorted(certified.digests.items())],
        "vocabulary": rounding.vocabulary, "width": rounding.width,
        "bound_nats": canonical.number(found.floor_of_all_nats), "least": found.least,
        "rounding": {
            "radius": rounding.radius, "logit_rounding": rounding.logit, "slack": rounding.slack,
            "largest_margin_nats": canonical.number(float(found.margins.max())),
        },
        "tokens": [row(certified, each) for each in certified.named],
        "fields": FIELDS,
    }  # fmt: skip


def tensor(checkpoint: Checkpoint, name: str, sha256: str) -> dict[str, Any]:
    entry = checkpoint.tensors[name]
    return {"name": name, "dtype": entry.dtype, "shape": list(entry.shape), "sha256": sha256}


def row(certified: Certified, named: Named) -> dict[str, Any]:
    spelt = certified.spelt(named.token)
    numbers = {"bound_nats": named.bound_nats, "pairwise_nats": named.pair.floor_nats, "found_nats": named.found.logprob_nats}
    return {
        "asked": named.name, "id": named.token, "bytes": b64encode(spelt).decode() if spelt else absent(NO_TEXT), "farthest": named.pair.farthest,
        **{name: canonical.number(value) for name, value in numbers.items()}, "state_sha256": digest(named.found.state),
    }  # fmt: skip
