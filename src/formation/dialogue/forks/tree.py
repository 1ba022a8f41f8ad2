"""The tokens of a fork's branches as an immutable tree: a node is one token behind what its parent stands for. Nothing in it ever changes.

To grow a branch makes a new tree with more nodes. Two branches share the nodes of what they say alike, as far as it came about alike: a forced token
is another node than the same one sampled. The root is what came before, undecided; so is the leaf of the choice that decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from formation.dialogue.event_table import VIEWS
from formation.dialogue.forks.choices import UNDECIDED
from formation.dialogue.forks.source import Formed
from formation.exact64 import exp64
from formation.ledger.fields import absent

NO_TOKEN = "no token"
FORMAT = "formation-fork-tree/1"
DEEPEST = 256  # tokens of a branch: each is two levels of JSON, and readers end at a thousand


@dataclass(frozen=True)
class Node:
    """`number` counts nodes in the order they came; the root's parent is None, and it has no token. `token` is the place in the message, from 1."""

    number: int
    parent: int | None
    token: int
    kind: str
    formed: Formed | None = None


@dataclass(frozen=True)
class Tree:
    nodes: tuple[Node, ...]

    def with_branches(self, branches: Iterable[Sequence[Formed | None]]) -> tuple[Tree, list[int]]:
        """With a node for each token of these branches that has none yet, and the number of each branch's leaf. None is a leaf without."""
        nodes = list(self.nodes)
        known = {(node.parent, node.kind, id_of(node.formed)): node.number for node in nodes}
        leaves = []
        for branch in branches:
            at = 0
            for formed in branch:
                key = (at, UNDECIDED if formed is None else formed.kind, id_of(formed))
                if key not in known:
                    known[key] = len(nodes)
                    nodes.append(Node(len(nodes), at, nodes[at].token + (formed is not None), key[1], formed))
                at = known[key]
            leaves.append(at)
        return Tree(tuple(nodes)), leaves

    def path(self, number: int) -> list[Node]:
        """From behind the root to this node"""
        found: list[Node] = []
        at: int | None = number
        while at is not None:
            found.append(self.nodes[at])
            at = self.nodes[at].parent
        return found[-2::-1]


def planted(token: int) -> Tree:
    """A root behind which token number `token` of the message comes"""
    return Tree((Node(0, None, token - 1, UNDECIDED),))


def id_of(formed: Formed | None) -> int | None:
    return None if formed is None else formed.id


# ---- as a document


def document(tree: Tree, at: Mapping[str, Any], next_tokens: Mapping[str, Any]) -> dict[str, Any]:
    """`next_tokens` is the distribution at the root"""
    made = [node_document(node, at, next_tokens) for node in tree.nodes]
    for node in tree.nodes[1:]:
        assert node.parent is not None
        made[node.parent]["children"].append(made[node.number])
    return {"format": FORMAT, "root": made[0]}


def node_document(node: Node, at: Mapping[str, Any], next_tokens: Mapping[str, Any]) -> dict[str, Any]:
    own = {"id": node.number, "parent": node.parent, "side": at["side"], "message": at["message"], "token": node.token, "kind": node.kind}
    if node.formed is None:
        return own | {"token_id": absent(NO_TOKEN), "bytes": absent(NO_TOKEN), "next": dict(next_tokens), "children": []}
    p, q = (probability(node.formed.measured, name) for name in ("model", "sampler"))
    return own | {"token_id": node.formed.id, "bytes": node.formed.spelling, "p": p, "q": q, "children": []}


def probability(measured: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Of the token under that distribution: for the width of an edge, and exact where that is 0"""
    found = view(measured, name)
    nats = found["logprob_nats"]
    linear = exp64(nats) if isinstance(nats, int | float) and math.isfinite(nats) else 0.0
    return {"probability": linear, **{key: found[key] for key in ("logprob_nats", "rank_low", "rank_high", "zero", "entropy_nats")}}


def view(measured: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Of a record `measured`, in which a view that is another's stands as that one's name"""
    found = measured[name]
    while isinstance(found, str):
        found = measured[VIEWS[VIEWS.index(found)]]
    return dict(found)


def surprisal_nats(tokens: Sequence[Formed]) -> float:
    return -math.fsum(view(each.measured, "model")["logprob_nats"] for each in tokens)
