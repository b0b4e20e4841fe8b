"""Plain transformers code with our decoding loop: same tokens, and refusals by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

import mspeckv
from benchmarks.workloads import prompt_of
from mspeckv import KVPolicy, Pair, Speculation
from mspeckv.integrations import custom_generate as drop_in
from mspeckv.models.checks import cache_argument
from mspeckv.models.shared_draft import shared_draft
from tests.random_models import random_pair, random_prompt

LOSSLESS = KVPolicy("full", on_chip=2)


def both(pair: Pair, prompts: list[list[int]], **arguments: Any) -> list[list[list[int]]]:
    """Rows from ``generate`` as it is, and with our loop."""
    ids = torch.tensor(prompts)
    arguments = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 30, **arguments}
    own = mspeckv.as_custom_generate(draft=pair.draft, policy=LOSSLESS)
    plain = pair.target.generate(ids, do_sample=False, **arguments)
    ours = pair.target.generate(ids, do_sample=False, custom_generate=own, **arguments)
    return [plain.tolist(), ours.tolist()]


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 20, "eos_token_id": [3, 5, 9]},
        {"eos_token_id": [3, 5, 9], "pad_token_id": 0},
        {"suppress_tokens": [1, 2, 3]},
    ],
    ids=str,
)
def test_greedy_tokens_are_those_of_generate(family: str, arguments: dict[str, Any]) -> None:
    plain, ours = both(random_pair(family), [random_prompt(70)], **arguments)
    assert ours == plain


def test_rows_of_a_batch_are_padded_like_generate() -> None:
    prompts = [random_prompt(40, seed=seed) for seed in range(3)]
    plain, ours = both(random_pair(), prompts, eos_token_id=[3, 5, 9], pad_token_id=0)
    assert ours == plain


@pytest.mark.slow
def test_the_default_model_gives_generates_tokens(pair: Pair) -> None:
    assert pair.tokenizer is not None
    ids = torch.tensor([prompt_of("prose", pair.tokenizer, 300)])
    own = mspeckv.as_custom_generate(draft="default", policy=KVPolicy("full", on_chip=30))
    arguments = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 32, "do_sample": False}
    plain = pair.target.generate(ids, **arguments)
    streamer = TextIteratorStreamer(pair.tokenizer, skip_prompt=True)
    ours = pair.target.generate(ids, custom_generate=own, streamer=streamer, **arguments)
    assert ours.tolist() == plain.tolist()
    assert "".join(streamer) == pair.tokenizer.decode(plain[0, 300:])
    assert own.summaries[0].rounds < 32
    assert not any(weight.requires_grad for weight in pair.target.parameters())


def test_sampling_follows_torchs_seed() -> None:
    pair, ids = random_pair(), torch.tensor([random_prompt(50)])
    own = mspeckv.as_custom_generate(draft=pair.draft)
    rows = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        rows.append(
            pair.target.generate(
                ids, attention_mask=torch.ones_like(ids), custom_generate=own, do_sample=True,
                max_new_tokens=20, top_k=9, temperature=1.2,
            ).tolist()
        )  # fmt: skip
    assert rows[0] == rows[1] != rows[2]


class _AfterFive(StoppingCriteria):  # type: ignore[misc]
    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.tensor([input_ids.shape[1] >= 55])


def test_stopping_criteria_and_dictionaries_are_honoured() -> None:
    pair, ids = random_pair(), torch.tensor([random_prompt(50)])
    out = pair.target.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False,
        stopping_criteria=StoppingCriteriaList([_AfterFive()]), return_dict_in_generate=True,
        custom_generate=mspeckv.as_custom_generate(draft=pair.draft),
    )  # fmt: skip
    assert out.sequences.shape == (1, 55)


class _Odd(LogitsProcessor):  # type: ignore[misc]
    """Forbids even tokens."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, ::2] = float("-inf")
        return scores


