"""Passes of fixed shape decode what the ordinary ones do, without a graph as with one."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mspeckv import KVPolicy, Pair, Sampling, Speculation, generate
from mspeckv.accelerate import static_passes
from mspeckv.accelerate.graphs import Direct, StaticInputs
from mspeckv.accelerate.slot_attention import CodeSlots, Slots, attend_slots
from mspeckv.accelerate.static_passes import code_width, width_of
from mspeckv.accelerate.workspace import Workspace, plug_runners
from mspeckv.api import engine_of, hooks_for
from mspeckv.kv.floats import Buffer
from mspeckv.kv.layers import PlacedLayer, Tier, fold_groups
from mspeckv.kv.placement import ResidentLayer
from mspeckv.kv.quantize import BlockCodec
from mspeckv.kv.scores import causal_mask
from mspeckv.kv.shape import KVShape
from tests.random_models import random_pair, random_prompt

SPECULATION = Speculation(
    gamma=5, draft_gamma=2, budget=48, chunk=4, recent=8, refresh=4, window=16
)
POLICIES = {
    "on-chip": KVPolicy("full", on_chip=4),
    "full, offloaded": KVPolicy("full", on_chip=1),
    "int8, three places": KVPolicy(8, on_chip=1, resident=1, block=16, tail=8),
    "int4, lru": KVPolicy(4, resident=2, block=16, residency="lru"),
    "nibble": KVPolicy(8, on_chip=1, resident=1, block=16, nibble=True),
}


@pytest.fixture
def static() -> Iterator[Callable[[bool], None]]:
    """Switches static passes on or off; on a CPU nothing captures them."""
    pair = random_pair(layers=4)

    def switch(on: bool) -> None:
        plug(pair, Direct if on else None)

    yield switch
    # the pair is other tests' too
    switch(False)


def plug(pair: Pair, runner: Callable[[], Direct] | None) -> None:
    """Have runs of ``pair`` go by static passes that ``runner`` runs, or by ordinary ones."""
    engine, hooks = engine_of(pair), hooks_for(pair)
    engine.give_back()
    engine.hooks = hooks if runner is None else plug_runners(hooks, runner)


def both(static: Callable[[bool], None], pair: Pair, prompt: list[int], **options: Any) -> Any:
    """The same run by ordinary and by static passes."""
    out = []
    for on in (False, True):
        static(on)
        out.append(generate(pair, prompt, **options))
    return out


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("method", ["autoregressive", "vanilla", "mspeckv"])
def test_greedy_tokens_are_those_of_ordinary_passes(
    static: Callable[[bool], None], name: str, method: str
) -> None:
    pair = random_pair(layers=4)
    prompt = random_prompt(100)
    ordinary, fixed = both(
        static, pair, prompt, method=method, new_tokens=60, policy=POLICIES[name],
        speculation=SPECULATION, sampling=Sampling(0, stop_at_eos=False),
    )  # fmt: skip
    assert ordinary.tokens == fixed.tokens
    assert len(fixed.tokens) == 60
    assert ordinary.link.to_device_bytes == fixed.link.to_device_bytes
    if method != "autoregressive":
        # padding and lengths that a mask hides change neither choice nor acceptance
        assert ordinary.rounds == fixed.rounds


def test_tier_1_over_nibble_planes(static: Callable[[bool], None]) -> None:
    pair = random_pair(layers=4)
    ordinary, fixed = both(
        static, pair, random_prompt(100), new_tokens=60, policy=POLICIES["nibble"],
        speculation=Speculation(gamma=4, tier1="nibble", window=16),
        sampling=Sampling(0, stop_at_eos=False),
    )  # fmt: skip
    assert ordinary.tokens == fixed.tokens
    assert ordinary.rounds == fixed.rounds


def test_samples_are_those_of_ordinary_passes(static: Callable[[bool], None]) -> None:
    ordinary, fixed = both(
        static, random_pair(layers=4), random_prompt(100), new_tokens=60,
        policy=KVPolicy(8, block=16), speculation=SPECULATION,
        sampling=Sampling(0.8, top_p=0.9, seed=3, stop_at_eos=False),
    )  # fmt: skip
    assert ordinary.tokens == fixed.tokens


def test_a_workspace_serves_one_run_after_another(static: Callable[[bool], None]) -> None:
    pair = random_pair(layers=4)
    options: dict[str, Any] = {
        "new_tokens": 20,
        "policy": KVPolicy(8, on_chip=1, block=16),
        "speculation": SPECULATION,
        "sampling": Sampling(0, stop_at_eos=False),
    }
    static(False)
    prompts = [random_prompt(100, seed=seed) for seed in (1, 2)]
    alone = [generate(pair, prompt, **options).tokens for prompt in prompts]
    static(True)
    first = generate(pair, prompts[0], **options)
    kept = engine_of(pair).spare
    second = generate(pair, prompts[1], **options)
    assert kept is not None
    assert engine_of(pair).spare is kept
    again = generate(pair, prompts[0], **options)
    assert [first.tokens, second.tokens, again.tokens] == [alone[0], alone[1], alone[0]]
    generate(pair, prompts[0][:-1], **options)
    assert engine_of(pair).spare is not kept


@settings(deadline=None, max_examples=40)
@given(
    heads=st.integers(1, 3), groups=st.integers(1, 3), width=st.integers(1, 6),
    settled=st.sampled_from([0, 5, 40, 1500]), filled=st.integers(0, 12),
)  # fmt: skip
def test_attention_over_all_slots_is_attention_over_the_filled_ones(
    heads: int, groups: int, width: int, settled: int, filled: int
) -> None:
    torch.manual_seed(settled + filled)
    slots = settled + filled + width + 4
    query = torch.randn(1, heads * groups, width, 16)
    key, value = torch.randn(2, 1, heads, slots, 16).unbind(0)
    past = settled + filled
    inputs = StaticInputs(width, torch.device("cpu"))
    inputs.fill([1] * width, past, past, 0, 0)
    found = attend_slots(query, Slots(key, value, inputs, settled), None, {})
    folded = fold_groups(query, heads)
    end = past + width
    wanted = torch.nn.functional.scaled_dot_product_attention(
        folded,
        key[:, :, :end],
        value[:, :, :end],
        attn_mask=causal_mask(width, past, groups, query),
    )
    torch.testing.assert_close(found, wanted.reshape(found.shape), rtol=1e-4, atol=1e-5)


def test_padding_is_the_last_token_again_where_it_stands() -> None:
    inputs = StaticInputs(width_of(6), torch.device("cpu"))
    inputs.fill([7, 8, 9, 10, 11, 12], 100, 20, 4, 50)
    assert inputs.width == 8
    assert inputs.ids.tolist() == [[7, 8, 9, 10, 11, 12, 12, 12]]
    assert inputs.positions[0].tolist() == [100, 101, 102, 103, 104, 105, 105, 105]
    assert inputs.slots.tolist() == [20, 21, 22, 23, 24, 25, 25, 25]
    assert inputs.tail.tolist() == [4, 5, 6, 7, 8, 9, 9, 9]
    assert inputs.watched.tolist() == [50, 51, 52, 53, 54, 55, 55, 55]
    assert inputs.real.tolist() == [1] * 6 + [0] * 2
    assert [width_of(n) for n in (1, 3, 4, 5, 8, 9, 33)] == [1, 3, 4, 8, 8, 16, 64]


def test_no_pass_has_a_shape_of_its_own(
    static: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where little room is left either: before a block is packed, and at the run's end."""
    widths = set()
    fill = StaticInputs.fill

    def noted(inputs: StaticInputs, tokens: list[int], *places: int) -> None:
        widths.add(inputs.width)
        fill(inputs, tokens, *places)

    monkeypatch.setattr(StaticInputs, "fill", noted)
    static(True)
    generate(
        random_pair(layers=4), random_prompt(100), method="vanilla", new_tokens=60,
        policy=KVPolicy(8, block=16), speculation=replace(SPECULATION, gamma=11),
        sampling=Sampling(0, stop_at_eos=False),
    )  # fmt: skip
    assert 16 in widths
    assert widths <= {1, 2, 3, 4, 8, 16}


