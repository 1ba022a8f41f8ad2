"""The small files of the published Kimi K2.5 layout: configs, tokenizer config, chat template.

Keys are those of the published files that describe the model. `auto_map` is left out, because it names Python files
that would be executed and that this folder does not have; values that only repeat a library's defaults are left out too.
"""

import pathlib
from typing import Any

from ..kind import SmallFiles
from .int4 import GROUP
from .shape import Shape
from .tokens import BASE, FILE, NAMED_SPECIALS

BOS, EOS, END_OF_TURN, MEDIA, PAD = BASE + 0, BASE + 1, BASE + 2, BASE + 21, BASE + 255
SIZES = """
first_k_dense_replace hidden_size intermediate_size kv_lora_rank moe_intermediate_size n_routed_experts num_attention_heads
num_experts_per_tok num_hidden_layers q_lora_rank qk_nope_head_dim qk_rope_head_dim rms_norm_eps rope_theta
routed_scaling_factor v_head_dim vocab_size
"""  # keys of the published text_config that are fields of Shape under the same name
NOT_SPECIAL = {11, 12, 13, 14, 15, 22, 23}  # marks of tool calls and of thinking: kept when text is decoded without specials

CHAT_TEMPLATE = """\
{#- Each message is <|im_ROLE|>ROLE<|im_middle|>CONTENT<|im_end|>. There is no default system prompt.
    `thinking` false puts an empty <think></think> in front of the answer. -#}
{%- macro text(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- else -%}
    {%- for part in content or [] if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}<|im_user|>{%- elif message.role == 'assistant' -%}<|im_assistant|>{%- else -%}<|im_system|>{%- endif -%}
  {{- (message.name or message.role) ~ '<|im_middle|>' ~ text(message.content) ~ '<|im_end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_assistant|>assistant<|im_middle|>' -}}
  {%- if thinking is defined and thinking is false -%}{{- '<think></think>' -}}{%- endif -%}
{%- endif -%}
"""


def quantisation() -> dict[str, Any]:
    """`quantization_config`: int4 for every Linear but those ignored, which leaves the routed experts."""
    weights = {
        "actorder": None,
        "block_structure": None,
        "dynamic": False,
        "group_size": GROUP,
        "num_bits": 4,
        "observer": "minmax",
        "observer_kwargs": {},
        "strategy": "group",
        "symmetric": True,
        "type": "int",
    }
    group = {"input_activations": None, "output_activations": None, "targets": ["Linear"], "weights": weights}
    return {
        "config_groups": {"group_0": group},
        "format": "pack-quantized",
        "ignore": ["lm_head", "re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }


def rope_scaling(shape: Shape) -> dict[str, Any]:
    return {
        "beta_fast": shape.beta_fast,
        "beta_slow": shape.beta_slow,
        "factor": shape.yarn_factor,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": shape.original_positions,
        "type": "yarn",
    }


def text_config(shape: Shape) -> dict[str, Any]:
    return {name: getattr(shape, name) for name in SIZES.split()} | {
        "architectures": ["DeepseekV3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "aux_loss_alpha": 0.001,
        "bos_token_id": BOS,
        "dtype": "bfloat16",
        "eos_token_id": EOS,
        "ep_size": 1,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": shape.positions,
        "model_type": "kimi_k2",
        "moe_layer_freq": 1,
        "n_group": 1,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "num_key_value_heads": shape.num_attention_heads,
        "num_nextn_predict_layers": 0,
        "pad_token_id": PAD,
        "pretraining_tp": 1,
        "quantization_config": quantisation(),
        "rope_scaling": rope_scaling(shape),
        "scoring_func": "sigmoid",
        "seq_aux": True,
        "tie_word_embeddings": False,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "use_cache": True,
    }


def vision_config(shape: Shape) -> dict[str, Any]:
    """A vision tower of one block: its tensors are there to be skipped by readers of the text model."""
    return {
        "init_pos_emb_height": 4,
        "init_pos_emb_time": 4,
        "init_pos_emb_width": 4,
        "merge_kernel_size": [2, 2],
        "merge_type": "sd2_tpool",
        "mm_hidden_size": 32,
        "mm_projector_type": "patchmerger",
        "patch_size": 14,
        "pos_emb_type": "divided_fixed",
        "projector_hidden_act": "gelu",
        "projector_ln_eps": 1e-05,
        "text_hidden_size": shape.hidden_size,
        "video_attn_type": "spatial_temporal",
        "vt_hidden_size": 32,
        "vt_intermediate_size": 64,
        "vt_num_attention_heads": 2,
        "vt_num_hidden_layers": 1,
    }


def config(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "bos_token_id": BOS,
        "dtype": "bfloat16",
        "eos_token_id": EOS,
        "ignore_index": -100,
        "media_placeholder_token_id": MEDIA,
        "model_type": "kimi_k25",
        "pad_token_id": PAD,
        "text_config": text_config(shape),
        "tie_word_embeddings": False,
        "use_unified_vision_chunk": True,
        "video_placeholder": "<|kimi_k25_video_placeholder|>",
        "vision_config": vision_config(shape),
    }


def generation_config(shape: Shape) -> dict[str, Any]:
    return {"eos_token_id": END_OF_TURN, "max_length": shape.positions}


def tokenizer_config(shape: Shape) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {str(BASE + i): {"content": name, "special": i not in NOT_SPECIAL, **flags} for i, name in NAMED_SPECIALS.items()}
    return {
        "added_tokens_decoder": added,
        "additional_special_tokens": [NAMED_SPECIALS[i] for i in (2, 3, 4, 6, 7, 9, 10, 17)],
        "bos_token": "[BOS]",
        "clean_up_tokenization_spaces": False,
        "eos_token": "[EOS]",
        "extra_special_tokens": {},
        "model_max_length": shape.positions,
        "pad_token": "[PAD]",
        "tokenizer_class": "TikTokenTokenizer",
        "unk_token": "[UNK]",
    }


def files(data: pathlib.Path) -> SmallFiles:
    """Everything in the folder but the shards, their index and the evaluation's files."""
    shape = Shape()
    return {
        "config.json": config(shape),
        "generation_config.json": generation_config(shape),
        "tokenizer_config.json": tokenizer_config(shape),
        "chat_template.jinja": CHAT_TEMPLATE,
        FILE: (data / FILE).read_text("ascii"),
    }
