"""Many threads and runs on one pair, and plain transformers code beside them: nobody notices."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from mspeckv import (
    KVPolicy,
    Pair,
    RunConfig,
    Sampling,
    Speculation,
    as_custom_generate,
    generate,
    stream,
)
from mspeckv.accelerate.kept_prompts import Prefills
from mspeckv.events import RunSummary
from tests.random_models import random_pair, random_prompt

THREADS, CALLS = 4, 250
PAIR = random_pair()
BATCH = torch.tensor([[0] * 9 + random_prompt(31), random_prompt(40)])
MASK = torch.tensor([[0] * 9 + [1] * 31, [1] * 40])
POLICIES = (KVPolicy("full", 1), KVPolicy(8, 1, 1, 16, tail=8), KVPolicy(4, 0, 4, 16, tail=8))
GUESSES = Speculation(gamma=4, draft_gamma=2, budget=48, recent=8)


@dataclass(frozen=True)
class Call:
    """Something that a thread does with the pair; its result is that of the same call alone."""

    name: str
    run: Callable[[], object]


def _generated(
    method: str, policy: KVPolicy, sampling: Sampling, prefills: Prefills | None = None
) -> object:
    summary = generate(
        PAIR, random_prompt(50), method=method, new_tokens=8, policy=policy,
        speculation=GUESSES, sampling=sampling, prefills=prefills,
    )  # fmt: skip
    return summary.tokens


def _interleaved(first: KVPolicy, second: KVPolicy) -> object:
    """Two streams, a round of each in turn."""
    runs = [
        stream(
            PAIR,
            random_prompt(45),
            RunConfig.build(new_tokens=6, policy=policy, speculation=GUESSES),
        )
        for policy in (first, second)
    ]
    ends: list[object] = []
    while runs:
        for run in list(runs):
            event = next(run)
            if isinstance(event, RunSummary):
                ends.append((event.tokens, event.link.to_device_bytes))
                runs.remove(run)
    return ends


def _plain() -> object:
    """transformers' own decoding of a padded batch."""
    out = PAIR.target.generate(
        BATCH, attention_mask=MASK, max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    return out[:, 40:].tolist()


def _logits() -> object:
    """The bits of a padded pass."""
    return PAIR.target(input_ids=BATCH, attention_mask=MASK).logits.sum(-1).tolist()


def _dropped_in(rows: int) -> object:
    ids = torch.tensor([random_prompt(50)] * rows)
    own = as_custom_generate(PAIR.draft, policy=POLICIES[1], speculation=GUESSES)
    out = PAIR.target.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False,
        pad_token_id=0, custom_generate=own,
    )  # fmt: skip
    return out[:, 50:].tolist()


def _calls() -> Iterator[Call]:
    kept = Prefills()
    for method, policy in (
        ("autoregressive", POLICIES[0]),
        ("vanilla", POLICIES[1]),
        ("triforce", POLICIES[0]),
        ("mspeckv", POLICIES[1]),
        ("mspeckv", POLICIES[2]),
    ):
        for sampling in (Sampling(temperature=0), Sampling(1.0, seed=3)):
            run = partial(_generated, method, policy, sampling)
            yield Call(f"{method}, {policy.bits}, T {sampling.temperature:g}", run)
    yield Call(
        "kept prompts", partial(_generated, "mspeckv", POLICIES[1], Sampling(0), prefills=kept)
    )
    yield Call("interleaved streams", partial(_interleaved, POLICIES[1], POLICIES[2]))
    yield Call("plain", _plain)
    yield Call("plain logits", _logits)
    yield Call("drop-in", partial(_dropped_in, 2))


@pytest.fixture
def one_kernel_thread() -> Iterator[None]:
    """Several runs share the cores here; each of them on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_kernel_thread")
@pytest.mark.slow
def test_any_company_is_as_good_as_none() -> None:
    """Calls of every kind on one pair, four at a time, against the same calls alone."""
    calls = list(_calls())
    alone = {call.name: call.run() for call in calls}
    assert len(alone) == len(calls)
    wanted = calls * -(-CALLS // len(calls))
    random.Random(0).shuffle(wanted)
    with ThreadPoolExecutor(THREADS) as threads:
        begun = {threads.submit(call.run): call.name for call in wanted}
        for done in as_completed(begun):
            assert done.result() == alone[begun[done]], begun[done]
    assert PAIR.target.config._attn_implementation == "sdpa"


@pytest.mark.usefixtures("one_kernel_thread")
def test_weights_may_change_between_runs_beside_each_other() -> None:
    """A run begins with the weights as they are, whatever runs of another pair go on beside it."""
    pair, other = random_pair(seed=1), random_pair(seed=2)
    say = partial(generate, new_tokens=6, policy=POLICIES[0], sampling=Sampling(temperature=0))
    expected = say(other, random_prompt(40)).tokens
    over, wrong = threading.Event(), []

    def beside() -> None:
        while not over.is_set():
            if say(other, random_prompt(40)).tokens != expected:
                wrong.append(1)

    thread = threading.Thread(target=beside)
    thread.start()
    try:
        for _ in range(10):
            for weight in pair.target.parameters():
                weight.data *= 1.25
            ids = torch.tensor([random_prompt(40)])
            plain = pair.target.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
            )
            assert say(pair, random_prompt(40)).tokens == tuple(plain[0, 40:].tolist())
    finally:
        over.set()
        thread.join()
    assert not wrong


def test_the_real_pair_in_company(pair: Pair) -> None:
    prompt = "The quick brown fox jumps over the lazy dog. " * 12
    settings = [
        partial(
            generate, pair, prompt, new_tokens=12, method=method, sampling=Sampling(temperature=0)
        )
        for method in ("autoregressive", "vanilla", "mspeckv", "mspeckv")
    ]
    alone = [run().tokens for run in settings]
    with ThreadPoolExecutor(4) as threads:
        together = [begun.result().tokens for begun in [threads.submit(run) for run in settings]]
    assert together == alone
