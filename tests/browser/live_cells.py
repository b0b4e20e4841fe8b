"""Cells of a notebook with a `LiveLab` on a tiny pair: whole runs in tenths of a second."""

LIVE = """from dataclasses import replace

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mspeckv.testing import tiny_pair
from mspeckv_widgets import LiveLab

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
words = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
words.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
lab = LiveLab(replace(tiny_pair(vocab=len(letters)), tokenizer=tokenizer))
lab.controls.set(prefill=128, new_tokens=8, link="off", budget=96, on_chip=1)
lab"""
