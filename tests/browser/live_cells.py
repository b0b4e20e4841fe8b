"""Cells of a notebook with a `LiveLab` on a tiny pair: whole runs in tenths of a second."""

_TOKENIZER = """from dataclasses import replace

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mspeckv_widgets import LiveLab

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
words = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
words.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
"""

LIVE = f"""from mspeckv.testing import tiny_pair

{_TOKENIZER}
lab = LiveLab(replace(tiny_pair(vocab=len(letters)), tokenizer=tokenizer))
lab.controls.set(prefill=128, new_tokens=8, link="off", budget=96, on_chip=1)
lab"""

MODELS = f"""import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Lfm2Config

from mspeckv import Pair

{_TOKENIZER}
SHAPE = {{
    "vocab_size": len(letters), "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 2048, "initializer_range": 0.3, "tie_word_embeddings": False,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}}


def panel(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    lab = LiveLab(Pair.of(model, model, tokenizer))
    lab.controls.set(prefill=128, new_tokens=16, link="off", budget=96, on_chip=1, resident=0)
    return lab
"""
"""For the panels below; each on a random target that is its own draft."""
HYBRID = 'panel(Lfm2Config(layer_types=["conv", "full_attention"] * 2, **SHAPE))'
WINDOWED = """kinds = ["sliding_attention", "full_attention"] * 2
panel(Gemma2Config(layer_types=kinds, sliding_window=24, head_dim=16, **SHAPE))"""
