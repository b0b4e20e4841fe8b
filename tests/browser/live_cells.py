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


def pair_of(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    return Pair.of(model, model, tokenizer)


def panel(config):
    lab = LiveLab(pair_of(config))
    lab.controls.set(prefill=128, new_tokens=16, link="off", budget=96, on_chip=1, resident=0)
    return lab
"""
"""For the panels below; each on a random target that is its own draft."""
_OF_HYBRID = 'Lfm2Config(layer_types=["conv", "full_attention"] * 2, **SHAPE)'
_OF_WINDOWED = """Gemma2Config(
    layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=24, head_dim=16, **SHAPE
)"""
HYBRID, WINDOWED = f"panel({_OF_HYBRID})", f"panel({_OF_WINDOWED})"
EXPLORERS = """from IPython.display import display

from mspeckv import KVPolicy, RunConfig, Sampling, Speculation, calibrate, profile, stream
from mspeckv_study.documents import load_document
from mspeckv_widgets import (
    AcceptanceExplorer, MemoryMap, MovingRound, QuantExplorer, RetrievalExplorer, Roofline,
    TierBreakdown, Timeline, TokenStory,
)

ceilings = calibrate()


def explore(config):
    pair = pair_of(config)
    prompt = load_document("python-reference", pair.tokenizer, 256)
    policy, guess = KVPolicy(8, on_chip=1), Speculation(budget=96)
    given = {"new_tokens": 8, "policy": policy, "speculation": guess}
    given |= {"sampling": Sampling(temperature=0, stop_at_eos=False)}
    profiled = profile(pair, prompt, link=0.05, **given)
    events = list(stream(pair, prompt, RunConfig.build(link="live", **given)))
    for one in (
        QuantExplorer(pair, prompt),
        AcceptanceExplorer.of_model(pair, prompt, last=8),
        RetrievalExplorer(pair, prompt, speculation=guess),
        TokenStory(pair, events),
        MovingRound(events, pair),
        TierBreakdown(profiled),
        Timeline(profiled, 0),
        Roofline(profiled, ceilings),
        MemoryMap(profiled.summary),
    ):
        display(one)
"""
"""What labs look at a pair with, but for the live panel."""
EXPLORED = [f"explore({_OF_HYBRID})", f"explore({_OF_WINDOWED})"]
