"""Attacks on what stands around the ledger: anchor, contract, checkpoint, parity, declarations, and what the statement says of them.

Lies in the anchor are made with all that follows: its run_id in every line, root, digests and signatures. A lie that still agrees with every
line is not here: only the weights tell (on_weights.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from formation.certify.attack import BUNDLE, KEY, OTHER_BUNDLE, RECORDER, Group, NotApplicable
from formation.certify.forgery import Forgery
from formation.evidence import documents, payloads
from formation.evidence.container import TENSOR_DIGESTS
from formation.ledger import canonical, merkle

GROUP = Group("documents")
attack = GROUP.attack
SAMPLING = {"method": "sample", "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0, "seed": "1", "branch": "0"}


def anchor(f: Forgery, change: Callable[[Any], object]) -> None:
    f.set_anchor(change)
    f.seal()


def generating(f: Forgery) -> None:
    """Raises NotApplicable for a run whose tokens are given: it has no other number of them."""
    if f.scene.frozen.scores:
        raise NotApplicable("the run scores ids that are given")


# ---- the anchor


@attack(BUNDLE, "subjects")
def prompt_edited(f: Forgery) -> None:
    """another prompt text in the anchor, and the run_id that follows in every line; nothing is signed anew"""
    f.set_anchor(lambda a: a["prompt"].update(text="another prompt"))


@attack(RECORDER, "sampler")
def sampler_lie(f: Forgery) -> None:
    """a greedy run claims to be sampled, or the reverse"""
    generating(f)
    greedy = f.scene.frozen.sampler["method"] == "greedy"
    anchor(f, lambda a: a.update(sampler=SAMPLING if greedy else {"method": "greedy"}))


@attack(RECORDER, "sampler")
def seed_lie(f: Forgery) -> None:
    """a sampled run claims another seed"""
    if f.scene.frozen.sampler["method"] != "sample":
        raise NotApplicable("the run is greedy")
    anchor(f, lambda a: a["sampler"].update(seed=str(1 + int(a["sampler"]["seed"]))))


@attack(RECORDER, "sampler")
def temperature_lie(f: Forgery) -> None:
    """a sampled run claims another temperature: 1, or 0.5 where it was 1"""
    sampler = f.scene.frozen.sampler
    if sampler["method"] != "sample":
        raise NotApplicable("the run is greedy")
    anchor(f, lambda a: a["sampler"].update(temperature=0.5 if sampler["temperature"] == 1 else 1))


@attack(RECORDER, "anchor")
def sampler_that_cannot_be(f: Forgery) -> None:
    """a temperature of 0"""
    anchor(f, lambda a: a.update(sampler={**SAMPLING, "temperature": 0}))


@attack(RECORDER, "anchor")
def stop_ids_in_another_order(f: Forgery) -> None:
    """the same stop ids, written otherwise: two names of one run"""
    top = f.scene.run.shape.vocabulary - 1
    anchor(f, lambda a: a["stop"].update(ids=[top, *a["stop"]["ids"], top]))


@attack(RECORDER, "anchor")
def older_anchor(f: Forgery) -> None:
    """an anchor of a kind that this version does not know"""
    f.edit("anchor.json", lambda a: a.update(kind="formation-anchor/0"))
    f.seal()


@attack(RECORDER, "inputs")
def prompt_id_outside_the_vocabulary(f: Forgery) -> None:
    """an id of the prompt is one that the model does not have"""
    anchor(f, lambda a: a["prompt"]["ids"].__setitem__(0, 10**9))


@attack(RECORDER, "census")
def longer_prompt(f: Forgery) -> None:
    """the prompt has one id more than the run had"""
    generating(f)
    anchor(f, lambda a: a["prompt"]["ids"].append(a["prompt"]["ids"][-1]))


@attack(RECORDER, "census")
def fewer_tokens_allowed(f: Forgery) -> None:
    """the anchor allows one token less than there are"""
    generating(f)
    if len(f.scene.steps) < 2:
        raise NotApplicable("the run has one token")
    anchor(f, lambda a: a["stop"].update(tokens=len(f.scene.steps) - 1))


@attack(RECORDER, "census")
def more_tokens_allowed(f: Forgery) -> None:
    """a run that was cut claims that it ended by itself"""
    generating(f)
    last = f.line(f.scene.steps[-1], "token")["measured"]["id"]
    stops = f.scene.frozen.stop_ids
    anchor(f, lambda a: a["stop"].update(tokens=len(f.scene.steps) + 1, ids=[i for i in stops if i != last]))


@attack(OTHER_BUNDLE, "run")
def old_bundle_with_the_readers_nonce(f: Forgery) -> None:
    """an old run gets an anchor with the nonce that the reader has just chosen; its lines keep the old run_id"""
    f.edit("anchor.json", lambda a: a.update(nonce="chosen today"))
    f.nonce = "chosen today"
    f.seal()


@attack(OTHER_BUNDLE, "nonce")
def old_bundle_replayed(f: Forgery) -> None:
    """an old run is shown to a reader who has chosen a nonce; its anchor is given an older one"""
    f.set_anchor(lambda a: a.update(nonce="chosen by somebody else"))
    f.nonce = "chosen today"
    f.seal()


# ---- contract and checkpoint


@attack(RECORDER, "contract")
def unknown_contract(f: Forgery) -> None:
    """a contract that nobody knows, named consistently"""
    f.edit("contract.json", lambda c: c.update(name="f32x16/0"))
    anchor(f, lambda a: a["contract"].update(name="f32x16/0"))


@attack(RECORDER, "contract")
def contract_with_other_vectors(f: Forgery) -> None:
    """a known name over golden vectors of another arithmetic, with the digest that follows"""

    def change(value: Any) -> None:
        value["cases"][min(value["cases"])]["outputs"] = "ab" * 32
        value["digest"] = documents.cases_digest(value["name"], value["cases"])

    f.edit("contract.json", change)
    digest = f.document("contract.json")["digest"]
    anchor(f, lambda a: a["contract"].update(digest=digest))


@attack(KEY, "contract")
def vectors_that_are_not_the_contracts(f: Forgery) -> None:
    """one vector is another, the contract keeps its digest"""
    f.edit("contract.json", lambda c: c["cases"][max(c["cases"])].update(inputs="ab" * 32))
    f.seal()


def checkpoint(f: Forgery, change: Callable[[Any], object], *, consistent: bool) -> None:
    """Another manifest; consistently: with its root, and both digests in the anchor"""
    value = f.document("checkpoint.json")
    change(value)
    if consistent:
        value["tensor_table_root"] = merkle.root_of(merkle.leaf_hash(canonical.encode(row)) for row in value["tensor_table"]).hex()
        listed = hashlib.sha256(canonical.encode(value["files"], limits=canonical.DOCUMENT)).hexdigest()
        f.set_anchor(lambda a: a["checkpoint"].update(sha256=listed, tensor_table_root=value["tensor_table_root"]))
    f.write("checkpoint.json", value)
    f.seal()


@attack(KEY, "checkpoint")
def weights_under_another_name(f: Forgery) -> None:
    """a file of the checkpoint has another name, its digest stays"""
    checkpoint(f, lambda c: c["files"][-1].update(path="zz" + c["files"][-1]["path"]), consistent=False)


@attack(KEY, "checkpoint")
def other_tokenizer(f: Forgery) -> None:
    """the digest of a tokenizer file is another's"""
    checkpoint(f, lambda c: c["files"][-1].update(sha256="ab" * 32), consistent=False)


