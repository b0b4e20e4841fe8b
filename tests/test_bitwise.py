"""Under ``exact="bitwise"`` every method's logits are plain decoding's, bit for bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.inflate import stretch
from mspeckv import KVPolicy, Pair, RunConfig, Sampling, generate
from mspeckv.accelerate import slot_attention
from mspeckv.accelerate.bitwise import ROWS, SteadyReader
from mspeckv.accelerate.graphs import Direct, StaticInputs
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.accelerate.slot_attention import Slots, attend_slots
from mspeckv.accelerate.static_passes import width_of
from mspeckv.api import engine_of, hooks_for
from mspeckv.testing import SMALL, decoded, tiny_pair
from mspeckv.testing.logits import Decoded
from tests.random_models import random_pair, random_prompt
from tests.test_static import plug

GREEDY = Sampling(0, stop_at_eos=False)
DTYPES = torch.float32, torch.bfloat16, torch.float16
FAMILIES = "llama", "llama-multi-head", "qwen2", "qwen3", "gemma", "gpt2", "olmo2", "phi3"
POLICIES = {
    "full, on-chip": KVPolicy("full", on_chip=4),
    "full, away": KVPolicy("full", on_chip=1),
    "int8, three places": KVPolicy(8, on_chip=1, resident=1, block=16, tail=8),
    "int4, lru": KVPolicy(4, resident=2, block=16, residency="lru"),
    "2 bits, turned": KVPolicy(2, on_chip=1, block=16, tail=8, codec="rotated"),
    "nibble": KVPolicy(8, on_chip=1, resident=1, block=16, nibble=True),
}
PLAIN = RunConfig("autoregressive", 40, sampling=GREEDY, exact="bitwise")
ALIKE = settings(deadline=None, max_examples=15)


@cache
def stretched(dtype: torch.dtype) -> Pair:
    """A pair whose positions go further than those that it was made for: YaRN."""
    models = [copy.deepcopy(model).to(dtype) for model in tiny_pair(layers=4).models]
    return Pair.of(*(stretch(model, 2048) for model in models))


@ALIKE
@given(
    family=st.sampled_from([*FAMILIES, "yarn"]), dtype=st.sampled_from(DTYPES),
    name=st.sampled_from(list(POLICIES)), length=st.sampled_from([2, 15, 16, 17, 18, 60, 111, 530]),
    method=st.sampled_from(["vanilla", "mspeckv"]), tier0=st.sampled_from(["draft", "lookup"]),
    gamma=st.sampled_from([1, 3, 5, 14, 15, 16, 40, "auto"]), draft_gamma=st.integers(1, 4),
    count=st.integers(17, 40), refresh=st.sampled_from([0, 3]), seed=st.integers(0, 5),
)  # fmt: skip
def test_logits_are_those_of_plain_decoding(
    family: str, dtype: torch.dtype, name: str, length: int, method: str, tier0: str,
    gamma: int, draft_gamma: int, count: int, refresh: int, seed: int,
) -> None:  # fmt: skip
    if family == "yarn":
        pair, length = stretched(dtype), 1000 + length
    else:
        pair = random_pair(family, dtype=dtype)
    policy, prompt = POLICIES[name], random_prompt(length, seed=seed)
    guess = replace(SMALL, gamma=gamma, draft_gamma=draft_gamma, refresh=refresh, tier0=tier0)
    if policy.nibble and method == "mspeckv":
        guess = replace(guess, tier1="nibble")
    plain = decoded(pair, prompt, replace(PLAIN, policy=policy, new_tokens=count))
    config = replace(PLAIN, method=method, policy=policy, new_tokens=count, speculation=guess)
    found = decoded(pair, prompt, config)
    assert found.differs_at(plain) is None
    assert found.tokens == plain.tokens
    assert max(found.rounds) <= ROWS


@pytest.fixture
def touchy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that sum in an order given by the shape of their work.

    Many do, but which, and in which dtype, is the machine's: here all of them do on every machine.
    """
    product = torch.nn.functional.linear

    def linear(
        there: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        rows = there.shape[-2]
        if rows >= weight.shape[1]:
            return product(there, weight, bias)
        return product(there[..., :rows], weight[:, :rows]) + product(
            there[..., rows:], weight[:, rows:], bias
        )

    def attention(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float,
        mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        scores = query.float() @ key.float().mT * scale
        if mask is not None:
            scores = scores + mask.float().repeat(query.shape[2] // mask.shape[0], 1)
        shares, at = scores.softmax(-1).to(query.dtype), key.shape[2] % 7 + 1
        out = shares[..., :at] @ value[:, :, :at] + shares[..., at:] @ value[:, :, at:]
        return out, scores.logsumexp(-1)

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    monkeypatch.setattr(slot_attention, "_with_lse", attention)


def runs(dtype: torch.dtype, count: int = 40) -> dict[str, Decoded]:
    """Plain decoding, and others that are to say the same."""
    pair, prompt = random_pair(dtype=dtype), random_prompt(101)
    policy = POLICIES["int8, three places"]
    plain = replace(PLAIN, policy=policy, new_tokens=count)
    guess = replace(SMALL, gamma=6)
    return {
        "plain": decoded(pair, prompt, plain),
        "shorter": decoded(pair, prompt, replace(plain, new_tokens=9)),
        "vanilla": decoded(pair, prompt, replace(plain, method="vanilla", speculation=guess)),
        "mspeckv": decoded(pair, prompt, replace(plain, method="mspeckv", speculation=guess)),
    }


@pytest.mark.usefixtures("touchy")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_faults_are_seen(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """Passes as wide as they read, and keys in steps that the last slot decides."""
    whole = runs(dtype)
    assert {name: one.differs_at(whole["plain"]) for name, one in whole.items()} == dict.fromkeys(
        whole
    )
    with monkeypatch.context() as fault:
        fault.setattr(SteadyReader, "_width", lambda self, tokens, alike: width_of(tokens))
        found = runs(dtype)
        assert found["vanilla"].differs_at(found["plain"]) is not None
        assert found["mspeckv"].differs_at(found["plain"]) is not None
    monkeypatch.setattr(slot_attention, "_STEP", 1)
    found = runs(dtype)
    assert found["shorter"].differs_at(found["plain"]) is not None


@pytest.mark.usefixtures("touchy")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_without_it_bits_differ(dtype: torch.dtype) -> None:
    """Or equality would prove nothing."""
    pair, prompt = random_pair(dtype=dtype), random_prompt(101)
    plain, guessed = (
        decoded(pair, prompt, RunConfig(method, 30, POLICIES["full, away"], SMALL, GREEDY))
        for method in ("autoregressive", "vanilla")
    )
    assert guessed.differs_at(plain) is not None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("settled", [0, 40, 700])
def test_keys_beyond_a_rows_own_add_nothing(dtype: torch.dtype, settled: int) -> None:
    """Neither unfilled slots, however many, nor what stands in them, nor the other rows."""
    noise = torch.Generator().manual_seed(settled)
    query = torch.randn(1, 2, 3 * ROWS, 16, generator=noise).to(dtype)
    key, value = torch.randn(2, 1, 2, settled + 1300, 16, generator=noise).to(dtype).unbind(0)
    position = settled + 37

    def row(slots: int, count: int, stranger: float) -> torch.Tensor:
        inputs = StaticInputs(ROWS, query.device, ring=True)
        first = position - (count - 1) // 2
        inputs.fill([1] * count, first, first, 0, 0)
        there, here = query + stranger, position % ROWS
        there[:, :, here::ROWS] = query[:, :, here::ROWS]
        k, v = (part[:, :, :slots].clone() for part in (key, value))
        k[:, :, position + 1 :] += stranger
        grouped, shown = there.reshape(1, -1, ROWS, 16), Slots(k, v, inputs, settled)
        return attend_slots(grouped, shown, None, {}).reshape(there.shape)[:, :, here::ROWS]

    wanted = row(settled + 40, 1, 0.0)
    for slots, count in ((64, 1), (511, 9), (513, 16), (1300, 5)):
        assert torch.equal(row(settled + slots, count, 3.0), wanted)


def test_a_token_has_the_row_of_its_position() -> None:
    inputs = StaticInputs(8, torch.device("cpu"), ring=True)
    inputs.fill([7, 8, 9], 30, 20, 4, 50)
    assert inputs.ids.tolist() == [[9, 9, 9, 9, 9, 9, 7, 8]]
    assert inputs.positions[0].tolist() == [32, 32, 32, 32, 32, 32, 30, 31]
    assert inputs.slots.tolist() == [22, 22, 22, 22, 22, 22, 20, 21]
    assert inputs.real.tolist() == [1, 0, 0, 0, 0, 0, 1, 1]
    assert inputs.stands.tolist() == [0, 0, 0, 0, 0, 0, 6, 7]
    logits = torch.arange(8.0)[:, None]
    assert inputs.last(logits, 3, 3)[:, 0].tolist() == [6, 7, 0]
    assert inputs.last(logits, 3, 2)[:, 0].tolist() == [7, 0]
    assert inputs.last(logits, 3, 1)[:, 0].tolist() == [0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_draws_are_the_same_where_rounds_align(dtype: torch.dtype) -> None:
    pair, prompt = random_pair(dtype=dtype), random_prompt(77)
    drawn = Sampling(0.8, top_p=0.9, seed=3, stop_at_eos=False)
    config = replace(PLAIN, method="mspeckv", speculation=SMALL, sampling=drawn)
    here, away = (
        decoded(pair, prompt, replace(config, policy=KVPolicy("full", on_chip=n))) for n in (4, 1)
    )
    assert here.tokens == away.tokens
    assert here.rounds == away.rounds
    assert here.differs_at(away) is None


def test_what_else_runs_say_is_the_same() -> None:
    """`generate`, a prompt that was kept, and passes of fixed shape at every tier."""
    pair, prompt = random_pair(dtype=torch.bfloat16), random_prompt(90)
    config = replace(PLAIN, method="mspeckv", speculation=SMALL, policy=KVPolicy(8, block=16))
    wanted = decoded(pair, prompt, config)
    given = {name: getattr(config, name) for name in (
        "method", "new_tokens", "policy", "speculation", "sampling", "exact")}  # fmt: skip
    kept = Prefills()
    for _ in range(2):
        assert generate(pair, prompt, prefills=kept, **given).tokens == wanted.tokens
    try:
        plug(pair, Direct)
        assert decoded(pair, prompt, config).differs_at(wanted) is None
    finally:
        plug(pair, None)


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="^exact: 'bytes' is not allowed; use one of tokens, bitw"):
        RunConfig(exact="bytes")
    with pytest.raises(ValueError, match="^exact: 'bitwise' is not allowed; experts"):
        generate(random_pair("mixtral"), random_prompt(20), new_tokens=4, exact="bitwise")
    pair = Pair.of(copy.deepcopy(random_pair().target))
    engine_of(pair).hooks = hooks_for(pair, ())
    with pytest.raises(ValueError, match="^exact: 'bitwise' is not allowed; use one of tokens$"):
        generate(pair, random_prompt(20), method="autoregressive", new_tokens=4, exact="bitwise")
