"""Every recorded value, computed again from the tapped tensors and the weights in numpy's binary64."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_runs import IDS, Keeper, Recorded, record_steps

import formation
from formation.kernels import reference
from formation.kernels.reference_lanes import widen
from formation.model.linear import Modules
from formation.model.taps import Tap

PROMPT, LAYERS = 15, 4
STEPS = range(PROMPT - 1, len(IDS) - 1)
MOE = range(1, LAYERS)


@pytest.fixture(scope="module")
def run(k25_folder: Path) -> tuple[Recorded, dict[Any, Any]]:
    keepers: list[Keeper] = []

    def keep(probe: Any) -> Keeper:
        keepers.append(Keeper(probe))
        return keepers[0]

    return record_steps(k25_folder, PROMPT, wrap=keep, level="full", prompt_level="standard"), keepers[0].rows


@pytest.fixture(scope="module")
def lm_head(k25_folder: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """W [V, D], g [D], eps, all binary64"""
    with formation.Engine(formation.open(k25_folder), memory="24MiB") as engine:
        engine.prepare(4, 1)
        with engine._executor.stream.use(("head",)) as tensors:
            use = Modules(tensors, engine.model.prefix, 1)
            g = use.vector("model.norm.weight").astype(np.float64)
            return widen(use.matrix("lm_head")).astype(np.float64), g, engine.model.eps


def f64(rows: dict[Any, Any], tap: Tap, layer: int, position: int, expert: int = -1) -> np.ndarray:
    return rows[tap, layer, expert, position].astype(np.float64)


def decoded(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def cells() -> list[tuple[int, int]]:
    return [(layer, position) for layer in range(LAYERS) for position in range(len(IDS) - 1)]


def test_rows_of_every_cell(run: tuple[Recorded, dict[Any, Any]]) -> None:
    recorded, rows = run
    for layer, position in cells():
        values = recorded.at(position, f"layer {layer}")
        for tap, name in ((Tap.RESIDUAL, "residual"), (Tap.ATTENTION_WRITE, "attention_write"), (Tap.MLP_WRITE, "mlp_write"),
                          (Tap.CACHE_ENTRY, "cache_entry")):  # fmt: skip
            assert hashlib.sha256(rows[tap, layer, -1, position].tobytes()).hexdigest() == values[f"{name}_sha256"]
        a, u, m, after = (f64(rows, tap, layer, position) for tap in (Tap.ATTENTION_WRITE, Tap.AFTER_ATTENTION, Tap.MLP_WRITE, Tap.RESIDUAL))
        for row, name in ((a, "attention_write"), (u, "after_attention"), (m, "mlp_write"), (after, "residual")):
            assert np.linalg.norm(row) == pytest.approx(values[f"{name}_norm"], rel=1e-6)
        assert (np.abs(after).max(), np.abs(after).argmax()) == (values["residual_largest"], values["residual_largest_dimension"])
        assert [cosine(a, after), cosine(m, after)] == pytest.approx([values["attention_cosine"], values["mlp_cosine"]], rel=1e-12)
        projections = [a @ after / (after @ after), m @ after / (after @ after)]
        assert projections == pytest.approx([values["attention_projection"], values["mlp_projection"]], rel=1e-12)


def test_embeddings(run: tuple[Recorded, dict[Any, Any]]) -> None:
    recorded, rows = run
    for position in range(len(IDS) - 1):
        x, values = rows[Tap.EMBEDDING, -1, -1, position], recorded.at(position, "embed")
        assert hashlib.sha256(x.tobytes()).hexdigest() == values["residual_sha256"]
        assert np.linalg.norm(x.astype(np.float64)) == pytest.approx(values["residual_norm"], rel=1e-6)


def test_routing_of_every_cell_with_experts(run: tuple[Recorded, dict[Any, Any]]) -> None:
    recorded, rows = run
    for layer in MOE:
        bias = recorded.recorder.biases[layer]
        for position in range(len(IDS) - 1):
            values = recorded.at(position, f"layer {layer}")
            logits, scores, selection, chosen, gates = (
                rows[tap, layer, -1, position]
                for tap in (Tap.ROUTER_LOGITS, Tap.ROUTER_SCORES, Tap.ROUTER_SELECTION, Tap.CHOSEN, Tap.GATES)
            )
            order = sorted(range(24), key=lambda e, c=selection: (-c[e], e))
            assert sorted(order[:4]) == chosen.tolist() == values["chosen"]
            assert order[4:12] == values["runners_up"]
            assert gates.tobytes() == decoded(values["gates"]).tobytes()
            for name, whole in (("logits", logits), ("scores", scores), ("biases", bias), ("selection", selection)):
                assert whole[chosen].tobytes() == decoded(values[f"chosen_{name}"]).tobytes()
                assert whole[order[4:12]].tobytes() == decoded(values[f"runner_up_{name}"]).tobytes()
            assert (decoded(values["chosen_scores"]) + decoded(values["chosen_biases"])).tobytes() == selection[chosen].tobytes()
            assert hashlib.sha256(logits.tobytes()).hexdigest() == values["router_logits_sha256"]
            assert hashlib.sha256(selection.tobytes()).hexdigest() == values["router_selection_sha256"]


def test_experts_of_every_cell_that_has_them(run: tuple[Recorded, dict[Any, Any]]) -> None:
    recorded, rows = run
    for layer in MOE:
        for position in range(len(IDS) - 1):
            values, m = recorded.at(position, f"layer {layer}"), f64(rows, Tap.MLP_WRITE, layer, position)
            outputs = [f64(rows, Tap.EXPERT_OUTPUT, layer, position, e) for e in values["chosen"]]
            writes = [g * y for g, y in zip(decoded(values["gates"]).astype(np.float64), outputs, strict=True)]
            shared = f64(rows, Tap.EXPERT_OUTPUT, layer, position)
            assert [np.linalg.norm(y) for y in outputs] == pytest.approx(decoded(values["expert_output_norms"]).tolist(), rel=1e-6)
            assert [np.linalg.norm(w) for w in writes] == pytest.approx(decoded(values["expert_write_norms"]).tolist(), rel=1e-6)
            assert [cosine(w, m) for w in writes] == pytest.approx(values["expert_write_cosines"], abs=1e-7)
            assert np.linalg.norm(shared) == pytest.approx(values["shared_output_norm"], rel=1e-6)
            assert cosine(shared, m) == pytest.approx(values["shared_write_cosine"], rel=1e-12)


def test_attention_of_every_cell(run: tuple[Recorded, dict[Any, Any]]) -> None:
    recorded, rows = run
    for layer, position in cells():
        values = recorded.at(position, f"layer {layer}")
        weights = f64(rows, Tap.ATTENTION_WEIGHTS, layer, position)[:, : position + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            entropies = -np.nansum(weights * np.log(weights), axis=1)
        assert entropies.mean() == pytest.approx(values["attention_entropy"], abs=1e-12)
        places = [(h, p) for h in range(4) for p in range(position + 1)]
        strongest = sorted(places, key=lambda at, w=weights: (-w[at], at))
        assert [(*at, weights[at]) for at in strongest[:8]] == [tuple(r.values()) for r in values["attention_strongest"]]
        if position in STEPS:
            assert entropies.tolist() == pytest.approx(values["attention_entropies"], abs=1e-12)
            by_head = [(*at, weights[at]) for h in range(4) for at in [at for at in strongest if at[0] == h][:3]]
            assert by_head == [tuple(r.values()) for r in values["attention_strongest_by_head"]]


def test_heads_of_every_step(run: tuple[Recorded, dict[Any, Any]], lm_head: tuple[np.ndarray, np.ndarray, float]) -> None:
    recorded, rows = run
    for position, logits in zip(STEPS, recorded.logits, strict=True):
        values, z, y = recorded.at(position, "lm_head"), logits.astype(np.float64), IDS[position + 1]
        lse = z.max() + np.log(np.exp(z - z.max()).sum())
        p = np.exp(z - lse)
        assert [lse, p @ z, p @ z**2] == pytest.approx([values["log_sum_exp"], values["mean_logit"], values["mean_square_logit"]], rel=1e-12)
        top = sorted(range(len(z)), key=lambda i, z=z: (-z[i], i))[:20]
        assert top == values["top"]
        assert logits[top].tobytes() == decoded(values["top_logits"]).tobytes()
        assert (1 + (z > z[y]).sum(), (z >= z[y]).sum(), z[y]) == (values["rank_low"], values["rank_high"], values["chosen_logit"])
        assert hashlib.sha256(logits.tobytes()).hexdigest() == values["logits_sha256"]
        x = f64(rows, Tap.RESIDUAL, LAYERS - 1, position)
        assert np.sqrt((x**2).mean() + lm_head[2]) == pytest.approx(values["final_scale"], rel=1e-9)
        assert lm_head[0][y] @ (lm_head[1] * x) / values["final_scale"] == pytest.approx(values["exact_logit"], abs=1e-12)
        token = recorded.at(position, "token")
        assert (y, base64.b64encode(bytes([y % 256])).decode()) == (token["id"], token["bytes"])


def test_attribution_of_every_step(run: tuple[Recorded, dict[Any, Any]], lm_head: tuple[np.ndarray, np.ndarray, float]) -> None:
    recorded, rows = run
    unembedding, g, _ = lm_head
    for position, logits in zip(STEPS, recorded.logits, strict=True):
        y, r = IDS[position + 1], recorded.at(position, "lm_head")["final_scale"]
        runner_up = next(i for i in sorted(range(len(logits)), key=lambda i, z=logits: (-z[i], i)) if i != y)
        aims = {"": unembedding[y], "_centred": unembedding[y] - unembedding.mean(axis=0), "_runner_up": unembedding[y] - unembedding[runner_up]}
        x = f64(rows, Tap.EMBEDDING, -1, position)
        embed = recorded.at(position, "embed")
        for infix, w in aims.items():
            assert (w * g) @ x / r == pytest.approx(embed[f"dla{infix}"], abs=1e-12)
        for layer in range(LAYERS):
            values = recorded.at(position, f"layer {layer}")
            a, u, m, after = (f64(rows, t, layer, position) for t in (Tap.ATTENTION_WRITE, Tap.AFTER_ATTENTION, Tap.MLP_WRITE, Tap.RESIDUAL))
            parts = {"attention": a, "mlp": m, "attention_rounding": u - x - a, "mlp_rounding": after - u - m}
            if layer in MOE:
                gates = rows[Tap.GATES, layer, -1, position]
                outputs = [rows[Tap.EXPERT_OUTPUT, layer, e, position] for e in values["chosen"]]
                writes = np.stack([gate * output for gate, output in zip(gates, outputs, strict=True)]).astype(np.float64)
                shared = f64(rows, Tap.EXPERT_OUTPUT, layer, position)
                parts |= {"experts": writes.T, "shared": shared, "combination_rounding": m - writes.sum(axis=0) - shared}
            for infix, w in aims.items():
                for name, row in parts.items():
                    assert (w * g) @ row / r == pytest.approx(values[f"dla{infix}_{name}"], abs=1e-12), (infix, name)
            x = after


def test_contributions_add_up_to_the_logit_and_those_of_experts_to_the_write(run: tuple[Recorded, dict[Any, Any]]) -> None:
    recorded, _ = run
    for position, logits in zip(STEPS, recorded.logits, strict=True):
        terms = [recorded.at(position, "embed")["dla"]]
        for layer in range(LAYERS):
            values = recorded.at(position, f"layer {layer}")
            terms += [values[f"dla_{name}"] for name in ("attention", "attention_rounding", "mlp", "mlp_rounding")]
            if layer in MOE:
                inner = [*values["dla_experts"], values["dla_shared"], values["dla_combination_rounding"]]
                assert abs(sum(inner) - values["dla_mlp"]) <= 64 * 2.0**-53 * sum(map(abs, inner))
        exact = recorded.at(position, "lm_head")["exact_logit"]
        assert abs(sum(terms) - exact) <= 64 * 2.0**-53 * sum(map(abs, terms))
        assert exact == pytest.approx(float(logits[IDS[position + 1]]), abs=1e-5)


@pytest.mark.parametrize(("prefix", "tap"), [("lens", Tap.RESIDUAL), ("mid_lens", Tap.AFTER_ATTENTION)])
def test_lens_of_every_step(
    run: tuple[Recorded, dict[Any, Any]], lm_head: tuple[np.ndarray, np.ndarray, float], prefix: str, tap: Tap
) -> None:
    recorded, rows = run
    unembedding, g, eps = lm_head
    for position, logits in zip(STEPS, recorded.logits, strict=True):
        y, final = IDS[position + 1], logits.astype(np.float64)
        log_final = final - final.max() - np.log(np.exp(final - final.max()).sum())
        runner_up = next(i for i in sorted(range(len(logits)), key=lambda i, z=logits: (-z[i], i)) if i != y)
        for layer in range(LAYERS):
            values, row = recorded.at(position, f"layer {layer}"), rows[tap, layer, -1, position]
            normed = reference.rmsnorm(row[None], g.astype(np.float32), eps)[0]
            exact = unembedding @ normed.astype(np.float64)
            log_p = exact - exact.max() - np.log(np.exp(exact - exact.max()).sum())
            for name, token in (("", y), ("runner_up_", runner_up)):
                assert exact[token] == pytest.approx(values[f"{prefix}_{name}logit"], abs=1e-5)
                assert log_p[token] == pytest.approx(values[f"{prefix}_{name}logprob"], abs=1e-5)
                slack = (np.abs(exact - exact[token]) < 1e-5).sum() - 1
                assert abs(1 + (exact > exact[token]).sum() - values[f"{prefix}_{name}rank"]) <= slack
            top = values[f"{prefix}_top"]
            assert np.sort(exact)[::-1][:5].tolist() == pytest.approx(exact[top].tolist(), abs=1e-5)
            assert exact[top].tolist() == pytest.approx(decoded(values[f"{prefix}_top_logits"]).tolist(), abs=1e-5)
            assert -(np.exp(log_p) @ log_p) == pytest.approx(values[f"{prefix}_entropy"], abs=1e-5)
            assert np.exp(log_final) @ (log_final - log_p) == pytest.approx(values[f"{prefix}_kl"], abs=1e-5)


def test_the_lens_of_the_last_boundary_is_the_head(run: tuple[Recorded, dict[Any, Any]]) -> None:
    recorded, _ = run
    for position in STEPS:
        last, head = recorded.at(position, f"layer {LAYERS - 1}"), recorded.at(position, "lm_head")
        assert 0.0 == last["lens_kl"]
        assert (head["chosen_logit"], head["rank_low"], head["top"][:5]) == (last["lens_logit"], last["lens_rank"], last["lens_top"])
