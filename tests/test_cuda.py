"""What only a GPU can show; skipped where there is none."""

from __future__ import annotations

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from mspeckv import KVPolicy, Pair, RunConfig, Sampling, Speculation, generate, retrieval, stream
from mspeckv.accelerate.graphs import Graphs
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.accelerate.workspace import Workspace
from mspeckv.api import ACCELERATIONS, engine_of, hooks_for, release
from mspeckv.events import Pass, Prefill, Round, RunSummary, Transfer
from mspeckv.kv.link import open_link
from mspeckv.record import Ledger, clock_of
from mspeckv.testing import decoded
from mspeckv_study.whatif.machines import HARDWARE
from mspeckv_study.whatif.measure import measure
from tests.random_models import random_pair, random_prompt

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GREEDY = Sampling(0, stop_at_eos=False)
SPECULATION = Speculation(
    gamma=5, draft_gamma=2, budget=48, chunk=4, recent=8, refresh=16, window=16
)
POLICIES = {
    "on-chip": KVPolicy("full", on_chip=4),
    "full": KVPolicy("full", on_chip=1),
    "int8": KVPolicy(8, on_chip=1, resident=1, block=16, tail=8),
    "int4, lru": KVPolicy(4, resident=2, block=16, residency="lru"),
    "nibble": KVPolicy(8, on_chip=1, resident=1, block=16, nibble=True),
}


def on_gpu(dtype: torch.dtype = torch.float32, family: str = "llama") -> Pair:
    pair = random_pair(family, layers=4, dtype=dtype)
    assert pair.draft is not None
    return Pair.of(copy.deepcopy(pair.target).cuda(), copy.deepcopy(pair.draft).cuda())


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("graphs", [True, False])
def test_every_method_gives_the_tokens_of_autoregressive(name: str, graphs: bool) -> None:
    pair, prompt = on_gpu(), random_prompt(120)
    found = {}
    for method in ("autoregressive", "vanilla", "mspeckv"):
        summary = generate(
            pair, prompt, method=method, new_tokens=80, policy=POLICIES[name],
            speculation=SPECULATION, sampling=GREEDY, graphs=graphs,
        )  # fmt: skip
        assert summary.link.kind == "pcie"
        found[method] = summary.tokens
    assert set(found.values()) == {found["autoregressive"]}


# Heads that share no keys are as many rows as tokens, which attention's kernels treat otherwise.
@pytest.mark.parametrize(
    ("name", "family"),
    [*((name, "llama") for name in POLICIES), ("int8", "llama-multi-head"),
     ("nibble", "llama-multi-head")],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_bitwise_logits_are_those_of_plain_decoding(
    name: str, family: str, dtype: torch.dtype
) -> None:
    """By every method, with graphs and without, and however many tokens are to come."""
    pair, prompt = on_gpu(dtype, family), random_prompt(120)
    plain = RunConfig("autoregressive", 60, POLICIES[name], SPECULATION, GREEDY, exact="bitwise")
    wanted = decoded(pair, prompt, plain)
    for change in (
        {"method": "vanilla"}, {"method": "mspeckv"}, {"graphs": False}, {"new_tokens": 30},
        {"method": "mspeckv", "graphs": False, "new_tokens": 45},
        {"method": "vanilla", "speculation": replace(SPECULATION, gamma=20, tier0="lookup")},
    ):  # fmt: skip
        found = decoded(pair, prompt, replace(plain, **change))
        assert found.differs_at(wanted) is None, change


@pytest.mark.parametrize("name", ["int8", "nibble"])
def test_residents_codes_are_read_as_they_are_unpacked(name: str) -> None:
    """`decode_attention` reads them where a KV head has few rows; bits may differ, by rounding."""
    pair, prompt = on_gpu(torch.float16, "llama-multi-head"), random_prompt(120)
    config = RunConfig("autoregressive", 40, POLICIES[name], SPECULATION, GREEDY)
    found = {}
    engine = engine_of(pair)
    for left_out in ("", "decode_attention"):
        engine.give_back()
        engine.hooks = hooks_for(pair, tuple(one for one in ACCELERATIONS if one != left_out))
        found[left_out] = decoded(pair, prompt, config)
    same = min(len(one.tokens) for one in found.values())
    torch.testing.assert_close(
        found[""].logits[: same // 4], found["decode_attention"].logits[: same // 4],
        atol=0.5, rtol=0.05,
    )  # fmt: skip
    assert found[""].tokens[: same // 4] == found["decode_attention"].tokens[: same // 4]


def test_tokens_are_the_processors() -> None:
    prompt = random_prompt(120)
    options: dict[str, Any] = {
        "new_tokens": 60, "policy": POLICIES["int8"], "speculation": SPECULATION,
        "sampling": GREEDY,
    }  # fmt: skip
    wanted = generate(random_pair(layers=4), prompt, **options)
    found = generate(on_gpu(), prompt, **options)
    assert found.tokens == wanted.tokens
    assert found.link.to_device_bytes == wanted.link.to_device_bytes


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.8, top_p=0.9, stop_at_eos=False)])
def test_a_round_never_synchronises(name: str, sampling: Sampling) -> None:
    pair = on_gpu(torch.float16)
    events = stream(
        pair,
        random_prompt(120),
        RunConfig.build(
            new_tokens=120, policy=POLICIES[name], speculation=SPECULATION, sampling=sampling
        ),
    )
    rounds = 0
    next(events)
    try:
        for event in events:
            if not isinstance(event, Round):
                break
            rounds += 1
            # Capture itself may wait, and the last round drains the link.
            if rounds == 12:
                torch.cuda.set_sync_debug_mode("error")
            if rounds == 15:
                torch.cuda.set_sync_debug_mode("default")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rounds >= 15