def test_processors_without_state_can_be_vouched_for() -> None:
    pair, ids = random_pair(), torch.tensor([random_prompt(50)])
    arguments: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": 20,
        "do_sample": False,
        "logits_processor": LogitsProcessorList([_Odd()]),
    }
    plain = pair.target.generate(ids, **arguments)
    own = mspeckv.as_custom_generate(draft=pair.draft, policy=LOSSLESS, stateless=(_Odd,))
    assert pair.target.generate(ids, custom_generate=own, **arguments).tolist() == plain.tolist()
    with pytest.raises(ValueError, match="logits_processor: '_Odd'"):
        unknown = mspeckv.as_custom_generate(draft=pair.draft)
        pair.target.generate(ids, custom_generate=unknown, **arguments)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"num_beams": 2}, "num_beams"),
        ({"num_return_sequences": 2, "do_sample": True}, "num_return_sequences"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
        ({"return_dict_in_generate": True, "output_scores": True}, "output_scores"),
        ({"attention_mask": torch.tensor([[0, *[1] * 19]])}, "attention_mask"),
        ({"cache_implementation": "static"}, "cache_implementation"),
        ({"assistant_model": "draft"}, "assistant_model"),
        ({"max_new_tokens": 4000}, "prompt \\+ new_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_done_is_refused_by_name(arguments: dict[str, Any], name: str) -> None:
    pair, ids = random_pair(), torch.tensor([random_prompt(20)])
    if arguments.get("assistant_model"):
        arguments = {"assistant_model": pair.draft}
    own = mspeckv.as_custom_generate(draft=pair.draft)
    arguments = {
        "attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False, **arguments
    }  # fmt: skip
    with pytest.raises(ValueError, match=name):
        pair.target.generate(ids, custom_generate=own, **arguments)


def test_a_model_is_left_as_it_was() -> None:
    pair = random_pair("llama", seed=9)
    weight = next(pair.target.parameters())
    weight.requires_grad_(True)
    try:
        both(pair, [random_prompt(30)])
        shared_draft(pair.target, 1)
        assert weight.requires_grad
        pair.target.train()
        with pytest.raises(ValueError, match="training mode"):
            both(pair, [random_prompt(30)])
    finally:
        pair.target.eval()
        weight.requires_grad_(False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"draft": "other"}, "draft: 'other'"), ({"method": "magic"}, "method: 'magic'")],
)
def test_settings_are_checked_at_once(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mspeckv.as_custom_generate(speculation=Speculation(), **arguments)


def test_rows_of_a_batch_draw_for_themselves() -> None:
    pair = random_pair()
    ids = torch.tensor([random_prompt(30)] * 6)
    own = mspeckv.as_custom_generate(draft=pair.draft, policy=LOSSLESS)
    found = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        out = pair.target.generate(
            ids, attention_mask=torch.ones_like(ids), custom_generate=own, do_sample=True,
            max_new_tokens=12, top_k=0, temperature=1.5,
        )  # fmt: skip
        found.append(out[:, 30:].tolist())
    assert found[0] == found[1] != found[2]
    assert len({tuple(row) for row in found[0]}) == 6


class _AfterSevenCalls(StoppingCriteria):  # type: ignore[misc]
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.calls += 1
        return torch.full((input_ids.shape[0],), self.calls >= 7)


class _Record:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[list[Any]] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.given.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("rows", [1, 3])
def test_criteria_and_streamers_are_called_step_by_step(rows: int) -> None:
    pair = random_pair()
    ids = torch.tensor([random_prompt(30, seed=seed) for seed in range(rows)])
    seen = []
    for own in (None, mspeckv.as_custom_generate(draft=pair.draft, policy=LOSSLESS)):
        streamer = _Record()
        out = pair.target.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False,
            stopping_criteria=StoppingCriteriaList([_AfterSevenCalls()]), streamer=streamer,
            eos_token_id=[3, 5, 9], pad_token_id=0, custom_generate=own,
        )  # fmt: skip
        seen.append((out.tolist(), streamer.given, streamer.ended))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("policy", [LOSSLESS, KVPolicy("full"), KVPolicy(8, block=16, tail=0)])
