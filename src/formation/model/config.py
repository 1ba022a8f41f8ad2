"""Reading `config.json` strictly: every key has a type and a range, and a key that nobody understands refuses the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from formation.errors import UnsupportedError

# Keys that cannot change a forward pass: bookkeeping, loss, initialisation, generation defaults that older versions of
# the transformers library wrote into every config. `torch_dtype` says what plain weights are stored as; the files say it again.
INERT = frozenset(
    [
        "_name_or_path",
        "architectures",
        "auto_map",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "name_or_path",
        "use_cache",
        "initializer_range",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "sep_token_id",
        "decoder_start_token_id",
        "tokenizer_class",
        "prefix",
        "task_specific_params",
        "attention_dropout",
        "aux_loss_alpha",
        "seq_aux",
        "router_aux_loss_coef",
        "output_router_logits",
        "ep_size",
        "finetuning_task",
        "problem_type",
        "id2label",
        "label2id",
        "return_dict",
        "return_dict_in_generate",
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "torchscript",
        "use_bfloat16",
        "tf_legacy_loss",
        "remove_invalid_values",
        "bad_words_ids",
        "begin_suppress_tokens",
        "suppress_tokens",
        "do_sample",
        "early_stopping",
        "diversity_penalty",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "repetition_penalty",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "head_dim",
        "qk_head_dim",
        "is_decoder",
    ]
)
# Keys that would change arithmetic under any other value than the one that means "off".
OFF: Mapping[str, tuple[object, ...]] = {
    "add_cross_attention": (False,), "cross_attention_hidden_size": (None,), "is_encoder_decoder": (False,),
    "tie_encoder_decoder": (False,), "pruned_heads": ({}, None), "chunk_size_feed_forward": (0,),
    "sliding_window": (None,), "use_sliding_window": (False,), "attention_bias": (False,), "mlp_bias": (False,),
    "pretraining_tp": (1,), "moe_layer_freq": (1,), "mlp_only_layers": ([], None), "decoder_sparse_step": (1,),
}  # fmt: skip
_MISSING: Any = object()


class Keys:
    """One JSON object of a config, read key by key. `finish` refuses, by name, what was neither read nor inert."""

    def __init__(self, values: object, where: str = "config.json") -> None:
        if not isinstance(values, Mapping):
            raise UnsupportedError(f"{where}: expected an object, got {type(values).__name__}")
        self.values: Mapping[str, Any] = values
        self.where = where
        self._read: set[str] = set()

    def refusal(self, name: str, expected: str) -> UnsupportedError:
        """The error that says what was expected of a key."""
        return UnsupportedError(
            f"{self.where}: key {name!r}: expected {expected}, got {self.values.get(name)!r}",
            hint="only configurations whose arithmetic is fully understood are run",
        )

    def _get(self, name: str, default: Any) -> Any:
        self._read.add(name)
        value = self.values.get(name, default)
        if value is _MISSING:
            raise UnsupportedError(f"{self.where}: expected the key {name!r}, got none")
        return value

    def integer(self, name: str, default: Any = _MISSING, *, low: int = 1, high: int = 1 << 31) -> int:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refusal(name, f"an integer from {low} to {high}")
        return value

    def optional_integer(self, name: str, *, low: int = 1) -> int | None:
        return None if self._get(name, None) is None else self.integer(name, low=low)

    def number(self, name: str, default: Any = _MISSING, *, low: float = 0.0, high: float = 1e30) -> float:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.refusal(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str, default: Any = _MISSING) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self.refusal(name, "true or false")
        return value

    def choice(self, name: str, allowed: Iterable[str], default: Any = _MISSING) -> str:
        value = self._get(name, default)
        if value not in tuple(allowed):
            raise self.refusal(name, " or ".join(repr(a) for a in allowed))
        return str(value)

    def section(self, name: str) -> Keys | None:
        value = self._get(name, None)
        return None if value is None else Keys(value, f"{self.where}: {name}")

    def skip(self, *names: str) -> None:
        """Keys that this architecture knows and does not need."""
        self._read.update(names)

    def finish(self, inert: frozenset[str] = INERT) -> None:
        for name in sorted(self.values.keys() - self._read - inert):
            if name not in OFF:
                raise UnsupportedError(
                    f"{self.where}: expected only keys that are understood, got {name!r} = {str(self.values[name])[:60]!r}",
                    hint="an unknown key could change the arithmetic; it must be understood before the model is run",
                )
            if self.values[name] not in OFF[name]:
                raise self.refusal(name, " or ".join(repr(a) for a in OFF[name]))