@attack(KEY, "checkpoint")
def tensor_elsewhere_in_its_shard(f: Forgery) -> None:
    """a tensor's range in its shard is another's"""
    checkpoint(f, lambda c: c["tensor_table"][0].update(begin=c["tensor_table"][0]["begin"] + 1), consistent=False)


@attack(RECORDER, "checkpoint")
def manifest_with_a_path_that_climbs(f: Forgery) -> None:
    """a file of the checkpoint is ../secrets, named consistently everywhere"""
    checkpoint(f, lambda c: c["files"].insert(0, {**c["files"][0], "path": "../secrets"}), consistent=True)


@attack(RECORDER, "checkpoint")
def manifest_with_a_tensor_twice(f: Forgery) -> None:
    """a tensor stands twice in the table, so that two readers can take two payloads for it"""
    checkpoint(f, lambda c: c["tensor_table"].insert(0, dict(c["tensor_table"][0])), consistent=True)


@attack(RECORDER, "checkpoint")
def manifest_in_another_order(f: Forgery) -> None:
    """the files in another order: another identity of the same files"""
    checkpoint(f, lambda c: c["files"].reverse(), consistent=True)


@attack(RECORDER, "checkpoint")
def tensor_in_a_file_that_is_not_listed(f: Forgery) -> None:
    """a tensor lies in a file whose header nobody has named"""
    checkpoint(f, lambda c: c["tensor_table"][0].update(file="elsewhere.safetensors"), consistent=True)


@attack(RECORDER, "checkpoint")
def range_that_ends_before_it_begins(f: Forgery) -> None:
    """a tensor's range is negative"""
    checkpoint(f, lambda c: c["tensor_table"][0].update(begin=2, end=1), consistent=True)


# ---- digests of the weights


