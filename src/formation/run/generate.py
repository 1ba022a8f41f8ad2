"""The engine: a checkpoint under a memory budget, giving logits for ids, or tokens one step at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self
from weakref import WeakSet

from formation.errors import BudgetError, PromptError
from formation.kernels.tensor import F32, Tensor
from formation.model.catalog import read_model
from formation.model.linear import Modules
from formation.model.taps import Blind, Probe
from formation.run import machine
from formation.run.account import Reads
from formation.run.check import check_tensors
from formation.run.executor import HEAD_ROWS, Executor, Progress, Stretch
from formation.run.observe import Observe, together
from formation.run.past import Past
from formation.run.plan import Plan, make_plan, slot_sizes
from formation.run.sample import Choice, Greedy, Sampler
from formation.weights.checkpoint import Checkpoint
from formation.weights.policy import DEFAULT, policy_named
from formation.weights.stream import Unit, WeightStream

BIAS_BYTES = 1 << 24  # through which router biases are read, before a run


@dataclass(frozen=True)
class Step:
    """One forward computation and the token it formed. `position` is that of the token; the step itself ran at position - 1.

    `reads` and `seconds` are those of the pass, which was `shared_by` so many sequences.
    """

    id: int
    position: int
    logits: F32  # [vocabulary], of the step
    choice: Choice
    reads: Reads
    seconds: float
    shared_by: int = 1


@dataclass(frozen=True)
class Wanted:
    """One of several sequences that go on together: at most `tokens` after the prompt `ids`, ending after an id of `stop`."""

    ids: Sequence[int]
    tokens: int
    sampler: Sampler = field(default_factory=Greedy)
    stop: Collection[int] = ()
    probe: Probe = field(default_factory=Blind)
    past: Past | None = None  # what is known of it already, and of no other


class _Growing:
    """One of them on its way: `ids` so far, of which the caches hold `done`."""

    def __init__(self, wanted: Wanted, past: Past, capacity: int) -> None:
        self.wanted, self.past = wanted, past
        self.caches, self.ids = past.caches(capacity), list(wanted.ids)
        self.done = past.known(self.ids)
        self.over = not wanted.tokens

    def stretch(self, *, keep_cache: bool) -> Stretch:
        first = self.done if keep_cache else 0
        self.past.ids = []  # a pass that fails leaves nobody knows what
        return Stretch(self.ids[first:], first, self.caches, self.wanted.probe)

    def take(self, logits: F32) -> Choice:
        self.past.ids, self.done = list(self.ids), len(self.ids)
        choice = self.wanted.sampler.choose(logits, self.done)
        self.ids.append(choice.id)
        self.over = choice.id in self.wanted.stop or len(self.ids) >= len(self.wanted.ids) + self.wanted.tokens
        return choice


class Engine:
    """Runs one checkpoint. `memory` ("8GiB", bytes, or None for a safe share of what is free) bounds weights, caches and activations.

    `guess=False` reads no expert before a router has chosen it: see foresight.py. `policy` names who of the experts goes first when others need
    the room: see weights/policy.py.
    `keep_cache=False` recomputes the whole prefix at each step: the same bits, for those who want to see it.
    Who sets a `probe` that keeps much says in `probe_bytes` how much that is for a run of so many positions: the budget holds it too, and
    the head stays in use between two steps, so that looking at rows through it reads nothing again. `idle` is called whenever a pass would
    wait for weights, until it says that it has nothing to do: for work in small pieces that is not of the pass.
    The engine is not safe for use by several threads at once. Close it, or use it as a context manager.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, memory: str | int | None = None, threads: int | None = None, keep_cache: bool = True,
        reader_threads: int = 4, progress: Callable[[Progress], None] | None = None, probe: Probe | None = None, guess: bool = True,
        policy: str = DEFAULT,
    ) -> None:  # fmt: skip
        self.checkpoint = checkpoint
        self.model = read_model(checkpoint.config)
        self.budget = machine.default_budget_bytes() if memory is None else machine.parse_bytes(memory)
        self.threads = threads or machine.cores()
        self.keep_cache = keep_cache
        self.progress = progress
        self.probe = probe
        self.probe_bytes: Callable[[int], int] | None = None
        self.idle: Callable[[], bool] | None = None
        self._reader_threads = reader_threads
        self.guess = guess
        self._new_policy = policy_named(policy)
        parts = check_tensors(self.model, checkpoint)
        if guess:
            keys = [("router", layer) for layer in self.model.shape.expert_layers()]
            parts |= {key: self.model.part(key, checkpoint.tensors) for key in keys}
        self._units = [Unit(key, part.names) for key, part in parts.items()]
        self._sizes = slot_sizes(parts, self.model.shape, checkpoint.tensors)
        self._executor: Executor | None = None
        self._pasts: WeakSet[Past] = WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._executor:
            self._executor.stream.close()
            self._executor = None

    @property
    def advice(self) -> str | None:
        """What to know about how the weights are being read: None where direct reads work, and before the first pass."""
        return self._executor.stream.reader.advice if self._executor else None

    def past(self, room: int = 0) -> Past:
        """For `generate`: what the layers keep of a sequence that goes on. The budget holds it as long as somebody has it.

        `room` for so many positions is made at once, as far as an eighth of the budget goes: a past that grows later takes memory from the weights.
        """
        past = Past(self.model)
        while past.bytes_for(room) > self.budget // 8 and room:
            room //= 2
        if room:
            past.caches(room)
        self._pasts.add(past)
        return past

    def plan(self, positions: int, logit_rows: int = 1, past: Past | None = None, *, lengths: Sequence[int] = ()) -> Plan:
        """How `positions` positions would be run, their caches those of `past`; of several sequences their `lengths` too. Raises BudgetError when
        they cannot."""
        capture = self.probe_bytes(positions) if self.probe_bytes else 0
        others = sum(other.nbytes for other in self._pasts if other is not past)
        return make_plan(self.model, self._sizes, self.budget - others, positions, logit_rows, capture, lengths=lengths)

    def logits(self, ids: Sequence[int], *, observe: Observe | None = None) -> F32:
        """Logits of every position, in one layer-major pass                                      [T, vocabulary]

        `observe` hands copies of tensors on the way to callables: {"layer.3.router": f}, see run/observe.py for the names.
        """
        self.check_prompt(ids, 0)
        probe = together(self.probe, observe, self.model)
        executor = self.prepare(len(ids), len(ids))
        return executor.forward([Stretch(ids, 0, self._new_caches(len(ids)), probe)], rows=len(ids))

    def score(self, ids: Sequence[int], positions: Sequence[int]) -> Iterator[Step]:
        """The step at each of `positions`, ascending, whose token is the id after it: one layer-major pass over all but the last of `ids`, in which
        every part of the model is read once. What the pass read, and its time, are of the first step."""
        return (step for _, step in self.score_together([(ids, positions, together(self.probe, None, self.model))]))

    def score_together(self, texts: Sequence[tuple[Sequence[int], Sequence[int], Probe]]) -> Iterator[tuple[int, Step]]:
        """The same of several texts (ids, positions, probe) in one pass, one after the other: (number, step)."""
        for ids, _, _ in texts:
            self.check_prompt(ids[:-1], 0)
        lengths = [len(ids) - 1 for ids, _, _ in texts]
        executor = self.prepare(sum(lengths), min(sum(len(positions) for _, positions, _ in texts), HEAD_ROWS), lengths=lengths)
        executor.stream.idle = self.idle
        executor.reads.take()  # what came before belongs to other calls
        began = time.monotonic()
        parts = [Stretch(ids[:-1], 0, self._new_caches(len(ids) - 1), probe) for ids, _, probe in texts]
        steps = [(number, position) for number, (_, positions, _) in enumerate(texts) for position in positions]
        for (number, position), logits in zip(steps, executor.logits_at(parts, [positions for _, positions, _ in texts]), strict=True):
            token, seconds = texts[number][0][position + 1], time.monotonic() - began
            yield number, Step(token, position + 1, logits, Choice(token), executor.reads.take(), seconds, len(texts))
            began = time.monotonic()

    def generate(
        self, ids: Sequence[int], max_new_tokens: int, sampler: Sampler | None = None, *, stop: Collection[int] = (),
        observe: Observe | None = None, past: Past | None = None,
    ) -> Iterator[Step]:  # fmt: skip
        """Steps after the prompt `ids`, at most `max_new_tokens`, ending after an id of `stop`. The last token is never stepped.

        `observe` as in `logits`, in every pass: the prompt's, then one for each step. What `past` knows of the prompt is not computed again.
        """
        self.check_prompt(ids, max_new_tokens)
        probe = together(self.probe, observe, self.model)
        wanted = Wanted(ids, max_new_tokens, sampler or Greedy(), frozenset(stop), probe)
        return (step for _, step in self._rounds([wanted], past or Past(self.model)))

    def generate_together(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Step]]:
        """Steps of several sequences, (number, step), round by round: what a layer reads serves all that have not ended. Each sequence gets the bits
        that it would get alone. Raises BudgetError when they do not fit together."""
        for each in wanted:
            self.check_prompt(each.ids, each.tokens)
        return self._rounds(wanted)

    def _rounds(self, wanted: Sequence[Wanted], past: Past | None = None) -> Iterator[tuple[int, Step]]:
        lengths = [len(each.ids) + each.tokens - 1 for each in wanted]
        if past is not None:
            lengths = [self._capacity(lengths[0], past)]
        executor = self.prepare(sum(lengths), len(wanted), past, lengths=lengths)
        executor.stream.idle = self.idle
        growing = [_Growing(each, past or each.past or Past(self.model), length) for each, length in zip(wanted, lengths, strict=True)]
        executor.reads.take()  # what came before belongs to other calls
        while going := [(number, each) for number, each in enumerate(growing) if not each.over]:
            began = time.monotonic()
            with ExitStack() as held:
                parts = [each.stretch(keep_cache=self.keep_cache) for _, each in going]
                logits = executor.forward(parts, hold_head=held if self.probe_bytes else None)
                choices = [each.take(row) for (_, each), row in zip(going, logits, strict=True)]
                reads, seconds = executor.reads.take(), time.monotonic() - began
                for (number, each), choice, row in zip(going, choices, logits, strict=True):
                    yield number, Step(choice.id, each.done, row, choice, reads, seconds, len(going))

    @contextmanager
    def head(self) -> Iterator[Mapping[str, Tensor]]:
        """The final norm and lm_head as stored, for whoever looks at rows after a step; valid inside the block, once a pass has run."""
        if self._executor is None:
            raise RuntimeError("the engine has not run yet")
        with self._executor.stream.use(("head",)) as tensors:
            yield tensors

    @property
    def head_stays(self) -> bool:
        """Whether lm_head is kept in memory, so that whoever uses it takes no room from the next step."""
        return self._executor is not None and ("head",) in self._executor.resident

    def router_biases(self) -> dict[int, F32]:
        """{layer: what its router adds to the scores [E]}, read on their own; empty for a router without."""
        names = {layer: self.model.bias_name(layer) for layer in self.model.shape.expert_layers()}
        units = [Unit(("bias", layer), (name,)) for layer, name in names.items() if name]
        if not units:
            return {}
        found: dict[int, F32] = {}
        with WeightStream(self.checkpoint, units, BIAS_BYTES, threads=1) as stream:
            for layer, name in names.items():
                with stream.use(("bias", layer)) as tensors:
                    found[layer] = Modules(tensors, "", 1).vector(str(name))
        return found

    def _new_caches(self, positions: int) -> list[Any]:
        return [self.model.new_cache(layer, positions) for layer in range(self.model.shape.layers)]

    def _capacity(self, positions: int, past: Past) -> int:
        """Room for more than these positions, where the sequence grows and the budget holds it"""
        with suppress(BudgetError):
            return self.plan(past.roomy(positions), 1, past).positions
        return positions

    def prepare(self, positions: int, logit_rows: int, past: Past | None = None, *, lengths: Sequence[int] = ()) -> Executor:
        """The executor, with a weight stream small enough to leave room for this many positions. A pass prepares itself: this is for measuring."""
        plan = self.plan(positions, logit_rows, past, lengths=lengths)
        current = self._executor
        if current and current.stream.budget_bytes <= plan.stream_bytes:  # it leaves room enough, and its caches are warm
            current.chunk = plan.chunk
            return current
        self.close()
        stream = WeightStream(self.checkpoint, self._units, plan.stream_bytes, self._reader_threads, policy=self._new_policy())
        self._executor = Executor(self.model, stream, plan, threads=self.threads, progress=self.progress, guess=self.guess)
        return self._executor

    def check_prompt(self, ids: Sequence[int], new: int) -> None:
        """Raises PromptError for ids that this model cannot run, with `new` tokens after them."""
        shape = self.model.shape
        if not ids:
            raise PromptError("prompt: expected at least one token, got none")
        if new < 0:
            raise PromptError(f"tokens to generate: expected 0 or more, got {new}")
        for place, i in enumerate(ids):
            if not 0 <= i < shape.vocabulary:
                raise PromptError(f"prompt: expected ids from 0 to {shape.vocabulary - 1}, got {i} at place {place}")
        if len(ids) + max(new - 1, 0) > shape.context:  # the last token is never stepped
            raise PromptError(
                f"prompt: expected at most {shape.context} positions (max_position_embeddings), got {len(ids)} and {new} to generate",
                hint="shorten the prompt or ask for fewer tokens",
            )
