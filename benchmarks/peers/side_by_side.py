"""Formation beside other programs that run a checkpoint larger than memory: the same bf16 checkpoint, the same ids, the same memory limit.

    python benchmarks/peers/side_by_side.py                              # about 10 GB in out/peers, limit 4 GiB, all peers
    python benchmarks/peers/side_by_side.py --layers 3 --experts 8 --limit 1GiB --peers formation,llama.cpp

Each program runs alone, in an environment of its own (out/peers/NAME/venv, made if it is missing), within a memory cgroup of --limit bytes, the page
cache dropped before. The checkpoint is of random weights in the layout of DeepSeek-V3 with smaller layers (tools/synthetic_checkpoint.py); the tokens
are given, so that all route alike. Parity comes first: after each id the program's logits are held against Formation's (largest difference over their
range, and whether the largest logit is the same); bf16 programs differ in rounding. Then: seconds and bytes from the disk of a token, medians over
the given ids after the first, at the read-ahead that the machine has and at 128 KiB (needs root). Second copies that a program writes are
deleted after.

floor: bytes of the routed experts of one token, the least that a program without room for more can read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tools.synthetic_checkpoint import k25_config, write_checkpoint

import formation
from formation.model.architecture import parts_of
from formation.model.catalog import read_model
from formation.run.machine import parse_bytes, show_bytes
from formation.run.plan import stored_sizes
from formation.weights.speed import drop_page_cache, measure_read_speed

HERE = Path(__file__).resolve().parent
TORCH, TRANSFORMERS = ["torch==2.13.0"], ["transformers==5.23.0", "accelerate==1.15.0"]
PEERS: dict[str, tuple[list[str], list[list[str]]]] = {  # name: program, what pip is asked for, one call after the other
    "formation": (["formation_peer.py"], [[str(HERE.parent.parent)]]),
    "llama.cpp": (["llama_cpp_peer.py"], [["llama-cpp-python==0.3.36"], TORCH, [*TRANSFORMERS, "pyyaml", "requests", "tqdm", "sentencepiece"]]),
    "disk map": (["transformers_peer.py", "map"], [TORCH, TRANSFORMERS]),
    "disk offload": (["transformers_peer.py", "offload"], [TORCH, TRANSFORMERS]),
    "AirLLM": (["airllm_peer.py"], [TORCH, ["airllm"]]),
}
CGROUPS = Path("/sys/fs/cgroup/memory")  # version 1; with version 2 run the whole under a limit of your own
SHARE = 0.6  # of the limit for weights, where a program can be told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/peers"))
    parser.add_argument("--layers", type=int, default=13, help="one dense layer included (default 13)")
    parser.add_argument("--experts", type=int, default=32, help="of a layer (default 32)")
    parser.add_argument("--limit", default="4GiB", help="of each program's memory, page cache included (default 4GiB)")
    parser.add_argument("--prompt", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=int, default=900, help="after which a program is ended (default 900)")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--llama-source", type=Path, help="folder of llama.cpp's source, whose converter is used")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = compared(args)
    print(json.dumps(found, indent=1) if args.json else "\n".join(lines(found)))
    return 0


def compared(args: argparse.Namespace) -> dict[str, Any]:
    folder = checkpoint_of(args)
    opened = formation.open(folder)
    model = read_model(opened.config)
    sizes = stored_sizes(parts_of(model, opened.tensors), model.shape, opened.tensors)
    ids = random.Random(5)
    limit = parse_bytes(args.limit)
    asked = {
        "folder": str(folder.resolve()), "threads": args.threads, "weights_bytes": int(limit * SHARE),
        "prompt": [ids.randrange(model.shape.vocabulary) for _ in range(args.prompt)],
        "forced": [ids.randrange(model.shape.vocabulary) for _ in range(args.tokens)],
    }  # fmt: skip
    rows, reference = [], None
    for name in ["formation", *(peer for peer in args.peers.split(",") if peer != "formation")]:
        for read_ahead in read_aheads(folder):
            with read_ahead_of(folder, read_ahead):
                raw = measure_read_speed(opened)
                drop_page_cache(opened)
                answer, logits = ran(args, name, asked, limit)
            reference = logits if reference is None else reference
            rows.append({"peer": name, "read_ahead_kb": read_ahead, "raw": raw, **answer, **parity(reference, logits)})
            print(line(rows[-1]), file=sys.stderr, flush=True)
        delete_copies(args, name)
    whole = {"bytes": opened.total_bytes, "floor": sizes.experts_per_token, "always": sizes.always, "layers": model.shape.layers}
    return {"checkpoint": whole, "limit": limit, "asked": asked, "rows": rows}


def checkpoint_of(args: argparse.Namespace) -> Path:
    folder = args.out / f"deepseek-{args.layers}x{args.experts}"
    if not folder.exists():
        text = k25_config(args.layers, args.experts)["text_config"]
        del text["quantization_config"], text["rope_scaling"]
        text |= {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 4096, "moe_intermediate_size": 1024,
                 "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 16384, "intermediate_size": 4096, "torch_dtype": "bfloat16",
                 "max_position_embeddings": 4096}  # fmt: skip
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        args.out.mkdir(parents=True, exist_ok=True)
        write_checkpoint(partial, text, progress=True).rename(folder)
    return folder


# ---- one program


def ran(args: argparse.Namespace, name: str, asked: dict[str, Any], limit: int) -> tuple[dict[str, Any], np.ndarray | None]:
    """What it answered, or why it did not; its logits"""
    work = (args.out / name.replace(" ", "-")).resolve()
    (work / "logits.npy").unlink(missing_ok=True)
    try:
        python = environment(name, work)
        prepare(args, name, asked, work, python)
        with limited(limit) as join:
            words = [str(HERE / word) if word.endswith(".py") else word for word in PEERS[name][0]]
            given = json.dumps(asked | {"work": str(work)})
            program = subprocess.run(
                [python, *words], input=given, capture_output=True, text=True, timeout=args.seconds, preexec_fn=join, cwd=work
            )  # fmt: skip
        if program.returncode:
            said = program.stderr.strip().rpartition("\n")[2][-200:]
            return {"failed": f"exit code {program.returncode}{' (killed: out of memory)' if program.returncode == -9 else ''}: {said}"}, None
        return json.loads(program.stdout.strip().rpartition("\n")[2]), np.load(work / "logits.npy")
    except (subprocess.SubprocessError, OSError) as error:
        return {"failed": str(error)[-300:]}, None


def delete_copies(args: argparse.Namespace, name: str) -> None:
    """Of the checkpoint, that the program has written"""
    work = args.out / name.replace(" ", "-")
    for copy in (*work.glob("*.gguf"), *work.glob("offloaded"), *work.glob("splitted_model*")):
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink()


def environment(name: str, work: Path) -> str:
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
        for wanted in PEERS[name][1]:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True, stdout=sys.stderr)
    return str(python)


def prepare(args: argparse.Namespace, name: str, asked: dict[str, Any], work: Path, python: str) -> None:
    if name == "llama.cpp":
        if not (work / "model.gguf").exists():
            converter = [python, str(HERE / "convert_for_llama.py"), str(args.llama_source), asked["folder"], str(work / "model.gguf")]
            subprocess.run(converter, check=True, stdout=sys.stderr, stderr=subprocess.DEVNULL)
            subprocess.run(["sync"], check=True)
        with (work / "model.gguf").open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def limited(limit: int) -> Iterator[Any]:
    """Something that a child calls to be held to `limit` bytes; nothing, and said so, where there is no such cgroup"""
    group = CGROUPS / f"formation-peers-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as error:
        print(f"memory is NOT limited: {error}", file=sys.stderr)
        yield None
        return
    try:
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        with suppress(OSError):
            group.rmdir()


# ---- read-ahead


def device_of(folder: Path) -> Path:
    device = folder.stat().st_dev
    return Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/bdi/read_ahead_kb")


def read_aheads(folder: Path) -> list[int]:
    """The machine's own, and 128 if it is another and may be set"""
    path = device_of(folder)
    if not path.exists():
        return [0]
    own = int(path.read_text())
    return [own, 128] if own != 128 and os.access(path, os.W_OK) else [own]


