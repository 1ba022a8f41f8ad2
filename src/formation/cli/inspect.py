"""Say what a checkpoint is, and plan a run of it: what stays in memory, bytes per token, predicted seconds.

Works on a folder that holds only config.json and the index: then sizes are those that the config implies.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from formation.cli.options import add_checkpoint, add_json, add_machine

if TYPE_CHECKING:
    from formation.model.architecture import Model
    from formation.run.plan import Parameters, Plan, Sizes
    from formation.weights.checkpoint import Checkpoint, Outline

HELP = "what a checkpoint is, and what running it will take"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--positions", type=int, default=1024, metavar="N", help="prompt and generated tokens together (default 1024)")
    parser.add_argument("--prompt-tokens", type=int, default=128, metavar="N", help="length of the prompt whose seconds are predicted (default 128)")
    parser.add_argument("--read-speed", type=float, metavar="GB/S", help="predict with this speed (default: measured on the checkpoint's disk)")
    add_machine(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from formation.errors import BudgetError

    facts, model, sizes, speed = examine(args)
    try:
        facts["plan"] = plan_facts(args, model, sizes, speed)
    except BudgetError as error:
        facts["plan"] = {"refused": str(error), "hint": error.hint}
    print(json.dumps(facts) if args.json else "\n".join(lines(facts)))
    return 0


def examine(args: argparse.Namespace) -> tuple[dict[str, Any], Model, Sizes, float | None]:
    """(what it is, its model, sizes by part, read speed in bytes per second or None)"""
    from formation.model.architecture import parts_of
    from formation.model.catalog import read_model
    from formation.run.check import check_tensors
    from formation.run.plan import count_parameters, measure_sizes, stored_sizes
    from formation.weights.checkpoint import Checkpoint
    from formation.weights.speed import measure_read_speed

    opened = _open(args.checkpoint)
    model = read_model(opened.config)
    speed = args.read_speed * 1e9 if args.read_speed else None
    if isinstance(opened, Checkpoint):
        parts = check_tensors(model, opened)
        sizes, speed = stored_sizes(parts, model.shape, opened.tensors), speed or measure_read_speed(opened)
    else:
        parts = parts_of(model, opened.files)
        sizes = measure_sizes(parts, model.shape)
    return _facts(opened, model, sizes, count_parameters(parts, model.shape)), model, sizes, speed


def _open(path: str) -> Checkpoint | Outline:
    from formation.errors import CheckpointError
    from formation.weights.checkpoint import open_checkpoint, open_plan_only

    try:
        return open_checkpoint(path)
    except CheckpointError:
        outline = open_plan_only(path)
        if any((outline.path / shard).exists() for shard in outline.shards):
            raise
        return outline


def _facts(opened: Checkpoint | Outline, model: Model, sizes: Sizes, parameters: Parameters) -> dict[str, Any]:
    from formation.run.machine import file_system
    from formation.run.plan import delta_layers
    from formation.weights.checkpoint import Checkpoint

    present = opened if isinstance(opened, Checkpoint) else None
    names = present.tensors if present else opened.files  # type: ignore[union-attr]
    shape, system = model.shape, file_system(opened.path)
    return {
        "path": str(opened.path),
        "weights_present": present is not None,
        "architecture": (opened.config.get("architectures") or ["unnamed"])[0],
        "model_type": opened.config["model_type"],
        "quantisation": model.quantisation.describe(),
        "parameters": {"total": parameters.total, "active_per_token": parameters.active},
        "shape": {
            "layers": shape.layers, "dense_layers": shape.dense_layers, "delta_layers": len(delta_layers(model)), "hidden": shape.hidden,
            "vocabulary": shape.vocabulary, "context": shape.context, "experts": shape.experts, "chosen": shape.chosen,
        },
        "shards": len(opened.shards),
        "tensors": len(names),
        "tensors_skipped": sum(model.skips(n) for n in names),
        "files_not_in_the_index": list(present.unlisted) if present else [],
        "bytes": {
            "declared_by_index_or_shards": opened.total_bytes, "text_model": sizes.total,
            "embedding": sizes.embedding, "lm_head_and_norm": sizes.head,
            "dense_layers": sum(sizes.layers[: shape.dense_layers]), "expert_layers_without_experts": sum(sizes.layers[shape.dense_layers :]),
            "routed_experts": sizes.expert_total, "one_expert": max(sizes.experts.values(), default=0),
            "needed_by_every_token": sizes.always, "experts_of_one_token": sizes.experts_per_token,
        },
        "file_system": {"kind": system.kind, "source": system.source},
    }  # fmt: skip


def plan_facts(args: argparse.Namespace, model: Model, sizes: Sizes, speed: float | None) -> dict[str, Any]:
    from formation.run import machine
    from formation.run.plan import make_plan

    budget = machine.parse_bytes(args.memory) if args.memory else machine.default_budget_bytes()
    plan = make_plan(model, sizes, budget, args.positions)
    prompt = plan.bytes_per_prompt(args.prompt_tokens, model.shape.experts)
    return {
        "budget_bytes": budget,
        "positions": args.positions,
        "attention_cache_bytes": plan.cache_bytes - plan.state_bytes,
        "delta_state_bytes": plan.state_bytes,
        "activation_bytes": plan.activation_bytes,
        "resident": _spans(plan),
        "resident_bytes": plan.resident_bytes,
        "transient_bytes": plan.transient_bytes,
        "expert_cache_bytes": plan.expert_cache_bytes,
        "bytes_per_token": plan.bytes_per_token,
        "prompt_tokens": args.prompt_tokens,
        "bytes_per_prompt": prompt,
        "read_speed_bytes_per_second": speed,
        "read_seconds_per_token": plan.bytes_per_token / speed if speed else None,
        "read_seconds_per_prompt": prompt / speed if speed else None,
    }


def _spans(plan: Plan) -> str:
    kept = [key[1] for key in plan.resident if key[0] == "layer"]
    layers = f"all {len(kept)} layers" if len(kept) == len(plan.sizes.layers) else f"{len(kept)} of {len(plan.sizes.layers)} layers"
    return layers + (" and lm_head" if ("head",) in plan.resident else ", not lm_head")


def lines(facts: dict[str, Any]) -> list[str]:
    from formation.run.machine import show_bytes

    b, p, s = facts["bytes"], facts["parameters"], facts["shape"]
    out = [
        f"{facts['architecture']} ({facts['model_type']}), {facts['path']}",
        f"  parameters      {p['total'] / 1e9:.4g} billion, {p['active_per_token'] / 1e9:.4g} billion active per token",
        f"  shape           {s['layers']} layers{_kinds(s)}, hidden {s['hidden']}, {s['experts']} experts, top-{s['chosen']}, "
        f"vocabulary {s['vocabulary']}, context {s['context']}",
        f"  quantisation    {facts['quantisation']}",
        f"  files           {facts['shards']} shards, {facts['tensors']} tensors, {facts['tensors_skipped']} of them not part of the text model; "
        + (
            f"{facts['file_system']['kind']} ({facts['file_system']['source']})"
            if facts["weights_present"]
            else "weights not here, sizes from the config"
        ),
        f"  routed experts  {show_bytes(b['routed_experts'])}, {show_bytes(b['one_expert'])} each",
        f"  always needed   {show_bytes(b['needed_by_every_token'])}: lm_head and norm {show_bytes(b['lm_head_and_norm'])}, "
        + (f"dense layers {show_bytes(b['dense_layers'])}, " if s["dense_layers"] else "")
        + f"the rest of the expert layers {show_bytes(b['expert_layers_without_experts'])}",
        f"  embedding       {show_bytes(b['embedding'])}, read by single rows",
    ]
    if facts["files_not_in_the_index"]:
        out.append(f"  not in the index: {', '.join(facts['files_not_in_the_index'])}")
    return out + _plan_lines(facts["plan"])


def _kinds(shape: dict[str, Any]) -> str:
    """Which layers are not the usual ones"""
    kinds = ((shape["dense_layers"], "dense"), (shape["delta_layers"], "gated delta nets"))
    said = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    return f" ({said})" if said else ""


def _plan_lines(plan: dict[str, Any]) -> list[str]:
    from formation.run.machine import show_bytes

    if "refused" in plan:
        return [f"plan: {plan['refused']}", f"  hint: {plan['hint']}"]
    speed = plan["read_speed_bytes_per_second"]
    token, prompt = plan["read_seconds_per_token"], plan["read_seconds_per_prompt"]
    return [
        f"plan for {plan['positions']} positions in {show_bytes(plan['budget_bytes'])}",
        f"  stays in memory {plan['resident']}, {show_bytes(plan['resident_bytes'])}; experts cached in {show_bytes(plan['expert_cache_bytes'])}",
        f"  set aside       attention cache {show_bytes(plan['attention_cache_bytes'])}, "
        + (f"states of delta layers {show_bytes(plan['delta_state_bytes'])} whatever the positions, " if plan["delta_state_bytes"] else "")
        + f"activations {show_bytes(plan['activation_bytes'])}, weights passing through {show_bytes(plan['transient_bytes'])}",
        f"  one token       reads {show_bytes(plan['bytes_per_token'])} when no expert is cached" + (f": {token:.3g} s" if token is not None else ""),
        f"  prompt of {plan['prompt_tokens']:<6}reads {show_bytes(plan['bytes_per_prompt'])} in one pass"
        + (f": {prompt:.3g} s" if prompt is not None else ""),
        f"  read speed      {speed / 1e9:.2f} GB/s; the seconds are those of reading alone"
        if speed
        else "  read speed      unknown without weights; give --read-speed",
    ]
