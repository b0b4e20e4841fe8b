"""Runs that do not fit are refused before they start, with a setting that would."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mspeckv import KVPolicy, RunConfig, Sampling, generate
from mspeckv.api import engine_of
from mspeckv.decoding.fits import check_memory, predict
from tests.random_models import random_pair, random_prompt

ENGINE = engine_of(random_pair())
GREEDY = Sampling(temperature=0, stop_at_eos=False)


def limits(config: RunConfig, prompt: int) -> dict[str, int]:
    """The settings that a refusal offers."""
    with pytest.raises(ValueError, match="device memory") as refusal:
        check_memory(ENGINE, random_pair(), config, prompt)
    found = re.findall(r"(\d+) (prompt tokens|on-chip layers|resident layers)", str(refusal.value))
    return {name: int(count) for count, name in found}


def test_the_settings_a_refusal_names_are_the_largest_that_fit() -> None:
    pair, prompt = random_pair(), 1500
    config = RunConfig(policy=KVPolicy(8, on_chip=3, resident=1, block=16, group=16))
    fits_two = replace(config, policy=replace(config.policy, on_chip=2))
    need = predict(ENGINE, pair, fits_two, prompt).device / 1e9
    tight = replace(config, device_gb=need + 1e-6)
    offered = limits(tight, prompt)
    assert offered["on-chip layers"] == 2
    shorter = offered["prompt tokens"]
    assert 2 <= shorter < prompt
    check_memory(ENGINE, pair, tight, shorter)
    check_memory(ENGINE, pair, replace(fits_two, device_gb=tight.device_gb), prompt)
    with pytest.raises(ValueError, match="device memory"):
        check_memory(ENGINE, pair, tight, shorter + 1)
    assert "resident layers" not in offered


def test_a_device_too_small_for_anything_says_so() -> None:
    config = RunConfig(device_gb=1e-6)
    with pytest.raises(ValueError, match="no prompt, however short, fits"):
        check_memory(ENGINE, random_pair(), config, 100)


def test_generate_refuses_at_the_call() -> None:
    with pytest.raises(ValueError, match="device memory"):
        generate(random_pair(), random_prompt(100), device_gb=0.001)
    with pytest.raises(ValueError, match="device_gb"):
        generate(random_pair(), random_prompt(100), device_gb=-1)


def test_a_batch_is_its_rows_each_alone() -> None:
    pair = random_pair()
    prompts = [random_prompt(length, seed=length) for length in (20, 75, 130)]
    policy = KVPolicy(4, on_chip=1, block=16, group=16, tail=4)
    batch = generate(pair, prompts, new_tokens=30, policy=policy, sampling=GREEDY)
    alone = [generate(pair, p, new_tokens=30, policy=policy, sampling=GREEDY) for p in prompts]
    assert [row.tokens for row in batch] == [row.tokens for row in alone]
    assert len({row.accepted_per_round for row in batch}) > 1


def test_a_batch_with_one_bad_row_does_not_start() -> None:
    started: list[str] = []
    with pytest.raises(ValueError, match="prompt"):
        generate(
            random_pair(),
            [random_prompt(30), [1, 99_999]],
            on_progress=lambda stage, done, total: started.append(stage),
        )
    assert not started