def tensor_digests(f: Forgery, change: Callable[[list[Any]], object], root: str | None = None) -> None:
    """A file of digests, made up or as it is, that then changes"""
    names = [row["name"] for row in f.document("checkpoint.json")["tensor_table"]][:2]
    made = [{"name": name, "sha256": "ab" * 32} for name in names]
    rows = f.document(TENSOR_DIGESTS)["tensors"] if TENSOR_DIGESTS in f.files else made
    change(rows)
    f.write(TENSOR_DIGESTS, {"kind": payloads.KIND, "tensor_table_root": root or f.frozen().tensor_table_root, "tensors": rows})
    f.seal()


@attack(KEY, "tensor digests")
def digest_of_a_tensor_that_is_not_there(f: Forgery) -> None:
    """tensor-digests.json names a tensor that the table does not have"""
    tensor_digests(f, lambda rows: rows.append({"name": "\U0010ffff", "sha256": "ab" * 32}))


@attack(KEY, "tensor digests")
def digests_of_another_checkpoint(f: Forgery) -> None:
    """tensor-digests.json is of another tensor table"""
    tensor_digests(f, lambda rows: None, root="ab" * 32)


@attack(KEY, "tensor digests")
def one_tensor_with_two_digests(f: Forgery) -> None:
    """a tensor is named twice"""
    tensor_digests(f, lambda rows: rows.insert(0, {**rows[0], "sha256": "cd" * 32}))


# ---- parity, declarations, predicate


@attack(RECORDER, "parity")
def parity_of_fewer_tokens(f: Forgery) -> None:
    """parity is said to have passed, of one token less than there are"""
    steps, cells = len(f.scene.steps), len({at for at, _ in f.scene.slots if at >= 0}) * f.scene.run.shape.layers
    compared = {"logits_compared": steps - 1, "cache_entries_compared": cells}
    f.write("parity.json", {"parity": "passed", "method": "replay", **compared})
    f.seal(parity="passed")


@attack(RECORDER, "parity")
def parity_without_comparison(f: Forgery) -> None:
    """parity is said to have passed; nothing says what was compared"""
    f.write("parity.json", {"parity": "passed"})
    f.seal(parity="passed")


@attack(KEY, "declarations")
def account_of_a_step_missing(f: Forgery) -> None:
    """io.jsonl lacks its last line"""
    found = f.files["io.jsonl"].split(b"\n")[:-2]
    f.files["io.jsonl"] = b"".join(line + b"\n" for line in found)
    f.seal()


@attack(KEY, "declarations")
def machine_of_no_type(f: Forgery) -> None:
    """host.json says that the machine has minus one core"""
    f.edit("host.json", lambda h: h.update(cores=-1))
    f.seal()


@attack(KEY, "declarations")
def machine_beyond_the_ledger(f: Forgery) -> None:
    """host.json says that another machine went on behind the last line"""
    lines = f.files["ledger.jsonl"].count(b"\n")
    f.edit("host.json", lambda h: h.update(resumed=[{**{n: v for n, v in h.items() if n != "resumed"}, "from_line": lines + 1}]))
    f.seal()


@attack(KEY, "declarations")
def guesses_beyond_the_reads(f: Forgery) -> None:
    """io.jsonl says of its first step that more was read on right guesses than was read"""
    first, rest = f.files["io.jsonl"].split(b"\n", 1)
    step = canonical.decode(first, limits=canonical.LINE)
    step["guessed_bytes"] = 1 + sum(part["disk_bytes"] for part in step["parts"])
    f.files["io.jsonl"] = canonical.encode(step) + b"\n" + rest
    f.seal()


@attack(KEY, "predicate")
def parity_promoted(f: Forgery) -> None:
    """the statement says of parity what parity.json does not"""
    claimed = f.document("parity.json")["parity"] == "passed"
    f.seal(parity="not claimed" if claimed else "passed")


@attack(KEY, "predicate")
def weights_promoted(f: Forgery) -> None:
    """the statement says that all tensors were hashed"""
    if f.statement(f.head()).predicate["weights"] == "all":
        raise NotApplicable("all tensors are hashed")
    f.seal(weights="all")


@attack(KEY, "predicate")
def statement_of_another_tree(f: Forgery) -> None:
    """the statement names another tree head than tree-head.txt"""
    other = {"origin": f.head().origin, "size": f.head().size, "root": "ab" * 32}
    f.seal(tree_head=other)


@attack(KEY, "predicate")
def statement_with_another_claim(f: Forgery) -> None:
    """the statement says something that no file can bear out"""
    f.seal(audited="passed")


@attack(KEY, "predicate")
def statement_without_version(f: Forgery) -> None:
    """the statement does not say which version sealed the bundle"""
    f.seal(formation=None)
