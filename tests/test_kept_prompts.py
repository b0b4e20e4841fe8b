"""A prompt that was read once is placed into any cache as if it had been read there."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice

import pytest
import torch

from mspeckv import KVPolicy, Link, Pair, Prefill, RunConfig, RunSummary, Sampling, Speculation
from mspeckv.accelerate.kept_prompts import Brought, Prefills
from mspeckv.api import engine_of, release, stream
from mspeckv.context import Shown
from mspeckv.decoding.tiers import build_tiers
from mspeckv.events import Transfer
from mspeckv.extensions.hot_chunks import HotChunkCache
from mspeckv.kv.doors import placements, tier1_caches
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.tier1 import Tier1Cache
from mspeckv.record import Cancelled, Ledger, Recorder
from mspeckv.settings import Width
from mspeckv.testing import SMALL, tiny_pair, tiny_prompt
from tests.random_models import random_pair, random_prompt

Left = tuple[object, list[torch.Tensor], list[Transfer]]
"""Counts, contents and transfers."""
PAIR, PROMPT = tiny_pair(layers=4), tiny_prompt(150)
GREEDY = Sampling(0, stop_at_eos=False)


def left(
    config: RunConfig,
    prefills: Prefills | None = None,
    pair: Pair = PAIR,
    prompt: Sequence[int] = PROMPT,
    cancel: threading.Event | None = None,
) -> Left:
    """What a prompt leaves in a run's caches and on its link, read or taken up."""
    recorder = Recorder(Ledger(), cancel)
    with CopyEngine(recorder.ledger, None) as link, torch.inference_mode(), ExitStack() as lent:
        tiers = build_tiers(engine_of(pair), config, pair, list(prompt), link, recorder, lent=lent)
        if prefills is not None:
            prefills.read(tiers.prefilled, prompt[:-1], link)
        else:
            for reader in tiers.prefilled:
                reader.prefill(list(prompt[:-1]))
        link.drain()
        counts: list[object] = []
        parts: list[torch.Tensor] = []
        for reader in tiers.prefilled:
            lengths, held = reader.cache.state()
            counts += [lengths, reader.cache.length]
            parts += held
        looking = tiers.prefilled[-1].seat.onlooker
        if isinstance(looking, RetrievalCache):
            counts += [looking.length, [layer.length for layer in looking.layers]]
            parts += [part for layer in looking.layers for part in layer.contents]
            parts += [*looking.landmarks.values(), *looking.chosen.values()]
        if isinstance(looking, HotChunkCache):
            counts.append([list(held.items()) for heads in looking.places for held in heads])
            # slots beyond the chosen ones hold nothing yet
            parts += [looking.home, looking.buffer[:, :, : looking.plan.chosen]]
        moved = [replace(one, start=0.0, ms=0.0, wait_ms=0.0) for one in recorder.ledger.since()]
        return counts, [part.clone() for part in parts], moved


def same(one: Left, other: Left) -> bool:
    """Whether two runs begin with the same counts, bits and transfers."""
    alike = len(one[1]) == len(other[1]) and all(map(torch.equal, one[1], other[1]))
    return alike and one[0] == other[0] and one[2] == other[2]


def policies(count: int) -> Iterator[tuple[str, KVPolicy]]:
    """Methods with policies of every kind, at random."""
    dice = random.Random(0)
    for _ in range(count):
        kind = dice.choice(["full", "static", "lru", "nibble", "rotated", "lloyd-sketch"])
        on_chip = dice.randint(0, 3)
        resident = dice.randint(0, 4 - on_chip)
        bits: Width = (
            8 if kind == "nibble" else dice.choice([8, 4, 2]) if kind != "full" else "full"
        )
        policy = KVPolicy(
            bits, on_chip, 0 if kind == "full" else resident, block=16, group=8,
            tail=dice.randint(0, 20), nibble=kind == "nibble",
            residency="lru" if kind == "lru" else "static",
            codec=kind if kind in ("rotated", "lloyd-sketch") else "kivi",
        )  # fmt: skip
        methods = ["autoregressive", "vanilla", "triforce" if kind == "full" else "mspeckv"]
        yield dice.choice(methods), policy


SPECULATIONS = (
    SMALL,
    replace(SMALL, budget=48, window=40, sinks=4),
    replace(SMALL, retrieval="attended", chunk=1),
    replace(SMALL, tier1="hot chunks"),
)


