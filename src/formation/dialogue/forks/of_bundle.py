"""A recorded run, taken up again at one of its tokens. Each branch is a run of its own: recorded, sealed, its anchor naming its parent.

What the run itself had there is computed again in one pass, and must have the digests that its ledger has. A branch records all positions, those
before the fork too: its ledger is whole, and is verified and audited without its parent.
"""

from __future__ import annotations

import shutil
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from formation import recording
from formation.dialogue.chain import Chain
from formation.dialogue.forks.choices import Chosen
from formation.dialogue.forks.source import Base, Formed, Hear, HearEach, kind_of, method_of, redrawn
from formation.dialogue.forks.stem import MOST_TOGETHER
from formation.dialogue.measure import document, measure
from formation.dialogue.side import END_OF_TURN, MOST_TOKENS
from formation.errors import EvidenceError, UsageError
from formation.evidence.bundle import Bundle
from formation.evidence.keys import PrivateKey
from formation.evidence.seal import ATTESTATION, Seal, seal
from formation.kernels.tensor import F32
from formation.ledger import canonical, reader
from formation.ledger.anchor import Anchor, Fork
from formation.ledger.progress import Watch
from formation.ledger.start import read_start
from formation.ledger.store import sync_folder
from formation.probe.encode import digest
from formation.run.generate import Step
from formation.run.identity import Identity, check_same, identify
from formation.run.order import Order, order_of
from formation.run.sample import Choice, Greedy, Sample
from formation.text import Tokenizer, load_tokenizer
from formation.weights.checkpoint import Checkpoint

Tell = Callable[[str, int, F32, Choice], None]  # a run, the place of a token from 0, its logits, how it was chosen


@dataclass(frozen=True)
class Place:
    """Where branches are recorded, how much of them is kept, and who signs them."""

    out: Path
    watch: Watch
    means: recording.Means
    key: PrivateKey


@dataclass(eq=False)
class OfBundle:
    """Made by `open_bundle`."""

    checkpoint: Checkpoint
    identity: Identity
    anchor: Anchor
    chain: Chain
    tokenizer: Tokenizer
    place: Place
    ids: tuple[int, ...]  # before the fork
    context: int  # positions of the model
    base: Base
    logits: Sequence[F32]  # at the fork, and after the base's tokens

    @property
    def stop(self) -> tuple[int, ...]:
        return self.anchor.stop_ids

    @property
    def room(self) -> int:
        return max(0, self.context - len(self.ids) + 1)

    def root(self) -> F32:
        return self.logits[0]

    def follow(self, count: int, hear: Hear) -> None:
        for formed, logits in zip(self.base.tokens[:count], self.logits, strict=False):
            hear(formed, logits)

    def together(self, most: int) -> int:
        """Each is a recording"""
        order = Order(self.ids, most, self.chain.sampler, self.stop)
        with self.place.means.engine(self.checkpoint) as engine:
            return recording.fitting(engine, [order] * MOST_TOGETHER, self.place.watch)

    def grow(self, wanted: Sequence[tuple[Chosen, Chain]], most: int, hear: HearEach) -> list[dict[str, Any]]:
        orders = [self._order(chosen, chain, most) for chosen, chain in wanted]
        ids = [order.anchor(self.identity).run_id for order in orders]

        def tell(run_id: str, place: int, logits: F32, choice: Choice) -> None:
            for number, (chosen, chain) in enumerate(wanted):
                if ids[number] == run_id:
                    method = "forced" if place < len(chosen.ids) else method_of(chain)
                    hear(number, formed_of(chain, self.tokenizer, logits, choice, method, chosen), logits)

        runs = dict(zip(ids, orders, strict=True))  # two ways to choose the same are one run
        kept = {run_id for run_id in runs if (self._folder(run_id) / ATTESTATION).is_file()}
        made = {run_id: self._read_again(run_id, runs[run_id], tell) for run_id in runs if run_id in kept}
        if new := {run_id: order for run_id, order in runs.items() if run_id not in kept}:
            made |= self._record(new, tell)
        return [made[run_id] for run_id in ids]

    def _order(self, chosen: Chosen, chain: Chain, most: int) -> Order:
        return Order(self.ids, most, chain.sampler, self.stop, fork=Fork(self.anchor.run_id, self.base.token, chosen.ids))

    def _folder(self, run_id: str) -> Path:
        return self.place.out / f"{run_id[:16]}.ofb"

    def _record(self, runs: Mapping[str, Order], tell: Tell) -> dict[str, dict[str, Any]]:
        """What is to be said of each run, by its name. Until it is sealed its bundle is a draft: a sealed one is never written over."""
        folders = {run_id: self._folder(run_id) for run_id in runs}
        drafts = [folder.with_name(f".{folder.name}.draft") for folder in folders.values()]
        for unsealed in (*drafts, *folders.values()):
            shutil.rmtree(unsealed, ignore_errors=True)  # of a fork that was cut off
        names, heard = list(runs), dict.fromkeys(runs, 0)

        def on_each(run: int, step: Step) -> None:
            tell(names[run], heard[names[run]], step.logits, step.choice)
            heard[names[run]] += 1

        found = {}
        means = replace(self.place.means, on_each=on_each)
        for made in recording.begin_together(self.checkpoint, list(runs.values()), self.place.watch, drafts, means):
            sealed = seal(made.folder, self.place.key)
            made.folder.rename(folders[made.run_id])
            found[made.run_id] = said_of(folders[made.run_id], made.run_id, sealed)
        sync_folder(self.place.out)
        return found

    def _read_again(self, run_id: str, order: Order, tell: Tell) -> dict[str, Any]:
        """Of a run that is sealed already, by a branch before or by a fork that was cut off: the same, from one pass that records nothing. Raises
        EvidenceError for a bundle that is not this run's or does not come out as its ledger has it, Refused for one that another key sealed."""
        folder = self._folder(run_id)
        bundle = Bundle(folder)
        if bundle.run_id != run_id:
            raise EvidenceError(f"{folder}: expected the bundle of run {run_id}, got one of {bundle.run_id}")
        sealed = seal(folder, self.place.key)  # again: the same bytes, or refused
        ids = [*order.prompt_ids, *(token.id for token in bundle.tokens)]
        with self.place.means.engine(self.checkpoint) as engine:
            for place, step in enumerate(as_recorded(folder, engine.score(ids, range(len(order.prompt_ids) - 1, len(ids) - 1)))):
                tell(run_id, place, step.logits, chosen_again(order, step))
        return said_of(folder, run_id, sealed)


