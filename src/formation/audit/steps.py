"""What is checked of every token, whatever else is drawn: its embedding, the head from the last row, the sampler's draw, the token's bytes; and
the lens of those of its cells that are computed again.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from math import inf

import numpy as np

from formation.audit.compare import Difference, Findings, Unopened, complete
from formation.audit.kept import KeptRows
from formation.audit.recorded import Ledger, Rows
from formation.errors import NonFiniteError
from formation.kernels.ops import F64
from formation.kernels.tensor import F32
from formation.ledger import canonical
from formation.ledger.fields import FORCED, GREEDY, NOT_A_STEP
from formation.probe import readout, step
from formation.probe.encode import Values
from formation.probe.head import ModelHead
from formation.run.sample import Sampler, method_of
from formation.run.sampled import sampled

EMBED_DLA = ("dla", "dla_centred", "dla_runner_up")
HEAD_DLA = ("exact_logit", "direction_norm", "direction_norm_centred", "direction_norm_runner_up")


class Steps:
    """`wanted`: position -> layers whose lens is checked; `checked` counts the steps that could be."""

    def __init__(
        self, ledger: Ledger, rows: Rows, kept: KeptRows, findings: Findings, sampler: Sampler, spelling: Callable[[int], bytes],
        wanted: Mapping[int, Sequence[int]],
    ) -> None:  # fmt: skip
        self._ledger, self._rows, self._kept, self._findings = ledger, rows, kept, findings
        self._sampler, self._spelling, self._wanted = sampler, spelling, wanted
        self._attributed = ledger.run.step_level != "minimal"
        self._last: tuple[int, F32, F32] | None = None
        self.checked = 0

    # ---- the target of attribution

    def aim(self, position: int, head: ModelHead, mean: F64) -> step.Target | None:
        """For the token that the ledger says; None, and a finding, if that or the step's last row cannot be had. `mean` is lm_head's mean row [D]."""
        try:
            token = int(self._ledger.line(position, "token")[1]["measured"]["id"])
            if not self._rows.committed:
                return self._claimed_aim(position, head, mean, token)
            logits, last = self._final(position, head)
            return step.target(head, token, readout.runner_up(logits, token), mean, readout.final_scale(last, head.eps))
        except Unopened as unopened:
            self._findings.add(unopened.difference)
        except NonFiniteError as error:
            self._findings.add(Difference(position, "lm_head", "values", "finite ones", str(error)))
        return None

    def _claimed_aim(self, position: int, head: ModelHead, mean: F64, token: int) -> step.Target:
        """With the runner-up and the scale that the ledger says, where no row gives them yet: `check` holds both against the weights"""
        measured = self._ledger.line(position, "lm_head")[1]["measured"]
        scale = float(measured["final_scale"])
        if not 0 < scale < inf:
            raise Unopened(Difference(position, "lm_head", "final_scale", "a number above 0", repr(scale)))
        return step.target(head, token, next((i for i in measured["top"] if i != token), None), mean, scale)

    def _final(self, position: int, head: ModelHead) -> tuple[F32, F32]:
        """The step's logits [V] and its last row [D]; those asked for last are remembered."""
        if self._last is None or self._last[0] != position:
            last = self._row(position, self._ledger.layers - 1)
            self._last = position, head.logits(last[None])[0], last
        return self._last[1:]

    # ---- embedding

    def check_embedding(self, position: int, x: F32, aim: step.Target | None) -> None:
        """x [D] is the embedding's row as the checkpoint has it."""
        place, line = self._ledger.line(position, "embed")
        known, is_step = readout.embed_values(x), position in self._ledger.steps
        if aim is not None:
            known |= step.embed_attribution(x, aim)
        elsewhere = EMBED_DLA if is_step and aim is None else ()
        self._findings.compare(place, line, complete(known, place, set() if is_step else {NOT_A_STEP}, elsewhere))

    # ---- head, sampler, token

    def check(self, position: int, head: ModelHead, aim: step.Target | None) -> None:
        """Everything of a step that its rows and the head give. What cannot be opened is a finding."""
        try:
            self._check(position, head, aim)
        except Unopened as unopened:
            self._findings.add(unopened.difference)
        except (NonFiniteError, canonical.CanonicalRefusal) as error:
            self._findings.add(Difference(position, "lm_head", "values", "finite ones", str(error)))
        else:
            self.checked += 1

    def _check(self, position: int, head: ModelHead, aim: step.Target | None) -> None:
        logits, last = self._final(position, head)
        token = self._check_choice(position, logits)
        self._check_head(position, logits, last, token, head, aim)
        layers = self._wanted.get(position, ()) if self._attributed else ()
        if layers:
            final = step.Final(logits, token, readout.runner_up(logits, token))
            self._check_lens("lens", position, layers, [self._row(position, layer) for layer in layers], final, head)
            if self._ledger.run.step_level == "full":
                middle = [self._computed("after_attention", position, layer) for layer in layers]
                self._check_lens("mid_lens", position, layers, middle, final, head)

    def _row(self, position: int, layer: int) -> F32:
        """x' of the layer: committed, or computed again where nothing is"""
        if self._rows.committed:
            return self._rows.residual(position, layer + 1)
        return self._computed("residual", position, layer)

    def _computed(self, name: str, position: int, layer: int) -> F32:
        row = self._kept.row(name, position, layer)
        if row is None:  # its cell could not be computed
            raise Unopened(Difference(position, f"layer {layer}", "cell", "a cell that can be computed", "none"))
        return row

    def _check_choice(self, position: int, logits: F32) -> int:
        """Sampler and token; the token that the line says"""
        choice = self._sampler.choose(logits, position + 1)
        place, line = self._ledger.line(position, "token")
        recorded = int(line["measured"]["id"])
        method = method_of(self._sampler, position + 1)
        self._findings.compare(place, line, {"id": choice.id, "bytes": base64.b64encode(self._spelling(choice.id)).decode("ascii")})
        place, line = self._ledger.line(position, "sampler")
        known = {"method": method, **sampled(self._sampler, choice, logits)}
        self._findings.compare(place, line, complete(known, place, {method} & {GREEDY, FORCED}))
        return recorded

    def _check_head(self, position: int, logits: F32, last: F32, token: int, head: ModelHead, aim: step.Target | None) -> None:
        place, line = self._ledger.line(position, "lm_head")
        known: Values = readout.head_values(logits, token, readout.final_scale(last, head.eps))
        elsewhere: tuple[str, ...] = ()
        if self._attributed and aim is not None:
            known |= step.head_attribution(last, aim)
        elif self._attributed:
            elsewhere = HEAD_DLA
        self._findings.compare(place, line, complete(known, place, set(), elsewhere))

    def _check_lens(self, prefix: str, position: int, layers: Sequence[int], rows: Sequence[F32], final: step.Final, head: ModelHead) -> None:
        logits = head.logits(np.stack(rows))  # [B, V]
        for layer, values in zip(layers, step.lens_values(prefix, logits, final, threads=head.threads), strict=True):
            place, line = self._ledger.line(position, f"layer {layer}")
            self._findings.compare(place, line, values)
