"""Every field of a generation config: with our loop `generate` does the same, or refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    WatermarkingConfig,
)
from transformers.cache_utils import Cache
from transformers.generation import CompileConfig

import mspeckv
from mspeckv import KVPolicy
from tests.random_models import random_pair

VOCAB, PROMPT, NEW = 64, 20, 12
ENDS: dict[str, Any] = {"eos_token_id": [10, 21]}
"""One in each row of what `generate` gives greedily, at different places."""
DRAW: dict[str, Any] = {"do_sample": True, "top_k": 2}
DICT: dict[str, Any] = {"return_dict_in_generate": True}


@dataclass(frozen=True)
class Case:
    """A value of one field.

    Attributes:
        value: what is asked for.
        beside: other arguments, without which the field does nothing.
        refused: the name that our refusal gives; None where the result is ``generate``'s.
        idle: true where even ``generate`` decodes the same tokens without the field.
        prompt: tokens in each row's prompt; 0 for no prompt.
        rows: rows of the batch.
    """

    value: Any
    beside: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    idle: bool = False
    prompt: int = PROMPT
    rows: int = 2


def same(value: Any, *, prompt: int = PROMPT, rows: int = 2, **beside: Any) -> Case:
    """The field changes what ``generate`` gives, and what we give alike."""
    return Case(value, beside, prompt=prompt, rows=rows)


def idle(value: Any, **beside: Any) -> Case:
    """The field changes nothing here, with or without our loop."""
    return Case(value, beside, idle=True)


def refused(value: Any, by: str, **beside: Any) -> Case:
    """Our loop refuses, and names ``by``."""
    return Case(value, beside, refused=by)


def tokenizer() -> PreTrainedTokenizerFast:
    """Token 12 is the word ``t12``; token 0 a word that transformers spells stop strings after."""
    special = "abcdef"
    vocabulary = {special: 0} | {f"t{token}": token for token in range(1, VOCAB)}
    words = Tokenizer(WordLevel(vocabulary, unk_token=special))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token=special, pad_token=special)


HALF = list(range(VOCAB // 2))
CASES: dict[str, Case] = {
    # how long
    "max_length": same(PROMPT + 5, max_new_tokens=None),
    "max_new_tokens": same(5),
    "min_length": same(PROMPT + NEW, **ENDS),
    "min_new_tokens": same(NEW, **ENDS),
    "max_time": same(0.0),
    "stop_strings": same(["t10", "t21"], tokenizer=tokenizer()),
    # which way of decoding
    "do_sample": same(True, top_k=0, typical_p=1e-6),
    "num_beams": refused(2, "num_beams"),
    "num_return_sequences": refused(2, "num_return_sequences", **DRAW),
    "penalty_alpha": refused(0.6, "penalty_alpha", top_k=4),
    "dola_layers": refused("low", "dola_layers"),
    "constraints": refused([1], "constraints"),
    "force_words_ids": refused([[1]], "force_words_ids"),
    "use_mtp": refused(True, "use_mtp"),
    "prompt_lookup_num_tokens": refused(3, "prompt_lookup_num_tokens"),
    "assistant_early_exit": refused(2, "assistant_early_exit"),
    "is_assistant": refused(True, "is_assistant"),
    # the cache
    "use_cache": idle(False),
    "cache_implementation": refused("static", "cache_implementation"),
    "cache_config": idle({"nbits": 4}),
    "max_cache_len": idle(200),
    "prefill_chunk_size": idle(4),
    "compile_config": idle(CompileConfig()),
    "disable_compile": idle(True),
    # logits
    "temperature": same(1e-3, **DRAW),
    "top_k": same(1, do_sample=True),
    "top_p": same(1e-6, **DRAW),
    "min_p": same(1.0, **DRAW),
    "top_h": refused(0.5, "logits_processor: 'TopHLogitsWarper'", do_sample=True),
    "typical_p": same(1e-6, do_sample=True, top_k=0),
    "epsilon_cutoff": same(0.999, **DRAW),
    "eta_cutoff": same(0.9, **DRAW),
    "repetition_penalty": same(1.5),
    "encoder_repetition_penalty": refused(
        1.5, "logits_processor: 'EncoderRepetitionPenaltyLogitsProcessor'"
    ),
    "no_repeat_ngram_size": same(1),
    "encoder_no_repeat_ngram_size": refused(
        1, "logits_processor: 'EncoderNoRepeatNGramLogitsProcessor'"
    ),
    "bad_words_ids": same([[token] for token in HALF]),
    "sequence_bias": same({(token,): 9.0 for token in range(8)}),
    "forced_bos_token_id": same(7, prompt=1),
    "forced_eos_token_id": same(7),
    "exponential_decay_length_penalty": same((2, 3.0), **ENDS),
    "suppress_tokens": same(HALF),
    "begin_suppress_tokens": same([26, 36]),
    "renormalize_logits": idle(True),
    "remove_invalid_values": idle(True),
    "token_healing": same(True, tokenizer=tokenizer()),
    "guidance_scale": refused(
        1.5, "logits_processor: 'UnbatchedClassifierFreeGuidanceLogitsProcessor'"
    ),
    "watermarking_config": refused(
        WatermarkingConfig(), "logits_processor: 'WatermarkLogitsProcessor'"
    ),
    # what is returned
    "return_dict_in_generate": same(True, rows=1),
    "output_scores": refused(True, "output_scores", **DICT),
    "output_logits": refused(True, "output_logits", **DICT),
    "output_attentions": refused(True, "output_attentions", **DICT),
    "output_hidden_states": refused(True, "output_hidden_states", **DICT),
    # special tokens
    "bos_token_id": same(7, prompt=0, rows=1),
    "eos_token_id": same([10, 21]),
    "pad_token_id": same(1, **ENDS),
    "decoder_start_token_id": idle(7),
    # fields of other ways of decoding, and what is only carried along
    "early_stopping": idle(True),
    "length_penalty": idle(2.0),
    "num_beam_groups": idle(2),
    "diversity_penalty": idle(0.5),
    "low_memory": idle(True),
    "num_assistant_tokens": idle(3),
    "num_assistant_tokens_schedule": idle("heuristic"),
    "assistant_confidence_threshold": idle(0.9),
    "assistant_lookbehind": idle(3),
    "target_lookbehind": idle(3),
    "assistant_ensemble_weight": idle(0.5),
    "speculation_type": idle("dflash"),
    "max_matching_ngram_size": idle(3),
    "transformers_version": idle("5.0.0"),
}

UNTRIED = {"continuous_batching_config"}
"""Fields that warn that they are going (FutureWarning), and that decoding never reads."""


@cache
def fields() -> list[str]:
    """Public fields of the installed release's generation config."""
    return sorted(name for name in vars(GenerationConfig()) if not name.startswith("_"))