def said_of(folder: Path, run_id: str, sealed: Seal) -> dict[str, Any]:
    return {"bundle": folder.name, "run_id": run_id, "root": sealed.head.root.hex()}


def formed_of(chain: Chain, tokenizer: Tokenizer, logits: F32, choice: Choice, method: str, chosen: Chosen | None = None) -> Formed:
    measured = document(measure(chain, logits, choice, method))
    return Formed(choice.id, b64encode(tokenizer.token_bytes(choice.id)).decode(), kind_of(method, chosen), measured)


@contextmanager
def open_bundle(
    folder: Path, token: int, checkpoint: Checkpoint, place: Place, most: int, *, settings: Mapping[str, Any] | None = None
) -> Iterator[OfBundle]:  # fmt: skip
    """`most` tokens of the base are looked at. Raises what reading and opening raise, EvidenceError for a checkpoint that is not the run's or does
    not give its bits, UsageError for a token that it has not."""
    start = read_start(folder)
    anchor, identity, bundle = start.anchor, identify(checkpoint), Bundle(folder)
    check_same(anchor, identity, start.listed_files())
    if anchor.scores or not bundle.complete:
        got = "one that scores a text" if anchor.scores else "one that was cut off"
        raise UsageError(f"{folder}: expected a run that generates and is complete, got {got}")
    said = [each.id for each in bundle.tokens]
    if not 1 <= token <= (last := len(said) + (said[-1] not in anchor.stop_ids)):
        raise UsageError(f"--at: expected a token from 1 to {last} of this run, got {token}")
    order = order_of(anchor)
    assert isinstance(order.sampler, Greedy | Sample)
    recorded = Chain(order.sampler)
    ids, own = (*anchor.prompt_ids, *said[: token - 1]), said[token - 1 :][:most]
    tokenizer = load_tokenizer(checkpoint.path, checkpoint.config)
    with place.means.engine(checkpoint) as engine:
        place = replace(place, means=replace(place.means, memory=engine.budget))  # one budget, of which `together` is said
        context = engine.model.shape.context
        scored = engine.score([*ids, *own], range(len(ids) - 1, len(ids) + len(own) - 1)) if own else None
        steps = list(engine.generate(ids, 1) if scored is None else as_recorded(folder, scored))
    tokens = tuple(again(order, recorded, tokenizer, step) for step in steps) if own else ()
    ended = END_OF_TURN if said[-1] in anchor.stop_ids else MOST_TOKENS
    before = tokenizer.decode_bytes(said[: token - 1])
    base = Base({"kind": "run", "run_id": anchor.run_id}, ("run",), 0, 1, token, before, tokens, ended)
    chain = Chain(redrawn(order.sampler, settings or {}))
    yield OfBundle(checkpoint, identity, anchor, chain, tokenizer, place, ids, context, base, [step.logits for step in steps])


def again(order: Order, chain: Chain, tokenizer: Tokenizer, step: Step) -> Formed:
    """The base's token with its draw. Raises EvidenceError where the run's sampler does not choose it."""
    given = order.kind(step.position - 1) == "forced"
    return formed_of(chain, tokenizer, step.logits, chosen_again(order, step), "forced" if given else method_of(chain))


def chosen_again(order: Order, step: Step) -> Choice:
    """Raises EvidenceError where the run's sampler does not choose the token that was said."""
    choice = order.chooser.choose(step.logits, step.position)
    if choice.id != step.id:
        raise EvidenceError(f"token at position {step.position}: expected {step.id}, as the ledger has it, got {choice.id}")
    return choice


def as_recorded(folder: Path, steps: Iterable[Step]) -> Iterator[Step]:
    """The steps, each after its logits were held against the ledger's. Raises EvidenceError."""
    lines = (canonical.decode(data, limits=canonical.LINE) for data in reader.lines(folder))
    known = {line["position"]: line["measured"]["logits_sha256"] for line in lines if line["slot"] == "lm_head"}
    for step in steps:
        due, found = known.get(step.position - 1, "none"), digest(step.logits)
        if found != due:
            raise EvidenceError(f"position {step.position - 1}: expected logits with digest {due}, as the ledger has them, got {found}")
        yield step
