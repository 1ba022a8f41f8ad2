"""Compare the exported folder, run by transformers, with the training model; show what the router does.

$ python -m tools.train_sample.check --data DIR --state DIR/state.pt --folder FOLDER [--sample NAME]
"""

import argparse
import pathlib

import torch
from torch import Tensor, nn

from .batches import mean_loss
from .corpus import Corpus
from .export import load_trained, round_to_export
from .kind import chosen
from .published_model import Published
from .train import evaluation_rows

PROMPTS = (
    "The for statement is used to iterate over the elements of a sequence.",
    "A list is a mutable sequence, typically used to store collections of items.",
)


@torch.no_grad()
def largest_difference(ours: nn.Module, theirs: Published, ids: Tensor) -> tuple[float, float]:
    """(max |difference of logits|, share of positions with the same best token) over ids [B,T]."""
    a, b = ours(ids), theirs.model(ids, use_cache=False).logits
    return float((a - b).abs().max()), float((a.argmax(-1) == b.argmax(-1)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="check the exported folder against the training state")
    for name in ("data", "state", "folder"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    kind, arguments = chosen(parser)
    ours, theirs = round_to_export(load_trained(kind, arguments.state)), Published.load(kind, arguments.folder)
    for ids in (*(theirs.vocabulary.encode(prompt) for prompt in PROMPTS), theirs.ask("What does len do?")):
        text = theirs.vocabulary.decode(ids)
        print("max |dlogit| {:.2e}, same best token {:.3f}: {!r}".format(*largest_difference(ours, theirs, torch.tensor([ids])), text))
    held_out, trained = evaluation_rows(Corpus.load(arguments.data / "corpus.json"), theirs.end_of_text)
    ids = torch.tensor([row for row, _ in trained[:4]])
    print("max |dlogit| {:.2e}, same best token {:.4f}: four rows of 256".format(*largest_difference(ours, theirs, ids)))
    print(*ours.routing_facts(ids), sep="\n")
    float_model = load_trained(kind, arguments.state)
    with torch.no_grad():
        for name, model in (("trained", float_model), ("exported", ours)):
            print(f"{name:8s} loss: held out {mean_loss(model, held_out):.3f}, trained text {mean_loss(model, trained):.3f}")


if __name__ == "__main__":
    main()
