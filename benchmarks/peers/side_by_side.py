"""Formation beside other programs that run a checkpoint larger than memory: the same bf16 checkpoint, the same ids, the same memory limit.

    python benchmarks/peers/side_by_side.py                              # about 10 GB in out/peers, limit 4 GiB, all peers
    python benchmarks/peers/side_by_side.py --layers 3 --experts 8 --limit 1GiB --peers formation,llama.cpp

Each program runs alone, in an environment of its own (out/peers/NAME/venv, made if it is missing), within a memory cgroup of --limit bytes, the page
cache dropped before. The checkpoint is of random weights in the layout of DeepSeek-V3 with smaller layers (tools/synthetic_checkpoint.py); the tokens
are given, so that all route alike. Second copies that a program writes are deleted after.

Parity comes first, on a small checkpoint of the same layers that have as many experts as a token chooses: so rounding cannot change a route, and what
differs is arithmetic. A program whose logits are off Formation's by more than OFF of their range there is not timed. Then, at the read-ahead that
the machine has and at 128 KiB (needs root): seconds and bytes from the disk of a token, medians over the given ids after the first. Here
bf16 programs take another expert now and then, where two scores are nearly one: "of range" and "best" say how far that goes.

raw: the disk's speed by Formation's reader, mean of before and after. predicted: how much longer the disk needs for what that program reads than for
what Formation does at the same read-ahead, (read / raw) over (read / raw). reached: seconds over seconds. copy: what it wrote of the checkpoint.
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
    "AirLLM": (["airllm_peer.py"], [TORCH, ["airllm==4.0.0", "transformers==5.23.0"]]),  # as pip chooses
    "AirLLM 4.57": (["airllm_peer.py"], [TORCH, ["airllm==4.0.0", "transformers==4.57.6"]]),
}
SMALL_LAYERS, SMALL_EXPERTS = 3, 8  # of the checkpoint on which parity is shown
OFF = 0.02  # of the range of the logits
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
    folder, small = checkpoint_of(args.out, args.layers, args.experts), checkpoint_of(args.out, SMALL_LAYERS, SMALL_EXPERTS)
    opened = formation.open(folder)
    model, limit = read_model(opened.config), parse_bytes(args.limit)
    sizes = stored_sizes(parts_of(model, opened.tensors), model.shape, opened.tensors)
    asked = asked_of(args, folder, model.shape.vocabulary, int(limit * SHARE))
    share = formation.open(small).total_bytes / opened.total_bytes
    asked_small = asked_of(args, small, model.shape.vocabulary, int(limit * SHARE * share))
    rows: list[dict[str, Any]] = []
    references: list[np.ndarray | None] = [None, None]
    for name in ["formation", *(peer for peer in args.peers.split(",") if peer != "formation")]:
        answer, logits = ran(args, name, asked_small, limit)
        delete_copies(args, name)
        references[0] = logits if references[0] is None else references[0]
        agreed = answer if "cannot" in answer else parity(references[0], logits)
        for read_ahead in read_aheads(folder):
            row = {"peer": name, "read_ahead_kb": read_ahead, "agreed": agreed}
            if agreed.get("largest_difference", 1.0) <= OFF:
                with read_ahead_of(folder, read_ahead):
                    answer, logits = timed(args, name, asked, limit)
                references[1] = logits if references[1] is None else references[1]
                row |= answer | parity(references[1], logits)
            rows.append(row | factors([*rows, row], row))
            print(line(rows[-1]), file=sys.stderr, flush=True)
        delete_copies(args, name)
    whole = {"bytes": opened.total_bytes, "floor": sizes.experts_per_token, "always": sizes.always, "layers": model.shape.layers}
    return {"checkpoint": whole, "limit": limit, "asked": asked, "rows": rows}


def asked_of(args: argparse.Namespace, folder: Path, vocabulary: int, weights_bytes: int) -> dict[str, Any]:
    ids = random.Random(5)
    return {
        "folder": str(folder.resolve()), "threads": args.threads, "weights_bytes": weights_bytes,
        "prompt": [ids.randrange(vocabulary) for _ in range(args.prompt)], "forced": [ids.randrange(vocabulary) for _ in range(args.tokens)],
    }  # fmt: skip


def timed(args: argparse.Namespace, name: str, asked: dict[str, Any], limit: int) -> tuple[dict[str, Any], np.ndarray | None]:
    """With the raw disk before and after"""
    opened = formation.open(asked["folder"])
    before = measure_read_speed(opened)
    drop_page_cache(opened)
    answer, logits = ran(args, name, asked, limit)
    return answer | {"raw": (before + measure_read_speed(opened)) / 2}, logits


def factors(rows: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, float]:
    """Over Formation's row at the same read-ahead; none where one of them has no steps"""
    ours = next((each for each in rows if each["read_ahead_kb"] == row["read_ahead_kb"] and "steps" in each), None)
    if ours is None or "steps" not in row:
        return {}
    (seconds, read), (our_seconds, our_read) = token(row), token(ours)
    return {"predicted": read / row["raw"] / (our_read / ours["raw"]), "reached": seconds / our_seconds}


