"""The small files of the published Qwen3-Next layout: configs, tokenizer, chat template.

Keys are those of the published files that describe the model. The sampling settings of the published generation_config.json
are left out: nothing was measured with them.
"""

import json
import pathlib
from typing import Any

from ..kind import SmallFiles
from .shape import Shape
from .tokens import ADDED, END_OF_TEXT, END_OF_TURN, FILE, ORDINARY, SPECIAL

SIZES = """
full_attention_interval head_dim hidden_size linear_conv_kernel_dim linear_key_head_dim linear_num_key_heads linear_num_value_heads
linear_value_head_dim max_position_embeddings moe_intermediate_size num_attention_heads num_experts num_experts_per_tok
num_hidden_layers num_key_value_heads partial_rotary_factor rms_norm_eps rope_theta router_aux_loss_coef
shared_expert_intermediate_size vocab_size
"""  # keys of the published config that are fields of Shape under the same name

CHAT_TEMPLATE = """\
{#- Each message is <|im_start|>ROLE, a line end, CONTENT, <|im_end|>, a line end. There is no default system prompt. -#}
{%- macro text(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- else -%}
    {%- for part in content or [] if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {{- '<|im_start|>' ~ message.role ~ '\\n' ~ text(message.content) ~ '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def config(shape: Shape) -> dict[str, Any]:
    return {name: getattr(shape, name) for name in SIZES.split()} | {
        "architectures": ["Qwen3NextForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": END_OF_TEXT,
        "decoder_sparse_step": 1,
        "eos_token_id": END_OF_TURN,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "intermediate_size": shape.hidden_size * 5 // 2,  # of layers without experts: there are none
        "mlp_only_layers": [],
        "model_type": "qwen3_next",
        "norm_topk_prob": True,
        "output_router_logits": False,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
    }


def generation_config() -> dict[str, Any]:
    return {"bos_token_id": END_OF_TEXT, "eos_token_id": [END_OF_TURN, END_OF_TEXT], "pad_token_id": END_OF_TEXT}


def tokenizer_config(shape: Shape) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    added = {str(ORDINARY + i): {"content": name, "special": name in SPECIAL, **flags} for i, name in enumerate(ADDED)}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": SPECIAL[1:],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": shape.max_position_embeddings,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def merge_lines(merges: list[Any]) -> str:
    """`merges.txt`: a version line, then the two halves of each merge"""
    pairs = (merge if isinstance(merge, str) else " ".join(merge) for merge in merges)
    return "".join(f"{line}\n" for line in ("#version: 0.2", *pairs))


def files(data: pathlib.Path) -> SmallFiles:
    """Everything in the folder but the shards, their index and the evaluation's files."""
    shape, tokenizer = Shape(), (data / FILE).read_text()
    learned = json.loads(tokenizer)["model"]
    return {
        "config.json": config(shape),
        "generation_config.json": generation_config(),
        "tokenizer_config.json": tokenizer_config(shape),
        "tokenizer.json": tokenizer,
        "vocab.json": json.dumps(learned["vocab"], ensure_ascii=False, separators=(",", ":")),
        "merges.txt": merge_lines(learned["merges"]),
    }
