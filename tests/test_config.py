"""Settings check themselves, and say what is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mspeckv import generate
from mspeckv.models.text import encode_prompt
from mspeckv.settings import (
    METHODS,
    WIDTHS,
    KVPolicy,
    Link,
    RunConfig,
    Sampling,
    Settings,
    Speculation,
    Width,
    default_width,
)
from tests.random_models import random_pair, random_prompt


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KVPolicy(bits=5), "bits: 5 is not allowed; use 8, 4, 3, 2 or 'full'"),
        (lambda: KVPolicy(bits=True), "bits: True"),
        (lambda: KVPolicy(on_chip=-1), "on_chip: -1"),
        (lambda: KVPolicy(resident=1.5), "resident: 1.5"),  # type: ignore[arg-type]  # the point
        (lambda: KVPolicy(block=12), "block: 12 is not allowed; use a multiple of 8"),
        (lambda: KVPolicy(group=0), "group: 0"),
        (lambda: Speculation(gamma=0), "gamma: 0 is not allowed; use a whole number from 1 to 64"),
        (lambda: Speculation(draft_gamma=65), "draft_gamma: 65"),
        (lambda: Speculation(chunk=0), "chunk: 0"),
        (lambda: Speculation(budget=40), r"budget: 40 is not allowed; use at least .* = 48"),
        (lambda: Speculation(refresh=-1), "refresh: -1"),
        (lambda: Speculation(window=7), "window: 7"),
        (lambda: Sampling(temperature=-0.1), "temperature: -0.1"),
        (lambda: Sampling(temperature=float("nan")), "temperature: nan"),
        (lambda: Sampling(top_p=0.0), "top_p: 0.0 is not allowed; use a number above 0 to 1"),
        (lambda: Sampling(seed=-1), "seed: -1"),
        (lambda: Link("fast"), "link: 'fast'"),
        (lambda: Link("custom"), "gbps: None"),
        (lambda: Link("live", 1.0), "gbps: 1.0"),
        (lambda: Link.parse("much"), "link: 'much'"),
        (lambda: Link.parse(0), "link: 0 is not allowed; use off, live, origin or a bandwidth"),
        (lambda: RunConfig("beam"), "method: 'beam'"),
        (lambda: RunConfig(new_tokens=0), "new_tokens: 0"),
        (lambda: RunConfig("triforce"), "bits: 8 is not allowed; triforce keeps KV unquantized"),
    ],
)
def test_refusals_name_field_value_and_what_is_allowed(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        build()
    assert "\n" not in str(refused.value)


@given(
    layers=st.integers(1, 64),
    on_chip=st.integers(0, 64),
    resident=st.integers(0, 64),
    bits=st.sampled_from(WIDTHS),
)
def test_placement_counts_every_layer_once(
    layers: int, on_chip: int, resident: int, bits: Width
) -> None:
    policy = KVPolicy(bits=bits, on_chip=on_chip, resident=resident)
    if on_chip + resident > layers:
        with pytest.raises(ValueError, match="on_chip \\+ resident"):
            policy.placement(layers)
        return
    placement = policy.placement(layers)
    assert len(placement) == layers
    assert placement.count("on-chip") == on_chip
    assert placement.count("resident") == (0 if bits == "full" else resident)
    assert list(placement) == sorted(placement, key=["on-chip", "resident", "offloaded"].index)


@pytest.mark.parametrize("method", METHODS)
def test_default_width_is_8_for_mspeckv_alone(method: str) -> None:
    expected = 8 if method == "mspeckv" else "full"
    assert RunConfig.build(method=method).policy.bits == expected == default_width(method)


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("off", Link()),
        ("live", Link("live")),
        ("0.05", Link("custom", 0.05)),
        (2, Link("custom", 2.0)),
        (Link("origin"), Link("origin")),
    ],
)
def test_links_from_text(text: str | float | Link, link: Link) -> None:
    assert Link.parse(text) == link


def test_settings_are_frozen_and_serialisable() -> None:
    config = RunConfig.build(method="vanilla", new_tokens=5, link="live")
    with pytest.raises(FrozenInstanceError):
        config.new_tokens = 6  # type: ignore[misc]  # the point
    out = json.loads(json.dumps(config.to_dict()))
    assert set(out) == {field.name for field in fields(RunConfig)}
    assert out["link"] == {"preset": "live", "gbps": None}


def test_generate_takes_every_setting_of_a_run() -> None:
    names = [part.name for part in fields(RunConfig)]
    assert list(Settings.__annotations__) == names
    assert RunConfig.build(**dict.fromkeys(names)) == RunConfig()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'budget' is not allowed; use speculation=Speculation"):
        RunConfig.build(budget=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("width", [8.0, np.int64(8), np.float32(8)])
def test_a_width_that_was_computed_is_taken(width: object) -> None:
    policy = KVPolicy(bits=width)  # type: ignore[arg-type]
    assert policy == KVPolicy(bits=8)
    assert type(policy.bits) is int


@pytest.mark.parametrize("width", [8.5, "8", True, None, float("inf"), float("nan")])
def test_a_width_that_is_none_is_refused(width: object) -> None:
    with pytest.raises(ValueError, match="bits: "):
        KVPolicy(bits=width)  # type: ignore[arg-type]


def test_prompts_come_as_tokenizers_give_them() -> None:
    pair, row = random_pair(), random_prompt(9)
    for prompt in (
        {"input_ids": row}, {"input_ids": [row]}, {"input_ids": torch.tensor([row])},
        torch.tensor(row), torch.tensor([row]), np.array(row), np.array([row]),
        [np.int64(token) for token in row], tuple(row),
    ):  # fmt: skip
        assert encode_prompt(pair, prompt) == row  # type: ignore[arg-type]
    summary = generate(pair, [np.int64(token) for token in row], new_tokens=2)  # type: ignore[misc]
    assert len(summary.tokens) == 2
    for wrong in ({"ids": row}, 5, [0.5, 1.5], torch.ones(2, 3, dtype=torch.int64), None):
        with pytest.raises(ValueError, match="prompt: "):
            encode_prompt(pair, wrong)  # type: ignore[arg-type]