def token(row: dict[str, Any]) -> tuple[float, float]:
    """Seconds and bytes of one, medians over all but the first"""
    steps = row["steps"][1:] or row["steps"]
    return median(step["seconds"] for step in steps), median(step["read_bytes"] for step in steps)


def checkpoint_of(out: Path, layers: int, experts: int) -> Path:
    folder = out / f"deepseek-{layers}x{experts}"
    if not folder.exists():
        text = k25_config(layers, experts)["text_config"]
        del text["quantization_config"], text["rope_scaling"]
        text |= {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 4096, "moe_intermediate_size": 1024,
                 "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 16384, "intermediate_size": 4096, "torch_dtype": "bfloat16",
                 "max_position_embeddings": 4096}  # fmt: skip
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        out.mkdir(parents=True, exist_ok=True)
        write_checkpoint(partial, text, progress=True).rename(folder)
    return folder


# ---- one program


def ran(args: argparse.Namespace, name: str, asked: dict[str, Any], limit: int) -> tuple[dict[str, Any], np.ndarray | None]:
    """What it answered, or why it could not; its logits"""
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
            said = next((line for line in reversed(program.stderr.splitlines()) if line.strip()), "")[-200:]
            return {"cannot": f"exit code {program.returncode}{' (killed: out of memory)' if program.returncode == -9 else ''}: {said}"}, None
        copied = sum(file.stat().st_size for copy in copies(work) for file in [copy, *copy.rglob("*")] if is_own(file))
        return json.loads(program.stdout.strip().rpartition("\n")[2]) | {"copied": copied}, np.load(work / "logits.npy")
    except (subprocess.SubprocessError, OSError) as error:
        return {"cannot": str(error)[-300:]}, None


def copies(work: Path) -> list[Path]:
    """Files and folders where the programs put what they write of a checkpoint"""
    return [*work.glob("*.gguf"), *work.glob("offloaded"), *work.glob("splitted_model*")]


def is_own(file: Path) -> bool:
    """Not a link to the checkpoint's"""
    return file.is_file() and not file.is_symlink() and file.stat().st_nlink == 1


def delete_copies(args: argparse.Namespace, name: str) -> None:
    for copy in copies(args.out / name.replace(" ", "-")):
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
    yield (
        f"{'program':<14}{'ahead KiB':>10}{'small: off':>12}{'best':>6}{'raw GB/s':>10}{'prompt s':>10}{'s/token':>9}{'read/token':>12}"
        f"{'predicted':>11}{'reached':>9}{'of range':>10}{'best':>6}{'copy':>10}"
    )
    yield from (line(row) for row in found["rows"])


def line(row: dict[str, Any]) -> str:
    head, agreed = f"{row['peer']:<14}{row['read_ahead_kb']:>10}", row["agreed"]
    if "cannot" in agreed:
        return f"{head}  cannot, parity: {agreed['cannot']}"
    head += f"{agreed['largest_difference']:>12.2g}{agreed['same_best']:>4}/{agreed['compared']}"
    if "raw" not in row:
        return f"{head}  not timed: expected at most {OFF} of the range"
    head += f"{row['raw'] / 1e9:>10.2f}"
    if "cannot" in row:
        return f"{head}  cannot: {row['cannot']}"
    seconds, read = token(row)
    told = f"{row['prompt']['seconds']:>10.2f}{seconds:>9.3f}{show_bytes(read):>12}{row['predicted']:>11.2f}{row['reached']:>9.2f}"
    return f"{head}{told}{row['largest_difference']:>10.2g}{row['same_best']:>4}/{row['compared']}{show_bytes(row['copied']):>10}"


if __name__ == "__main__":
    sys.exit(main())
