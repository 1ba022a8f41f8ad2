"""A checkpoint as GGUF, without a vocabulary, by llama.cpp's own converter:  python convert_for_llama.py LLAMA_CPP CHECKPOINT OUT.gguf"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(sys.argv[1], "gguf-py")))
sys.path.insert(0, sys.argv[1])

import gguf
from conversion import get_model_class
from conversion.base import ModelBase

folder = Path(sys.argv[2])
config = ModelBase.load_hparams(folder, False)
model_class = get_model_class(config["architectures"][0])


class WithoutVocabulary(model_class):  # type: ignore[valid-type, misc]
    model_arch = model_class.model_arch

    def set_vocab(self) -> None:
        self.gguf_writer.add_tokenizer_model("none")
        self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])


WithoutVocabulary(folder, gguf.LlamaFileType.MOSTLY_BF16, Path(sys.argv[3]), use_temp_file=False).write()
