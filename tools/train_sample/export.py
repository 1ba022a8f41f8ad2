"""Write a trained state as a checkpoint in the published layout.

$ python -m tools.train_sample.export --data DIR --state DIR/state.pt --out FOLDER [--sample NAME]
"""

import argparse
import json
import pathlib
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from .kind import Kind, chosen


def load_trained(kind: Kind, path: pathlib.Path) -> nn.Module:
    """The trained model, in evaluation mode."""
    model = kind.model()
    model.load_state_dict(torch.load(path)["model"])
    model.settle()
    return model.eval()


@torch.no_grad()
def round_to_export(model: nn.Module) -> nn.Module:
    """Give the model, in place, the values that the exported files hold."""
    for parameter in model.parameters():
        parameter.copy_(model.exported(parameter))
    return model


def write_shards(kind: Kind, folder: pathlib.Path, parts: list[dict[str, Tensor]]) -> None:
    """The shards and their index. The safetensors library orders a shard by alignment, then by name."""
    (digits, of_digits), placed, total = kind.digits, {}, 0
    for number, tensors in enumerate(parts, 1):
        file = f"model-{number:0{digits}d}-of-{len(parts):0{of_digits}d}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)
        placed |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": placed})


def write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def export(kind: Kind, model: nn.Module, data: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the whole folder except the evaluation's files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_shards(kind, folder, kind.shards(model))
    for name, content in kind.files(data).items():
        if isinstance(content, str):
            (folder / name).write_text(content)
        else:
            write_json(folder / name, content)


def main() -> None:
    parser = argparse.ArgumentParser(description="export the sample checkpoint")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="where the vocabulary is")
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    kind, arguments = chosen(parser)
    export(kind, load_trained(kind, arguments.state), arguments.data, arguments.out)


if __name__ == "__main__":
    main()