def test_a_cache_handed_in_is_filled(policy: KVPolicy) -> None:
    pair, ids = random_pair(), torch.tensor([random_prompt(30)])
    own = mspeckv.as_custom_generate(draft=pair.draft, policy=policy)
    name, caches = cache_argument(pair.target), [DynamicCache(), DynamicCache()]
    arguments: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "do_sample": False}
    plain = pair.target.generate(ids, max_new_tokens=21, **{name: caches[0]}, **arguments)
    out = pair.target.generate(
        ids, max_new_tokens=21, custom_generate=own, return_dict_in_generate=True,
        **{name: caches[1]}, **arguments,
    )  # fmt: skip
    assert getattr(out, name) is caches[1]
    assert caches[1].get_seq_length() == caches[0].get_seq_length() == 50
    if policy.lossless:
        assert out.sequences.tolist() == plain.tolist()
        for mine, theirs in zip(caches[1].layers, caches[0].layers, strict=True):
            torch.testing.assert_close(mine.keys, theirs.keys, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(mine.values, theirs.values, rtol=1e-4, atol=1e-4)
        # and plain code goes on from it
        longer = torch.cat([out.sequences, ids[:, :3]], 1)
        for cache in caches:
            pair.target.generate(longer, max_new_tokens=5, do_sample=False, **{name: cache})
        assert caches[1].get_seq_length() == caches[0].get_seq_length()
    else:
        close = (caches[1].layers[0].keys - caches[0].layers[0].keys).abs().max()
        assert 0 < close < 0.1


def test_caches_that_cannot_be_filled_are_refused() -> None:
    pair, ids = random_pair(), torch.tensor([random_prompt(20)] * 2)
    own = mspeckv.as_custom_generate(draft=pair.draft)
    name = cache_argument(pair.target)
    filled = DynamicCache()
    pair.target(ids[:1, :5], **{name: filled})
    for rows, cache, words in (
        (2, DynamicCache(), "2 rows"),
        (1, filled, "a filled cache"),
        (1, StaticCache(pair.target.config, 64), "StaticCache"),
    ):
        with pytest.raises(ValueError, match=words):
            pair.target.generate(
                ids[:rows], attention_mask=torch.ones_like(ids[:rows]), max_new_tokens=8,
                do_sample=False, custom_generate=own, **{name: cache},
            )  # fmt: skip


@pytest.mark.parametrize("new", [1, 2, 25])
def test_a_prompt_of_one_token(new: int) -> None:
    plain, ours = both(random_pair(), [[7], [9]], max_new_tokens=new)
    assert ours == plain
    pair = random_pair()
    out = mspeckv.generate(pair, [7], new_tokens=new, policy=KVPolicy(8, 1, block=16, tail=8))
    assert len(out.tokens) == new
    assert sum(tier.passes for tier in out.tiers if tier.tier == 2) == out.rounds


def test_the_first_token_alone() -> None:
    pair = random_pair()
    own = mspeckv.as_custom_generate(draft=pair.draft, policy=LOSSLESS)
    arguments: dict[str, Any] = {"bos_token_id": 4, "max_new_tokens": 9, "do_sample": False}
    plain = pair.target.generate(**arguments)
    assert pair.target.generate(custom_generate=own, **arguments).tolist() == plain.tolist()


def test_stop_strings_find_their_tokenizer(pair: Pair) -> None:
    tiny, tokenizer = random_pair(), pair.tokenizer
    ids = torch.tensor([random_prompt(30)])
    own = mspeckv.as_custom_generate(draft=tiny.draft, policy=LOSSLESS)
    arguments: dict[str, Any] = {
        "attention_mask": torch.ones_like(ids), "max_new_tokens": 30, "do_sample": False,
    }  # fmt: skip
    whole = tiny.target.generate(ids, **arguments)
    assert tokenizer is not None
    # tokens below 17 are special ones, which stand for no string
    stop = tokenizer.decode(next(token for token in whole[0, 34:] if token > 16))
    arguments |= {"stop_strings": [stop], "tokenizer": tokenizer}
    plain = tiny.target.generate(ids, **arguments)
    ours = tiny.target.generate(ids, custom_generate=own, **arguments)
    assert ours.tolist() == plain.tolist()
    assert plain.shape[1] < whole.shape[1]


def test_autocast_is_refused() -> None:
    pair, ids = random_pair(), torch.tensor([random_prompt(20)])
    own = mspeckv.as_custom_generate(draft=pair.draft)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast: 'on'"):
        pair.target.generate(ids, max_new_tokens=4, do_sample=False, custom_generate=own)


def test_calls_at_once_have_results_of_their_own() -> None:
    pair = random_pair()
    own = mspeckv.as_custom_generate(draft=pair.draft, policy=LOSSLESS)

    def call(seed: int) -> Any:
        ids = torch.tensor([random_prompt(20 + seed, seed=seed)])
        return pair.target.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
            custom_generate=own,
        ).tolist()  # fmt: skip

    alone = [call(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(call, [0, 1, 2, 3] * 3)) == alone * 3


def test_the_docs_name_every_field_that_is_refused() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "drop-in.md"
    refused = page.read_text(encoding="utf-8").split("## What is refused")[1]
    for field in drop_in._DEFAULTS:
        assert f"`{field}`" in refused, field


@pytest.mark.parametrize("eos", [None, [3, 5, 9]], ids=["no end", "an end"])
def test_rows_that_are_over_go_on_or_are_padded_as_in_generate(eos: list[int] | None) -> None:
    class OddLast(StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return (input_ids[:, -1] % 7 == 1) & (input_ids.shape[1] > 33)

    prompts = [random_prompt(30, seed=seed) for seed in range(3)]
    plain, ours = both(
        random_pair(), prompts, stopping_criteria=StoppingCriteriaList([OddLast()]),
        eos_token_id=eos, pad_token_id=0,
    )  # fmt: skip
    assert ours == plain
