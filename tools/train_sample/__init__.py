"""How the shipped sample checkpoints were made: corpus, model, training, export, evaluation.

Development tooling. It needs torch, tokenizers, tiktoken, safetensors and, for `check` and `evaluate`, transformers.
Nothing here is imported by the package. `README.md` says how to re-run it.
"""