def test_what_is_placed_is_bit_for_bit_what_reading_leaves() -> None:
    kept, dice, taken = Prefills(), random.Random(1), 0
    for method, policy in policies(40):
        config = RunConfig(method, 20, policy, dice.choice(SPECULATIONS), GREEDY)
        assert same(left(config), left(config, kept)), config
        taken += kept.shared
    assert taken == 39
    assert kept.bytes < 3 * PAIR.layers * len(PROMPT) * PAIR.kv_shape.token_bytes


def test_on_other_families_and_in_half_precision_too() -> None:
    for family, dtype in (("phi3", torch.float32), ("gpt-neox", torch.float32),
                          ("qwen3", torch.bfloat16)):  # fmt: skip
        pair, prompt, kept = random_pair(family, dtype=dtype), random_prompt(90), Prefills()
        for policy in (KVPolicy(8, 2, 1, block=16, group=8), KVPolicy(4, 0, 0, block=16, group=8)):
            config = RunConfig("mspeckv", 20, policy, SMALL, GREEDY)
            assert same(left(config, None, pair, prompt), left(config, kept, pair, prompt))
        assert kept.shared


def test_tokens_counts_and_bytes_are_those_of_a_run_that_read() -> None:
    kept, dice = Prefills(), random.Random(2)
    for turn, (method, policy) in enumerate(policies(8)):
        config = RunConfig(
            method, dice.choice([6, 12]), policy, dice.choice(SPECULATIONS),
            Sampling(dice.choice([0.0, 0.8]), seed=turn, stop_at_eos=False),
            dice.choice([Link(), Link("custom", 0.5)]),
        )  # fmt: skip
        first, *_, read = stream(PAIR, PROMPT, config)
        opening, *_, taken = stream(PAIR, PROMPT, config, prefills=kept)
        assert isinstance(first, Prefill)
        assert isinstance(opening, Prefill)
        assert isinstance(read, RunSummary)
        assert isinstance(taken, RunSummary)
        assert (read.tokens, read.settled_by) == (taken.tokens, taken.settled_by)
        assert (read.residency, read.kv_read_bytes) == (taken.residency, taken.kv_read_bytes)
        for one, other in zip(read.tiers, taken.tiers, strict=True):
            assert replace(one, ms=0.0) == replace(other, ms=0.0)
        moved = [[(t.direction, t.purpose, t.layer, t.tier, t.bytes) for t in event.transfers]
                 for event in (first, opening)]  # fmt: skip
        assert moved[0] == moved[1]
        assert read.link.to_host_bytes == taken.link.to_host_bytes
        assert read.link.to_device_bytes == taken.link.to_device_bytes
        # a pass that there was not is not told; a draft's window may be another
        assert kept.shared == (turn > 0)
        assert [one for one in opening.passes if one.tier == 2] == [] or turn == 0
        assert not turn or kept.saved_seconds != 0


