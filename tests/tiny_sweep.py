"""A sweep of tiny models, as quick as a test needs it; run as a program, in a process of its own.

python -m tests.tiny_sweep TARGET OUT [GB/S]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mspeckv import Link, Pair, Speculation
from mspeckv_study.experiments import Experiment, Models, experiment, run
from tests.random_models import random_pair

LAYERS = 4
VOCAB = 257
SLOW_GBPS = 0.001
"""At which a trial takes a large part of a second."""


def save_target(folder: Path) -> str:
    """A random target with a tokenizer of bytes, as a folder that any process can load."""
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE({**vocab, "?": 256}, [], unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?").save_pretrained(folder)
    random_pair(layers=LAYERS, vocab=VOCAB).target.save_pretrained(folder)
    return str(folder)


def tiny_models(target: str) -> Models:
    """What a sweep over the saved target loads."""
    return Models(target, draft="none")


def tiny_pair(target: str) -> Pair:
    """The saved target, loaded."""
    return tiny_models(target).load()


def tiny(link: Link | None = None) -> Experiment:
    """A2 on four layers: one on-chip, one to three of the rest resident."""
    whole = experiment("A2")
    preset = replace(
        whole.preset,
        layers=LAYERS,
        prefill=200,
        on_chip=1,
        resident=1,
        new_tokens=12,
        speculation=Speculation(gamma=4, draft_gamma=2, budget=64, recent=16, chunk=8),
        link=link or Link(),
    )
    return replace(
        whole, values=(1, 3), variants=("triforce", "mspeckv", "all-float"), preset=preset
    )


if __name__ == "__main__":
    target, out, *speed = sys.argv[1:]
    link = Link("custom", float(speed[0])) if speed else None
    run(
        tiny(link), seeds=(1, 2), out=out, models=tiny_models(target),
        on_row=lambda row: print(row.key, flush=True),
    )  # fmt: skip
