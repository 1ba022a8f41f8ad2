"""The commands as a user types them: what they print, and that --json says the same to a program."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tools.synthetic_checkpoint import k25_config, qwen3_next_config, shards_of

import formation
from formation.cli.main import build_parser, main
from formation.cli.speech import harmless
from formation.model.catalog import read_model


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    assert main([str(a) for a in arguments]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_generate_says_in_json_what_the_engine_computes(capsys: pytest.CaptureFixture[str], k25_folder: Path) -> None:
    out, _ = run(capsys, "generate", k25_folder, "--ids", "1,2,3", "--tokens", "3", "--memory", "16MiB", "--no-stop", "--json")
    told = json.loads(out)
    with formation.Engine(formation.open(k25_folder), memory="16MiB") as engine:
        steps = list(engine.generate([1, 2, 3], 3))
    assert told["ids"] == [s.id for s in steps]
    assert [s["logits_sha256"] for s in told["steps"]] == [hashlib.sha256(s.logits.tobytes()).hexdigest() for s in steps]
    assert [np.float32(s["logit"]) for s in told["steps"]] == [s.logits[s.id] for s in steps]
    assert told["disk_bytes"] == sum(s["disk_bytes"] for s in told["steps"]) > 0
    assert told["contract"] == "f32x16/1"


def test_generate_gives_the_same_digests_without_a_cache_and_with_other_threads(capsys: pytest.CaptureFixture[str], k25_folder: Path) -> None:
    def digests(*options: str) -> list[str]:
        out, _ = run(capsys, "generate", k25_folder, "--chat", "Hi", "--tokens", "4", "--memory", "16MiB", "--json", *options)
        return [s["logits_sha256"] for s in json.loads(out)["steps"]]

    assert digests() == digests("--no-kv-cache") == digests("--threads", "1")


def test_text_goes_to_stdout_and_speech_to_stderr(capsys: pytest.CaptureFixture[str], k25_folder: Path) -> None:
    out, err = run(capsys, "generate", k25_folder, "--prompt", "abc", "--tokens", "3", "--no-stop")
    assert len(out) > 1
    assert "GB/s" in err
    assert "GB/s" not in out


def test_a_prompt_can_come_from_standard_input(k25_folder: Path) -> None:
    command = [sys.executable, "-m", "formation.cli.main", "generate", str(k25_folder), "--tokens", "2", "--json", "--prompt"]
    piped = subprocess.run([*command, "-"], input="abc", capture_output=True, text=True, check=True)
    given = subprocess.run([*command, "abc"], capture_output=True, text=True, check=True)
    assert json.loads(piped.stdout)["ids"] == json.loads(given.stdout)["ids"]


def test_inspect_describes_and_plans(capsys: pytest.CaptureFixture[str], k25_folder: Path) -> None:
    out, _ = run(capsys, "inspect", k25_folder, "--memory", "16MiB", "--positions", "64", "--prompt-tokens", "8")
    for said in ("kimi_k25", "int4, groups of 32", "24 experts, top-4", "5 shards", "GB/s", "one token", "prompt of 8"):
        assert said in out


def test_inspect_counts_what_lies_in_the_shards(capsys: pytest.CaptureFixture[str], k25_folder: Path) -> None:
    out, _ = run(capsys, "inspect", k25_folder, "--json", "--memory", "16MiB", "--positions", "64")
    facts = json.loads(out)
    assert facts["bytes"]["text_model"] == facts["bytes"]["declared_by_index_or_shards"] == formation.open(k25_folder).total_bytes
    assert facts["plan"]["read_speed_bytes_per_second"] > 0


def test_inspect_plans_the_real_kimi_k25_from_config_and_index_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = k25_config()
    model = read_model(config)
    names = {s.name: f"model-{n:05}-of-000062.safetensors" for n, shard in enumerate(shards_of(model), 1) for s in shard}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 595148192736}, "weight_map": names}))
    out, _ = run(capsys, "inspect", tmp_path, "--json", "--memory", "32GiB", "--read-speed", "7")
    facts = json.loads(out)
    assert facts["weights_present"] is False
    assert facts["bytes"]["one_expert"] == 24_772_632
    assert facts["bytes"]["experts_of_one_token"] == 480 * 24_772_632
    assert facts["plan"]["read_seconds_per_token"] == pytest.approx(1.7, abs=0.01)
    assert 594e9 < facts["bytes"]["text_model"] < 595.148192736e9


def test_inspect_plans_the_real_qwen3_next_from_config_and_index_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = qwen3_next_config()
    (tmp_path / "config.json").write_text(json.dumps(config))
    stored = [s for shard in shards_of(read_model(config)) for s in shard]
    prediction = shards_of(read_model(config | {"num_hidden_layers": 1, "full_attention_interval": 1}))[0]  # one layer with attention
    fc = 2 * 2048 * 2048 * 2
    names = [*(s.name for s in stored), *(s.name.replace("model.layers.0.", "mtp.layers.0.") for s in prediction), "mtp.fc.weight"]
    index = {
        "metadata": {"total_size": sum(s.nbytes for s in (*stored, *prediction)) + fc},
        "weight_map": {name: f"model-{1 + i * 41 // len(names):05}-of-00041.safetensors" for i, name in enumerate(names)},
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    out, _ = run(capsys, "inspect", tmp_path, "--json", "--memory", "32GiB", "--read-speed", "7")
    told = json.loads(out)
    assert (told["shards"], told["tensors_skipped"], told["tensors"]) == (41, len(prediction) + 1, len(names))
    assert told["bytes"]["declared_by_index_or_shards"] / 2**30 == pytest.approx(151.5, abs=0.05)
    assert told["bytes"]["one_expert"] == 6_291_456
    assert told["plan"]["bytes_per_token"] == pytest.approx(3.02e9, rel=1e-3)
    assert told["plan"]["resident"] == "all 48 layers and lm_head"
    assert told["quantisation"] == "none"
    assert told["shape"]["delta_layers"] == 36
    assert told["plan"]["delta_state_bytes"] == 36 * 4 * (32 * 128 * 128 + 3 * 8192)
    assert told["plan"]["attention_cache_bytes"] == 12 * 1024 * 4 * 1024  # twelve layers keep 1,024 values of each of 1,024 positions
    out, _ = run(capsys, "inspect", tmp_path, "--memory", "32GiB", "--read-speed", "7")
    for said in ("48 layers (36 gated delta nets), hidden", "attention cache 50.3 MB, states of delta layers 79 MB whatever the positions,"):
        assert said in out
    assert "dense" not in out
    out, _ = run(capsys, "inspect", tmp_path, "--memory", "200MB", "--read-speed", "7")
    assert ", states of delta layers 79 MB" in out


def test_inspect_says_so_when_the_budget_cannot_hold_a_run(capsys: pytest.CaptureFixture[str], k25_folder: Path) -> None:
    out, _ = run(capsys, "inspect", k25_folder, "--memory", "100kB")
    assert "expected at least" in out


def test_doctor_finds_the_contract_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, _ = run(capsys, "doctor", "--folder", tmp_path, "--json")
    findings = {f["name"]: f for f in json.loads(out)}
    assert findings["golden vectors"]["verdict"] == "ok"
    assert "f32x16/1" in findings["contract"]["detail"]
    assert not list(tmp_path.iterdir())


def test_doctor_says_so_when_the_kernels_give_other_bits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from formation.kernels import ops

    right = ops.silu
    monkeypatch.setattr(ops, "silu", lambda x: np.nextafter(right(x), np.float32(np.inf)))
    assert main(["doctor"]) == 3
    out, err = capsys.readouterr()
    assert "golden vector silu" in out
    assert "computes the contract's bits" not in out + err


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("inspect", "generate", "doctor", "demo"):
        with pytest.raises(SystemExit) as leaving:
            build_parser().parse_args([command, "--help"])
        assert leaving.value.code == 0
        assert command in capsys.readouterr().out


def test_the_command_line_starts_without_loading_numpy() -> None:
    code = "import sys, formation.cli.main as m; m.build_parser(); sys.exit('numpy' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("hostile", "shown"), [("\x1b[2J", "\\u001b[2J"), ("a\u202eb", "a\\u202eb"), ("\x00", "\\u0000"), ("tab\there\n", "tab\there\n"), ("é中", "é中")]
)
def test_text_of_a_model_cannot_move_the_cursor(hostile: str, shown: str) -> None:
    assert harmless(hostile) == shown


def test_a_file_system_without_direct_reads_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, k25_folder: Path
) -> None:
    monkeypatch.setattr("formation.weights.reader.O_DIRECT", 0)
    _, err = run(capsys, "generate", k25_folder, "--prompt", "abc", "--tokens", "2", "--no-stop")
    assert "note: direct reads do not work" in err
