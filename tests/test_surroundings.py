"""What a process sets for itself (a default dtype, autocast, threads) changes no result."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

import mspeckv
from mspeckv import KVPolicy, Sampling, Speculation, generate, next_distributions
from mspeckv.accelerate import ordered_weights
from mspeckv.accelerate import packed_attention as packed
from mspeckv.accelerate.native import library
from tests.random_models import random_pair, random_prompt

PROMPT = random_prompt(150)
GUESS = Speculation(budget=64, gamma=4, draft_gamma=2, refresh=8)
PACKED = KVPolicy(4, on_chip=1, resident=1)


@contextmanager
def changed(read: Callable[[], Any], write: Callable[[Any], None], value: object) -> Iterator[None]:
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def default_dtype(dtype: torch.dtype) -> AbstractContextManager[None]:
    return changed(torch.get_default_dtype, torch.set_default_dtype, dtype)


def threads(count: int) -> AbstractContextManager[None]:
    return changed(torch.get_num_threads, torch.set_num_threads, count)


Surroundings = Callable[[], AbstractContextManager[Any]]
SURROUNDINGS: dict[str, Surroundings] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.fixture(params=SURROUNDINGS)
def surroundings(request: pytest.FixtureRequest) -> Surroundings:
    return SURROUNDINGS[request.param]


def test_kernels_pass_their_trials(surroundings: Surroundings) -> None:
    numbers = torch.get_rng_state()
    compiled = library(packed.SOURCE)
    with surroundings():
        if compiled is not None:
            packed.kernel()
            assert packed._agrees(compiled)
        works = ordered_weights._kernel_works.__wrapped__(torch.get_num_threads())  # type: ignore[attr-defined]
    assert works is ordered_weights._kernel_works(torch.get_num_threads())
    # nor do trials draw from what a program seeded
    assert torch.equal(torch.get_rng_state(), numbers)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("autoregressive", {}),
        ("vanilla", {}),
        ("triforce", {}),
        ("mspeckv", {"policy": PACKED}),
        ("mspeckv", {"policy": PACKED, "sampling": Sampling(temperature=0.8, seed=3)}),
        ("mspeckv", {"policy": KVPolicy(8, nibble=True, resident=1)}),
    ],
    ids=["autoregressive", "vanilla", "triforce", "packed", "sampled", "nibble"],
)
def test_runs_give_the_same_tokens(
    method: str, options: dict[str, Any], surroundings: Surroundings
) -> None:
    def run() -> tuple[tuple[int, ...], float]:
        done = generate(
            random_pair(), PROMPT, method=method, new_tokens=16, speculation=GUESS, **options
        )
        return done.tokens, done.accepted_per_round

    alone = run()
    with surroundings():
        assert run() == alone


@pytest.mark.parametrize("count", [2, 3, 4])
def test_runs_give_the_same_tokens_on_any_number_of_threads(count: int) -> None:
    def run() -> tuple[int, ...]:
        drawn = Sampling(temperature=0.8, seed=3)
        return generate(
            random_pair(), PROMPT, new_tokens=8, speculation=GUESS, policy=PACKED, sampling=drawn
        ).tokens

    alone = run()
    with threads(count):
        assert run() == alone


def test_lookup_gives_the_same_tokens(surroundings: Surroundings) -> None:
    def run() -> tuple[int, ...]:
        guess = Speculation(budget=64, tier0="lookup", gamma=4, draft_gamma=2)
        return generate(
            random_pair(), PROMPT[:40] * 3, new_tokens=16, speculation=guess,
            sampling=Sampling(temperature=0.7, seed=1),
        ).tokens  # fmt: skip

    alone = run()
    with surroundings():
        assert run() == alone


def test_what_is_looked_at_without_a_run_is_the_same(surroundings: Surroundings) -> None:
    def look() -> torch.Tensor:
        return torch.stack(
            [one.target for one in next_distributions(random_pair(), PROMPT, last=4)]
        )

    alone = look()
    with surroundings():
        seen = look()
    assert seen.dtype == alone.dtype
    torch.testing.assert_close(seen, alone, rtol=1e-5, atol=1e-6)


def test_the_drop_in_gives_the_same_tokens(surroundings: Surroundings) -> None:
    pair = random_pair()
    own = mspeckv.as_custom_generate(draft=pair.draft, policy=KVPolicy("full", on_chip=2))
    ids = torch.tensor([PROMPT])

    def run() -> list[int]:
        done = pair.target.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False,
            custom_generate=own,
        )  # fmt: skip
        tokens: list[int] = done[0].tolist()
        return tokens

    alone = run()
    with surroundings():
        if torch.is_autocast_enabled("cpu"):
            # there generate computes in another dtype, and the drop-in says that it does not
            with pytest.raises(ValueError, match="autocast"):
                run()
        else:
            assert run() == alone


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", ["vanilla", "mspeckv"])
def test_a_pair_of_the_default_dtype_works(dtype: torch.dtype, method: str) -> None:
    pair = random_pair(dtype=dtype)
    assert pair.dtype == dtype

    def run() -> tuple[int, ...]:
        return generate(pair, PROMPT, method=method, new_tokens=16, speculation=GUESS).tokens

    alone = run()
    with default_dtype(dtype):
        assert run() == alone
        built = random_pair.__wrapped__(dtype=dtype)
        assert generate(built, PROMPT, method=method, new_tokens=16, speculation=GUESS).tokens == (
            alone
        )


def test_a_policy_is_tried_under_any_default(surroundings: Surroundings) -> None:
    with surroundings():
        mspeckv.retrieval.register("again")(mspeckv.retrieval.attention)
    mspeckv.retrieval.unregister("again")


FIRST_RUN = """
import torch
from tests.random_models import random_pair, random_prompt
from mspeckv import KVPolicy, generate
torch.set_num_threads(1)
pair = random_pair()
torch.set_default_dtype(torch.bfloat16)
print(*generate(pair, random_prompt(150), new_tokens=16, policy=KVPolicy(4)).tokens)
rest = [torch.ones(50000) for _ in range(50)]
"""


def test_a_first_run_under_another_default_dtype_harms_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_RUN], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    alone = generate(random_pair(), PROMPT, new_tokens=16, policy=KVPolicy(4))
    assert [int(word) for word in done.stdout.split()] == list(alone.tokens)