def test_a_fault_in_what_is_kept_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig("mspeckv", 20, KVPolicy(8, 1, 1, block=16, group=8), SMALL, GREEDY)
    asked, came = Brought.asked, Brought.came

    def first_queries(self: Brought, layer: int, query: torch.Tensor, shown: Shown) -> None:
        asked(self, layer, query[:, :, : self.queries], shown)

    def values_as_keys(self: Brought, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        came(self, layer, value, value)

    for name, fault in (("asked", first_queries), ("came", values_as_keys)):
        with monkeypatch.context() as patch:
            patch.setattr(Brought, name, fault)
            kept = Prefills()
            left(config, kept)
            assert not same(left(config), left(config, kept)), name
            assert kept.shared


def test_changed_weights_are_read_anew() -> None:
    pair, prompt = tiny_pair(seed=5), tiny_prompt()
    config = RunConfig("mspeckv", 8, KVPolicy(8, 1, 1, block=16), SMALL, GREEDY)
    kept = Prefills()
    left(config, kept, pair, prompt)
    weight = pair.target.model.layers[1].self_attn.k_proj.weight
    before = weight.data.clone()
    try:
        weight.data[3, 5] += 0.5
        changed = left(config, kept, pair, prompt)
        assert not kept.shared
        assert same(changed, left(config, None, pair, prompt))
    finally:
        weight.data.copy_(before)
    left(config, kept, pair, prompt)
    assert kept.shared


def test_an_onlooker_that_asks_for_all_queries_gets_them() -> None:
    seen: list[int] = []

    @tier1_caches.register("curious")
    class Curious(RetrievalCache):
        """Looks at every query of the prompt."""

        query_window = Tier1Cache.query_window

        def watch(self, layer: int, query: torch.Tensor, shown: Shown) -> None:
            seen.append(query.shape[2])
            super().watch(layer, query, shown)

    try:
        kept = Prefills()
        plain = RunConfig("mspeckv", 8, KVPolicy(8, 1, 1, block=16), SMALL, GREEDY)
        curious = replace(plain, speculation=replace(SMALL, tier1="curious"))
        for config, shared in ((plain, False), (curious, False), (curious, True), (plain, True)):
            assert same(left(config), left(config, kept))
            assert kept.shared == shared
        assert set(seen) == {len(PROMPT) - 1}
    finally:
        tier1_caches.unregister("curious")


def test_the_limit_holds_and_the_oldest_goes_first() -> None:
    config = RunConfig("mspeckv", 8, KVPolicy(8, 1, 1, block=16), SMALL, GREEDY)
    prompts = [tiny_prompt(61, seed=seed) for seed in range(3)]
    kept = Prefills()
    left(config, kept, prompt=prompts[0])
    one = kept.bytes
    two, none = Prefills(), Prefills()
    two.limit, none.limit = 2 * one, 0
    for which, shared in ((0, False), (1, False), (0, True), (2, False), (0, True), (1, False)):
        left(config, two, prompt=prompts[which])
        assert two.shared == shared, which
        assert one <= two.bytes <= two.limit
    for _ in range(2):
        left(config, none)
        assert not none.shared
        assert none.bytes == 0


def test_taking_up_reports_progress_and_ends_between_layers() -> None:
    config = RunConfig("mspeckv", 8, KVPolicy(8, 1, 1, block=16), SMALL, GREEDY)
    kept, told, cancel = Prefills(), [], threading.Event()
    left(config, kept)

    def progress(stage: str, done: int, total: int) -> None:
        told.append((stage, done, total))
        if len(told) == 2:
            cancel.set()

    events = list(stream(PAIR, PROMPT, config, cancel=cancel, on_progress=progress, prefills=kept))
    assert told == [("prefill", 1, 4), ("prefill", 2, 4)]
    (summary,) = events
    assert isinstance(summary, RunSummary)
    assert summary.cancelled
    cancel.clear()
    (first,) = islice(stream(PAIR, PROMPT, config, on_progress=progress, prefills=kept), 1)
    assert isinstance(first, Prefill)
    assert told[2:] == [("prefill", layer + 1, 4) for layer in range(4)]
    cancel.set()
    with pytest.raises(Cancelled):
        left(config, kept, cancel=cancel)


def test_a_placement_of_ones_own_gets_a_kept_prompt() -> None:
    made = placements.find("resident")
    placements.register("over there")(made)
    try:
        kept = Prefills()
        left(RunConfig("mspeckv", 8, KVPolicy(8, 1, block=16), SMALL, GREEDY), kept)
        own = KVPolicy(4, 1, block=16, elsewhere="over there")
        config = RunConfig("mspeckv", 8, own, SMALL, GREEDY)
        assert same(left(config), left(config, kept))
        assert kept.shared
    finally:
        placements.unregister("over there")


def test_speculation_has_no_part_in_what_is_kept() -> None:
    kept = Prefills()
    for budget, window, gamma in ((24, 16, 3), (48, 16, 5), (24, 32, 3)):
        guess = Speculation(
            gamma=gamma, draft_gamma=2, budget=budget, chunk=4, recent=8, sinks=2, window=window
        )
        left(RunConfig("mspeckv", 8, KVPolicy(8, 1, 1, block=16), guess, GREEDY), kept)
    assert kept.shared


def test_a_model_that_nobody_holds_goes_and_its_prompts_with_it() -> None:
    # the test-kit keeps its pairs
    kept, pair = Prefills(), tiny_pair.__wrapped__(seed=5)
    left(RunConfig("mspeckv", 8, KVPolicy(8, 1, block=16), SMALL, GREEDY), kept, pair=pair)
    target, held = weakref.ref(pair.target), kept.bytes
    assert held
    release(pair)
    del pair
    gc.collect()
    assert target() is None
    alone = Prefills()
    for prefills in (kept, alone):
        left(RunConfig("mspeckv", 8, KVPolicy(8, 1, block=16), SMALL, GREEDY), prefills)
    assert kept.bytes == alone.bytes, "what was kept of it is dropped"
