"""Architectures as arithmetic: `config.json` in, tensors in, activations out; never a path, never a file.

    config.json -> catalog -> one file per architecture -> a Decoder: parts (what to read), embed, layer, head (what to compute)

Letters used at the end of lines: T positions, D hidden, H heads, N nope width, R rotary width, V value width (and vocabulary
where a line says so), C latent width, E experts, K experts per token, F inner width of an MLP.
"""
