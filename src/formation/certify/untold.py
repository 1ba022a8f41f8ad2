"""What no reader can tell from the truth without the weights: values that no rule binds when they alone are changed and the right key signs.

A test changes every field of every slot and holds these lists against what the verifier says, in both directions: a rule that stops looking, and
a name that stands here for nothing, are both found. Names are SLOT.FIELD of the ledger, or files.
"""

from __future__ import annotations

from formation.certify.forgery import LEDGER, Files
from formation.evidence.container import TENSOR_DIGESTS

# what the operator declares; and what a pass over the weights says of them
DECLARED = frozenset(("host.json", "io.jsonl", TENSOR_DIGESTS))


def of(slot: str, names: str) -> frozenset[str]:
    return frozenset(f"{slot}.{name}" for name in names.split())


# some sizes of the model, and settings of a router that did not decide anything in this run
RUN = of("run", "shape router delta norm_eps")
EMBED = of("embed", "residual_norm dla dla_centred dla_runner_up")
# norms are held against each other within the rounding of binary32, and in a prompt's cells by lengths alone
NORMS = of("layer", "attention_write_norm after_attention_norm mlp_write_norm residual_norm residual_largest residual_largest_dimension")
ATTENTION = of("layer", "attention_entropy attention_strongest attention_entropies attention_strongest_by_head cache_entry_sha256")
EXPERTS = of("layer", "expert_output_norms expert_write_norms expert_write_cosines shared_write_cosine")
# of a delta net's heads only the least, the largest and the mean are known, unless all are
DELTA = of("layer", "delta_state_sha256 delta_state_norm delta_state_norms delta_betas delta_decays")
DELTA |= frozenset(f"layer.delta_{gate}_{which}" for gate in ("beta", "decay") for which in ("min", "mean", "max"))
COSINES = of("layer", "attention_cosine attention_projection mlp_cosine mlp_projection")
# a contribution may differ by less than its sum's rounding; those to the mean and to the runner-up add up to nothing that is recorded
PARTS = "attention attention_rounding mlp mlp_rounding combination_rounding experts shared"
ATTRIBUTION = frozenset(f"layer.dla{c}_{part}" for c in ("", "_centred", "_runner_up") for part in PARTS.split())
LENS_NAMES = "logit logprob rank runner_up_logit runner_up_logprob runner_up_rank top top_logits entropy kl"
LENS = frozenset(f"layer.{lens}_{name}" for lens in ("lens", "mid_lens") for name in LENS_NAMES.split())
HEAD = of("lm_head", "logits_sha256 top top_logits final_scale exact_logit direction_norm direction_norm_centred direction_norm_runner_up")
# of a distribution that was sampled from, what sums over the vocabulary give is known within their rounding, and at other temperatures by bounds
SUMS = "log_sum_exp mean mean_square"
TOKEN = of("token", "bytes") | of("sampler", "low high kept kept_mass truncated_mass tempered_rank_low tempered_rank_high")
TOKEN |= frozenset(f"sampler.{prefix}_{name}" for prefix in ("tempered", "sampler") for name in SUMS.split())
ALWAYS = DECLARED | RUN | EMBED | NORMS | ATTENTION | DELTA | EXPERTS | COSINES | ATTRIBUTION | LENS | HEAD | TOKEN

# a shared expert's gate, its output and its write follow from each other within a rounding; without a gate exactly
GATED = of("layer", "shared_output_norm shared_write_norm shared_gate")
WITHOUT_ROWS = of("embed", "residual_sha256") | of("layer", "residual_sha256 router_logits_sha256 router_selection_sha256")
WITHOUT_ROWS |= of("layer", "chosen_logits runner_up_logits")  # of which several have one sigmoid, and a softmax needs all
WITHOUT_BIASES = of("layer", "chosen runners_up")  # which expert it was: each has its bias, and its place in the router's row
WITHOUT_WRITES = of("layer", "attention_write_sha256 mlp_write_sha256")


def untold_names(files: Files) -> frozenset[str]:
    """Of a bundle with these files"""
    rows = next((data for name, data in sorted(files.items()) if name.startswith("rows/")), b"")
    run, found = files[LEDGER].partition(b"\n")[0], ALWAYS
    found |= GATED if b'"shared_gated":true' in run else frozenset()
    found |= WITHOUT_ROWS if not rows else frozenset()
    found |= WITHOUT_BIASES if not rows and b'"biased":false' in run else frozenset()
    return found if b'"mlp_write.0"' in rows else found | WITHOUT_WRITES
