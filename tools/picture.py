"""Draw docs/picture.svg: which experts of the sample checkpoint formed each token of an answer. Made from a run, not by hand.

.venv/bin/python tools/picture.py
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

import formation
from formation.model.taps import Site, Tap
from formation.samples import folder
from formation.text import load_tokenizer
from formation.text.prompt import chat_prompt

QUESTION = "What does len do?"
CELL, GAP, LEFT, TOP = 9, 1, 130, 66
OUT = Path(__file__).parents[1] / "docs/picture.svg"


class Routes:
    """Keeps, per layer and position, the chosen experts and their gates."""

    def __init__(self) -> None:
        self.chosen: dict[tuple[int, int], np.ndarray] = {}
        self.gates: dict[tuple[int, int], np.ndarray] = {}

    def wants(self, tap: Tap) -> bool:
        return False

    def __call__(self, site: Site, positions: np.ndarray, values: np.ndarray) -> None:
        kept = {Tap.CHOSEN: self.chosen, Tap.GATES: self.gates}.get(site.tap)
        if kept is not None:
            kept.update({(site.layer, int(p)): v.copy() for p, v in zip(positions, values, strict=True)})


def main() -> None:
    checkpoint, routes = formation.open(folder("kimi_k25")), Routes()
    tokenizer = load_tokenizer(checkpoint.path, checkpoint.config)
    prompt = chat_prompt(checkpoint.path, tokenizer, QUESTION, thinking=False)
    with formation.Engine(checkpoint, memory="4MiB", probe=routes) as engine:
        steps = list(engine.generate(prompt.ids, 64, stop=prompt.stop))
        shape = engine.model.shape
    OUT.write_text(draw([(s.position - 1, tokenizer.decode([s.id])) for s in steps], routes, shape.expert_layers(), shape.experts))


def draw(tokens: list[tuple[int, str]], routes: Routes, layers: range, experts: int) -> str:
    """One row per token, one block of cells per layer; a cell's darkness is the expert's gate."""
    width = LEFT + len(layers) * (experts * CELL + 14)
    height = TOP + len(tokens) * (CELL + 7) + 16
    top = max(float(g.max()) for g in routes.gates.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="11" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="20" font-size="14" font-weight="600">Which experts formed each token of the answer to “{escape(QUESTION)}”</text>',
        '<text x="8" y="38">darkness: the gate, measured; one row per generated token, one column per routed expert</text>',
    ]
    for n, layer in enumerate(layers):
        parts.append(f'<text x="{LEFT + n * (experts * CELL + 14)}" y="{TOP - 8}">layer {layer}</text>')
    for row, (position, text) in enumerate(tokens):
        y = TOP + row * (CELL + 7)
        parts.append(f'<text x="{LEFT - 8}" y="{y + CELL}" text-anchor="end" font-family="monospace">{escape(repr(text)[1:-1])}</text>')
        for n, layer in enumerate(layers):
            x = LEFT + n * (experts * CELL + 14)
            parts.append(f'<rect x="{x}" y="{y}" width="{experts * CELL - GAP}" height="{CELL}" fill="#eef1f4"/>')
            for expert, gate in zip(routes.chosen[layer, position], routes.gates[layer, position], strict=True):
                shade = 0.25 + 0.75 * float(gate) / top
                place = f'x="{x + int(expert) * CELL}" y="{y}" width="{CELL - GAP}" height="{CELL}"'
                parts.append(f'<rect {place} fill="#08519c" opacity="{shade:.2f}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
