"""A config is run only when every key that could change the arithmetic is understood."""

from __future__ import annotations

import pytest
from tools.synthetic_checkpoint import k25_config

from formation.errors import UnsupportedError
from formation.model.catalog import read_model
from small_models import flat_config, fp8_config, qwen3_config, qwen_config, small_config

REFUSED = [
    ("an architecture nobody wrote", {"model_type": "llama"}, "model_type"),
    ("no model_type at all", {"model_type": None}, "model_type"),
    ("an unknown key", {"sparse_attention": True}, "sparse_attention"),
    ("another activation", {"hidden_act": "gelu"}, "hidden_act"),
    ("biases in attention", {"attention_bias": True}, "attention_bias"),
    ("a sliding window", {"sliding_window": 128}, "sliding_window"),
    ("experts in every other layer only", {"moe_layer_freq": 2}, "moe_layer_freq"),
    ("rotation by halves", {"rope_interleave": False}, "rope_interleave"),
    ("an odd width of rotation", {"qk_rope_head_dim": 7}, "an even number of dimensions to rotate, got 7"),
    ("another routing method", {"topk_method": "hash"}, "topk_method"),
    ("another scoring", {"scoring_func": "relu"}, "scoring_func"),
    ("groups that do not divide the experts", {"n_group": 5, "topk_group": 2}, "groups"),
    ("more experts chosen than there are", {"num_experts_per_tok": 25}, "chosen"),
    ("a kind of position scaling nobody wrote", {"rope_scaling": {"type": "longrope", "factor": 2.0}}, "type"),
    ("YaRN with an unknown key", {"rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "x": 1}}, "'x'"),
    ("YaRN without its factor", {"rope_scaling": {"type": "yarn", "original_max_position_embeddings": 64}}, "factor"),
    (
        "YaRN whose magnitude two codes read differently",
        {"rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "mscale": 0.7}},
        "mscale",
    ),
    ("a hidden size that is text", {"hidden_size": "96"}, "hidden_size"),
    ("a hidden size of zero", {"hidden_size": 0}, "hidden_size"),
    ("an epsilon that is not a number", {"rms_norm_eps": None}, "rms_norm_eps"),
    ("a boolean where a number belongs", {"num_hidden_layers": True}, "num_hidden_layers"),
    ("an unknown quantisation", {"quantization_config": {"quant_method": "gptq"}}, "quant_method"),
    ("fp8 in other blocks", {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}}, "weight_block_size"),
    ("fp8 with an unknown key", {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "x": 1}}, "'x'"),
]


@pytest.mark.parametrize(("changes", "named"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_a_config_that_is_not_understood_is_refused_by_name(changes: dict, named: str) -> None:
    with pytest.raises(UnsupportedError, match=named):
        read_model(flat_config() | changes)


REFUSED_OF_QWEN = [
    ("an unknown key", {"linear_gate_bias": True}, "linear_gate_bias"),
    ("layers without experts after others", {"mlp_only_layers": [1]}, "mlp_only_layers"),
    ("experts in every other layer only", {"decoder_sparse_step": 2}, "decoder_sparse_step"),
    ("another activation", {"hidden_act": "gelu"}, "hidden_act"),
    ("biases in attention", {"attention_bias": True}, "attention_bias"),
    ("a kind of layer nobody wrote", {"layer_types": ["sliding_attention"] * 4}, "layer_types"),
    ("kinds for other layers", {"layer_types": ["full_attention"] * 3}, "layer_types"),
    ("kinds that contradict the interval", {"layer_types": ["full_attention"] * 4}, "layer_types"),
    ("keys that do not divide the heads", {"num_key_value_heads": 3}, "num_key_value_heads"),
    ("key heads that do not divide the value heads", {"linear_num_key_heads": 3}, "linear_num_key_heads"),
    ("no width of heads", {"head_dim": None}, "head_dim"),
    ("more experts chosen than there are", {"num_experts_per_tok": 25}, "chosen"),
    ("a rotation of nothing", {"partial_rotary_factor": 0.0}, "partial_rotary_factor"),
    ("a rotation of an odd width", {"partial_rotary_factor": 0.16}, "partial_rotary_factor"),
    ("two rotations", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}, "rope_theta"),
    ("two shares of the rotation", {"rope_parameters": {"rope_theta": 1e7, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("a kind of position scaling nobody wrote", {"rope_scaling": {"type": "longrope", "factor": 2.0}}, "type"),
]


@pytest.mark.parametrize(("changes", "named"), [r[1:] for r in REFUSED_OF_QWEN], ids=[r[0] for r in REFUSED_OF_QWEN])
def test_a_config_of_qwen3_next_that_is_not_understood_is_refused_by_name(changes: dict, named: str) -> None:
    with pytest.raises(UnsupportedError, match=named):
        read_model(qwen_config() | changes)


REFUSED_OF_QWEN3 = [
    ("an unknown key", {"router_bias": True}, "router_bias"),
    ("layers without experts after others", {"mlp_only_layers": [0, 2]}, "key 'mlp_only_layers': expected layers without experts before"),
    ("a layer that is none", {"mlp_only_layers": [4]}, "mlp_only_layers"),
    ("a layer that is a name", {"mlp_only_layers": ["0"]}, "mlp_only_layers"),
    ("layers that are no list", {"mlp_only_layers": 1}, "mlp_only_layers"),
    ("experts in every other layer", {"decoder_sparse_step": 2}, "key 'decoder_sparse_step': expected layers without experts before"),
    ("no step at all", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
    ("biases in attention", {"attention_bias": True}, "attention_bias"),
    ("a sliding window", {"use_sliding_window": True, "sliding_window": 4096}, "sliding_window"),
    ("keys that do not divide the heads", {"num_key_value_heads": 3}, "num_key_value_heads"),
    ("an odd width of heads", {"head_dim": 31}, "an even number of dimensions to rotate, got 31"),
    ("more experts chosen than there are", {"num_experts_per_tok": 25}, "chosen"),
    ("two numbers of experts", {"num_local_experts": 12}, "num_experts"),
    ("two rotations", {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}, "rope_theta"),
    ("two scalings", {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, "rope_scaling"),
    ("a rotation of a part", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5}}, "partial"),
    ("no width of layers without experts", {"mlp_only_layers": [0], "intermediate_size": None}, "intermediate_size"),
]


@pytest.mark.parametrize(("changes", "named"), [r[1:] for r in REFUSED_OF_QWEN3], ids=[r[0] for r in REFUSED_OF_QWEN3])
def test_a_config_of_qwen3_that_is_not_understood_is_refused_by_name(changes: dict, named: str) -> None:
    with pytest.raises(UnsupportedError, match=named):
        read_model(qwen3_config() | changes)


def test_a_window_that_is_not_used_changes_nothing() -> None:
    assert read_model(qwen3_config(sliding_window=4096, max_window_layers=2)) == read_model(qwen3_config())


def test_the_first_layers_may_be_without_experts() -> None:
    for listed in ([0], [0, 1], [2, 0, 1], [0, 1, 2, 3]):
        assert len(listed) == read_model(qwen3_config(mlp_only_layers=listed)).shape.dense_layers
    assert 3 == read_model(qwen3_config(decoder_sparse_step=4)).shape.dense_layers
    assert 1 == read_model(qwen_config(mlp_only_layers=[0])).shape.dense_layers


def test_newer_configs_of_qwen3_next_mean_the_same() -> None:
    old = qwen_config()
    rope = {"rope_type": "default", "rope_theta": old["rope_theta"], "partial_rotary_factor": 0.25}
    new = old | {"rope_parameters": rope, "layer_types": ["linear_attention"] * 3 + ["full_attention"]}
    for name in ("rope_theta", "rope_scaling", "partial_rotary_factor", "full_attention_interval"):
        del new[name]
    assert read_model(new) == read_model(old)


@pytest.mark.parametrize(
    ("key", "value"), [("num_bits", 8), ("symmetric", False), ("group_size", 128), ("actorder", "weight"), ("strategy", "channel"), ("dynamic", True)]
)
def test_int4_in_another_form_is_refused_by_name(key: str, value: object) -> None:
    config = small_config()
    config["text_config"]["quantization_config"]["config_groups"]["group_0"]["weights"][key] = value
    with pytest.raises(UnsupportedError, match=key):
        read_model(config)


def test_activations_that_would_be_quantised_are_refused() -> None:
    config = small_config()
    config["text_config"]["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8}
    with pytest.raises(UnsupportedError, match="input_activations"):
        read_model(config)


def test_an_unknown_key_beside_the_text_config_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="audio_config"):
        read_model(small_config() | {"audio_config": {}})


def test_keys_that_older_libraries_dumped_into_every_config_are_harmless() -> None:
    dumped = {"add_cross_attention": False, "pruned_heads": {}, "chunk_size_feed_forward": 0, "temperature": 1.0, "id2label": {}, "ep_size": 1}
    assert read_model(flat_config(**dumped)) == read_model(flat_config())


def test_rope_parameters_of_newer_configs_mean_the_same_as_rope_scaling() -> None:
    old = flat_config()
    new = flat_config(rope_parameters=old["rope_scaling"] | {"rope_type": "yarn", "rope_theta": old["rope_theta"]})
    del new["rope_scaling"], new["rope_theta"]
    assert read_model(new) == read_model(old)


def test_the_published_shapes_are_read() -> None:
    model = read_model(k25_config())
    assert (model.shape.layers, model.shape.experts, model.shape.chosen, model.shape.vocabulary) == (61, 384, 8, 163840)
    assert model.quantisation.scheme == "int4"
    assert read_model(fp8_config()).quantisation.scheme == "fp8"