def test_graphs_are_captured_once_and_serve_the_next_run() -> None:
    pair = on_gpu()
    options: dict[str, Any] = {
        "new_tokens": 60, "policy": POLICIES["int8"], "speculation": SPECULATION,
        "sampling": GREEDY,
    }  # fmt: skip
    first = generate(pair, random_prompt(120), **options)
    space = engine_of(pair).spare
    assert isinstance(space, Workspace)
    graphs = [runner for runner in space.runners.values() if isinstance(runner, Graphs)]
    assert all(any(runner._captured.values()) for runner in graphs)
    second = generate(pair, random_prompt(120), **options)
    assert engine_of(pair).spare is space
    assert second.tokens == first.tokens
    other = generate(pair, random_prompt(120, seed=5), **options)
    alone = generate(random_pair(layers=4), random_prompt(120, seed=5), **options)
    assert other.tokens == alone.tokens
    release(pair)
    assert engine_of(pair).spare is None


@pytest.mark.parametrize("name", POLICIES)
def test_replayed_passes_guess_what_launched_ones_do(name: str) -> None:
    """Run after run: a guess that is as good as any keeps the text, and costs the speed."""
    pair, prompt = on_gpu(), random_prompt(120)
    seen = []
    for graphs in (False, True, True, True, True):
        config = RunConfig.build(
            new_tokens=40, policy=POLICIES[name], speculation=SPECULATION, sampling=GREEDY,
            graphs=graphs,
        )  # fmt: skip
        rounds = [one for one in stream(pair, prompt, config) if isinstance(one, Round)]
        seen.append([one.guesses for one in rounds])
    assert all(found == seen[0] for found in seen)
    release(pair)


def test_chosen_lengths_share_graphs_and_what_building_them_takes_is_not_learned() -> None:
    pair = on_gpu()
    auto = replace(SPECULATION, gamma="auto", tier0="lookup")
    events = list(
        stream(
            pair,
            random_prompt(120),
            RunConfig.build(
                method="vanilla",
                new_tokens=60,
                speculation=auto,
                policy=POLICIES["on-chip"],
                sampling=GREEDY,
            ),
        )
    )
    passes = [one for event in events if isinstance(event, Round) for one in event.passes]
    top = [one for one in passes if one.tier == 2]
    ready = [one.ms for one in top if not one.builds]
    # one as it is, one captured, for all lengths that there were
    assert len({one.tokens for one in top}) > 2
    assert [one.builds for one in top] == [True, True] + [False] * (len(top) - 2)
    costs = next(iter(engine_of(pair).pass_costs.values()))
    assert min(ready) * 0.5 < costs[2](1) < max(ready) + 5
    release(pair)


def test_a_pass_is_rare_until_its_capture_would_pay() -> None:
    device = torch.device("cuda")
    zeros = torch.zeros(8, device=device)
    graphs = Graphs(device)
    rare = [graphs.rare("seldom") for _ in range(500)]
    assert rare[0]
    assert not rare[-1]
    assert sorted(rare, reverse=True) == rare
    builds = [graphs.run("often", lambda _: zeros + 1)[1] for _ in range(3)]
    assert builds == [True, True, False]
    assert all(graphs._captured.values())
    assert not graphs.rare("often")