def held(thing: object) -> list[torch.Tensor]:
    """Every tensor that a cache holds, but for choices: a pass makes these before it reads them."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, dict):
        return [one for name, part in thing.items() if name != "chosen" for one in held(part)]
    if isinstance(thing, (list, tuple)):
        return [one for part in thing for one in held(part)]
    return held(vars(thing)) if isinstance(thing, (Tier, PlacedLayer, Buffer)) else []


@pytest.mark.parametrize("name", POLICIES)
def test_what_a_recorded_pass_reads_stays_where_it_is(
    static: Callable[[bool], None], name: str
) -> None:
    """A graph holds addresses: what the next run uses again is written anew, never exchanged."""
    static(True)
    pair, seen = random_pair(layers=4), list[list[torch.Tensor]]()
    for seed in range(3):
        generate(
            pair, random_prompt(100, seed=seed), method="mspeckv", new_tokens=20,
            policy=POLICIES[name], speculation=SPECULATION, sampling=Sampling(0),
        )  # fmt: skip
        spare = engine_of(pair).spare
        assert isinstance(spare, Workspace)
        caches = spare.caches.full, spare.caches.middle, spare.caches.draft
        seen.append(held(caches))
    places = [[one.data_ptr() for one in tensors] for tensors in seen]
    assert len(places[0]) > 20
    assert places[0] == places[1] == places[2]


class Sharing(Direct):
    """Every pass is a rare one."""

    def rare(self, key: Hashable) -> bool:
        return True


@pytest.mark.parametrize(
    ("method", "narrow"), [("vanilla", 0), ("mspeckv", 0), ("vanilla", 16), ("mspeckv", 16)]
)
def test_rare_passes_share_a_shape_as_wide_as_the_longest(
    static: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch, method: str, narrow: int
) -> None:
    """Or as the longest that would read codes, ``narrow``."""
    pair, prompt = random_pair(layers=4), random_prompt(100)
    monkeypatch.setattr(static_passes, "code_width", lambda layers, groups: narrow)
    options: dict[str, Any] = {
        "new_tokens": 60, "policy": POLICIES["int8, three places"],
        "sampling": Sampling(0, stop_at_eos=False),
    }  # fmt: skip
    static(False)
    plain = generate(pair, prompt, method="autoregressive", **options)
    widths: dict[int, set[int]] = {}
    fill = StaticInputs.fill

    def noted(inputs: StaticInputs, tokens: list[int], *places: int) -> None:
        widths.setdefault(inputs.width, set()).add(len(tokens))
        fill(inputs, tokens, *places)

    monkeypatch.setattr(StaticInputs, "fill", noted)
    plug(pair, Sharing)
    if narrow:
        hooks = engine_of(pair).hooks
        kernels = {**hooks.kernels, CodeSlots: attend_slots}
        engine_of(pair).hooks = replace(hooks, kernels=kernels)
    auto = replace(SPECULATION, gamma="auto", draft_gamma="auto", tier0="lookup")
    found = generate(pair, prompt, method=method, speculation=auto, **options)
    assert found.tokens == plain.tokens
    longest = {width_of(auto.longest_gamma + 1)}
    if method == "mspeckv":
        longest.add(width_of(auto.longest_draft_gamma + 1))
    assert set(widths) <= {*longest, narrow}
    assert narrow in {0, *widths}
    assert min(widths.get(32, {32})) > narrow
    assert max(map(len, widths.values())) > 1


def test_codes_are_read_in_passes_of_at_most_sixteen_rows_of_a_head() -> None:
    def resident(dtype: torch.dtype) -> ResidentLayer:
        layer = ResidentLayer.__new__(ResidentLayer)
        layer.codec = BlockCodec(KVShape(1, 2, 64, dtype), KVPolicy(8))
        return layer

    layers = [resident(torch.float16)]
    assert [code_width(layers, groups) for groups in (1, 2, 3, 4)] == [16, 8, 0, 0]
    assert code_width([resident(torch.float32)], 1) == 0
    assert code_width([], 1) == 0