@contextmanager
def read_ahead_of(folder: Path, kilobytes: int) -> Iterator[None]:
    path = device_of(folder)
    own = path.read_text() if path.exists() else ""
    if own and int(own) != kilobytes:
        path.write_text(str(kilobytes))
    try:
        yield
    finally:
        if own and int(own) != kilobytes:
            path.write_text(own)


# ---- the report


def parity(reference: np.ndarray | None, logits: np.ndarray | None) -> dict[str, Any]:
    if reference is None or logits is None:
        return {}
    spread = float(np.ptp(reference, axis=1).min())
    same = int((reference.argmax(axis=1) == logits.argmax(axis=1)).sum())
    return {"largest_difference": float(np.abs(reference - logits).max()) / spread, "same_best": same, "compared": len(logits)}


def lines(found: dict[str, Any]) -> Iterator[str]:
    whole = found["checkpoint"]
    size, floor, always = (show_bytes(whole[name]) for name in ("bytes", "floor", "always"))
    limit = show_bytes(found["limit"])
    yield f"{size} in {whole['layers']} layers, memory limit {limit}; experts of one token {floor}, needed by all {always}"
    yield f"{'program':<14}{'ahead KiB':>10}{'raw GB/s':>10}{'prompt s':>10}{'s/token':>9}{'read/token':>12}{'of range':>10}{'best':>7}"
    yield from (line(row) for row in found["rows"])


def line(row: dict[str, Any]) -> str:
    head = f"{row['peer']:<14}{row['read_ahead_kb']:>10}{row['raw'] / 1e9:>10.2f}"
    if "failed" in row:
        return f"{head}  failed: {row['failed']}"
    steps = row["steps"][1:] or row["steps"]
    seconds, read = (median(step[name] for step in steps) for name in ("seconds", "read_bytes"))
    told = f"{row['prompt']['seconds']:>10.2f}{seconds:>9.3f}{show_bytes(read):>12}"
    return f"{head}{told}{row['largest_difference']:>10.2g}{row['same_best']:>4}/{row['compared']}"


if __name__ == "__main__":
    sys.exit(main())