def test_a_policy_of_ones_own_is_recorded_with_its_pass() -> None:
    def peak(queries: torch.Tensor, landmarks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        shares = (queries @ landmarks.transpose(1, 2)).softmax(-1, dtype=torch.float32)
        return (shares * weights[:, None]).amax(1)

    retrieval.register("peak")(peak)
    try:
        own = replace(SPECULATION, retrieval="peak", refresh=4)
        options: dict[str, Any] = {
            "new_tokens": 80, "policy": POLICIES["int8"], "speculation": own, "sampling": GREEDY,
        }  # fmt: skip
        pair, prompt = on_gpu(), random_prompt(120)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a pass that could not be captured
            found = generate(pair, prompt, **options)
        plain = generate(random_pair(layers=4), prompt, **options)
    finally:
        retrieval.unregister("peak")
    assert found.tokens == plain.tokens
    assert found.rounds == plain.rounds


def test_the_link_copies_counts_and_makes_compute_wait() -> None:
    device = torch.device("cuda")
    ledger = Ledger(clock_of(device))
    source = torch.arange(1 << 26, dtype=torch.uint8).pin_memory()
    target = torch.zeros(1 << 26, dtype=torch.uint8, device=device)
    with open_link(ledger, None, device) as link:
        assert link.kind == "pcie"
        ticket = link.copy(source, target, "to_device", "verify", 3)
        link.wait(ticket)
        seen = target.clone()
        link.drain()
    assert torch.equal(seen.cpu(), source)
    (entry,) = ledger.since()
    assert (entry.bytes, entry.layer, entry.direction) == (1 << 26, 3, "to_device")
    assert entry.ms > 0.5
    assert 0 < entry.wait_ms <= entry.ms * 1.5


def test_passes_are_measured_on_the_gpu() -> None:
    found = measure(HARDWARE["laptop-cpu"], on_gpu())
    assert all(ms > 0 for passes in found.passes.values() for row in passes.ms for ms in row)


def test_two_open_streams_have_caches_of_their_own() -> None:
    pair, prompts = on_gpu(), [random_prompt(120), random_prompt(120, seed=5)]
    options: dict[str, Any] = {
        "new_tokens": 60, "policy": POLICIES["int8"], "speculation": SPECULATION,
        "sampling": GREEDY,
    }  # fmt: skip
    alone = [generate(pair, prompt, **options).tokens for prompt in prompts]
    for _ in range(2):  # the second time with the graphs of the first
        runs = [stream(pair, prompt, RunConfig.build(**options)) for prompt in prompts]
        found: list[tuple[int, ...]] = [(), ()]
        while not all(found):
            for place, run in enumerate(runs):
                event = next(run, None)
                if isinstance(event, RunSummary):
                    found[place] = event.tokens
        assert found == alone
    release(pair)


def test_threads_share_a_pair() -> None:
    pair = on_gpu()
    options: dict[str, Any] = {"new_tokens": 60, "speculation": SPECULATION, "sampling": GREEDY}
    ids = torch.tensor([[0] * 9 + random_prompt(31), random_prompt(40)], device="cuda")
    mask = torch.ones_like(ids)
    mask[0, :9] = 0

    def run(name: str, seed: int) -> object:
        if name == "plain":
            return pair.target.generate(
                ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0
            ).tolist()
        policy = POLICIES[name]
        return generate(pair, random_prompt(120, seed=seed), policy=policy, **options).tokens

    calls = [(name, seed) for name in ("plain", "on-chip", "int8", "nibble") for seed in (0, 1)]
    alone = {call: run(*call) for call in calls}
    with ThreadPoolExecutor(4) as threads:
        begun = [(call, threads.submit(run, *call)) for call in calls * 6]
        for call, one in begun:
            assert one.result() == alone[call], call
    release(pair)


def test_graphs_notice_that_a_model_has_changed() -> None:
    pair, prompt = on_gpu(), random_prompt(60)
    options: dict[str, Any] = {
        "new_tokens": 40, "policy": POLICIES["on-chip"], "sampling": GREEDY,
        "method": "autoregressive",
    }  # fmt: skip

    def agrees() -> tuple[int, ...]:
        ids = torch.tensor([prompt], device="cuda")
        plain = pair.target.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False
        )
        found = generate(pair, prompt, **options).tokens
        assert found == tuple(plain[0, 60:].tolist())
        return found

    seen = [agrees()]
    head = pair.target.lm_head
    head.weight.data = head.weight.data.flip(0).clone()
    seen.append(agrees())
    head.weight.data.mul_(-1)
    seen.append(agrees())
    handle = head.register_forward_hook(lambda module, args, out: -out)
    seen.append(agrees())
    handle.remove()
    seen.append(agrees())
    assert len(set(seen)) == 3
    assert (seen[1], seen[2]) == (seen[3], seen[4])
    release(pair)


def test_a_kept_prompt_is_placed_on_the_gpu_as_if_it_had_been_read() -> None:
    pair, prompt, kept = on_gpu(torch.float16), random_prompt(120), Prefills()
    for name, policy in POLICIES.items():
        config = RunConfig.build(
            new_tokens=40, policy=policy, speculation=SPECULATION, sampling=GREEDY
        )
        for run in range(2):
            first, *_, read = stream(pair, prompt, config)
            seen: list[Pass | Transfer] = []
            opening, *rounds, taken = stream(
                pair, prompt, config, prefills=kept, on_step=seen.append
            )
            assert isinstance(first, Prefill)
            assert isinstance(opening, Prefill)
            assert isinstance(read, RunSummary)
            assert isinstance(taken, RunSummary)
            assert read.tokens == taken.tokens, name
            assert read.link.to_host_bytes == taken.link.to_host_bytes
            assert read.link.to_device_bytes == taken.link.to_device_bytes
            assert kept.shared or (name == "on-chip" and not run)
            told = [one for event in rounds if isinstance(event, Round) for one in event.passes]
            passes = [one for one in seen if isinstance(one, Pass)]
            assert passes == [*opening.passes, *told]
            assert sum(one.bytes for one in seen if isinstance(one, Transfer)) == (
                taken.link.to_device_bytes + taken.link.to_host_bytes
            )
