"""A step whose token is not known yet, and what becomes of it when it is."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from formation.errors import RuleBroken
from formation.kernels import ops
from formation.kernels.ops import F64
from formation.kernels.tensor import F32
from formation.ledger.fields import FORCED, GREEDY
from formation.probe import readout, step
from formation.probe.encode import Observation, Values, complete, number
from formation.probe.head import Head
from formation.probe.layer import HINT
from formation.probe.step import Final, StepLayer


@dataclass(frozen=True)
class Token:
    """The token a step formed. kind: generated, scored or forced; method: greedy, sample or forced; `draw` goes with sample."""

    id: int
    spelling: bytes
    kind: str
    method: str
    draw: ops.Draw | None = None


class PendingStep:
    """Rows of the step at `position`, and what was measured of them: slot -> measured, derived so far."""

    def __init__(self, position: int, x: F32, measured: Values) -> None:
        self.position = position
        self.x = x  # x_0 [D]
        self.layers: list[StepLayer] = []
        self.values: dict[str, tuple[Values, Values]] = {"embed": (measured, {})}

    def add(self, layer: StepLayer, measured: Values, derived: Values) -> None:
        self.values[f"layer {len(self.layers)}"] = measured, derived
        self.layers.append(layer)

    def finish(self, token: Token, logits: F32, head: Head, level: str, mean: F64 | None) -> None:
        """Adds lm_head, sampler and token, and above the minimal level (where `mean` [D] is lm_head's mean row) attribution and lens."""
        final = Final(np.array(logits, np.float32), token.id, readout.runner_up(logits, token.id))
        scale = readout.final_scale(self.layers[-1].after, head.eps)
        self.values["lm_head"] = readout.head_values(final.logits, token.id, scale), {}
        if mean is not None and level != "minimal":
            self._attribute(step.target(head, final.token, final.runner_up, mean, scale))
            self._look_through_lens(final, head, full=level == "full")
        self.values["sampler"] = sampler_values(token), {}
        self.values["token"] = {"id": token.id, "bytes": base64.b64encode(token.spelling).decode("ascii")}, {}

    def _attribute(self, aim: step.Target) -> None:
        self.values["embed"][1].update(step.embed_attribution(self.x, aim))
        x = self.x
        for place, layer in enumerate(self.layers):
            self.values[f"layer {place}"][1].update(step.layer_attribution(x, layer, aim))
            x = layer.after
        self.values["lm_head"][1]["exact_logit"] = number(aim.shares(x[None])[""][0])

    def _look_through_lens(self, final: Final, head: Head, *, full: bool) -> None:
        """One [L, V] of logits at a time"""
        logits = head.logits(np.stack([layer.after for layer in self.layers]))
        if logits[-1].tobytes() != final.logits.tobytes():
            raise RuleBroken(f"lm_head at position {self.position}: expected the engine's logits from the last row, got others", hint=HINT)
        self._add(step.lens_values("lens", logits, final, threads=head.threads))
        if full:
            del logits
            logits = head.logits(np.stack([layer.u for layer in self.layers]))
            self._add(step.lens_values("mid_lens", logits, final, threads=head.threads))

    def _add(self, found: list[Values]) -> None:
        for place, values in enumerate(found):
            self.values[f"layer {place}"][1].update(values)

    def observation(self, slot: str, token: Token, level: str, reasons: set[str]) -> Observation:
        """One line; `reasons` for which values of a layer may be absent"""
        measured, derived = self.values[slot]
        kind, reasons = slot.partition(" ")[0], reasons | ({token.method} & {GREEDY, FORCED})
        return Observation(
            position=self.position, slot=slot, kind=token.kind,
            measured=complete(measured, kind, level, "measured", reasons), derived=complete(derived, kind, level, "derived", reasons),
        )  # fmt: skip


def sampler_values(token: Token) -> Values:
    if token.draw is None:
        return {"method": token.method}
    draw = token.draw
    return {
        "method": token.method, "draw": number(draw.draw), "low": number(draw.low), "high": number(draw.high),
        "kept": draw.kept, "kept_mass": number(draw.kept_mass),
    }  # fmt: skip