def prompts(rows: int, length: int) -> torch.Tensor:
    """Prompts ``[rows, length]`` after which greedy choices are far from ties.

    They end in t1, t2: words that more than one other begins with, as healing wants them.
    """
    generator = torch.Generator().manual_seed(36)
    ids = torch.randint(1, VOCAB, (rows, length), generator=generator)
    ids[:, -1] = torch.arange(1, rows + 1)
    return ids


def generate(case: Case, *, own: bool, **arguments: Any) -> Any:
    """What ``generate`` gives for the case's prompt, with our loop or its own."""
    pair = random_pair(vocab=VOCAB)
    asked: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    asked |= {**case.beside, **arguments}
    if case.prompt:
        ids = prompts(case.rows, case.prompt)
        asked |= {"inputs": ids, "attention_mask": torch.ones_like(ids)}
    if own:
        policy = KVPolicy("full", on_chip=2)
        asked["custom_generate"] = mspeckv.as_custom_generate(draft=pair.draft, policy=policy)
    torch.manual_seed(0)
    return plain_values(pair.target.generate(**asked))


def plain_values(result: Any) -> Any:
    """A result that can be compared: lists for tensors, a length for a cache."""
    if isinstance(result, torch.Tensor):
        return result.tolist()
    if isinstance(result, Cache):
        return result.get_seq_length()
    return {name: plain_values(value) for name, value in result.items()}


def test_every_field_of_the_installed_release_is_judged() -> None:
    assert set(fields()) <= CASES.keys() | UNTRIED, "say what our loop does with the new field"


@pytest.mark.parametrize("name", [name for name in fields() if name in CASES])
def test_a_field_does_what_it_does_in_generate_or_is_refused(name: str) -> None:
    case = CASES[name]
    asked = {name: case.value}
    if case.refused is not None:
        with pytest.raises(ValueError, match=f"^{case.refused}:? "):
            generate(case, own=True, **asked)
        return
    expected = generate(case, own=False, **asked)
    assert generate(case, own=True, **asked) == expected
    if case.idle:
        assert generate(case, own=False) == expected
    elif case.prompt:
        assert generate(case, own=False) != expected, "the case does not show what the field does"
