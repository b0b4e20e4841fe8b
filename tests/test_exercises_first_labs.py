"""Checkers of labs 00 to 03: right answers pass, wrong ones are told what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from mspeckv import KVPolicy, KVProbe, Link, RunConfig, Sampling, doors, stream
from mspeckv.testing import (
    SMALL,
    check_bytes,
    check_codec,
    check_path_independence,
    tiny_pair,
    tiny_prompt,
)
from mspeckv.testing.exactness import chi_square
from mspeckv_widgets.compared import link_bytes
from mspeckv_widgets.course.exercise import Verdict, find_exercises, judge
from mspeckv_widgets.course.exercises import lab02, verify_loops
from mspeckv_widgets.course.exercises.lab01 import alike
from mspeckv_widgets.course.loops import SUSPECTS, Settle, amber, coral, loop_of
from mspeckv_widgets.course.own_codec import register_own
from mspeckv_widgets.course.two_tiers import TwoTiers, texts_expected, texts_seen
from mspeckv_widgets.record import RunRecord, Setting
from tests.random_models import random_pair, random_prompt

P, Q = [0.5, 0.3, 0.15, 0.05], [0.2, 0.5, 0.05, 0.25]
SHOWN = {"p": P, "q": Q, "n": 2, "gamma": 2}
Draws = np.random.Generator


def verdict(lab: str, name: str, answer: Any) -> Verdict:
    return judge(find_exercises(lab)[name], answer)


def record(number: int, method: str = "mspeckv", resident: int = 0) -> RunRecord:
    """A finished run of a tiny pair, as the panel has it."""
    policy = KVPolicy(8, on_chip=1, resident=resident, block=16, tail=8)
    config = RunConfig(method, 16, policy, SMALL, Sampling(0), Link.parse(0.02))
    found = RunRecord(number, Setting("tiny", 61, config))
    for event in stream(tiny_pair(), tiny_prompt(), config):
        found.add(event)
    return found


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    """Newest first."""
    return [record(3, resident=2), record(2), record(1, "autoregressive")]


def test_a_formula_of_bytes_is_judged_by_its_values() -> None:
    assert verdict("00_start_here", "e1", lambda n, h, d, size: 2 * n * h * d * size).passed
    half = verdict("00_start_here", "e1", lambda n, h, d, size: n * h * d * size)
    assert "is right" in half.message
    assert verdict("00_start_here", "e2", 4.29).passed
    assert not verdict("00_start_here", "e2", 8.6).passed


def test_bytes_are_held_against_every_run(records: list[RunRecord]) -> None:
    def right(rounds: Any) -> float:
        moved = sum(t.bytes for one in rounds for t in one.transfers)
        return float(moved / sum(len(one.tokens) for one in rounds))

    def per_round(rounds: Any) -> float:
        return float(sum(t.bytes for one in rounds for t in one.transfers) / len(rounds))

    assert verdict("01_live_lab", "e1", (right, records)).passed
    wrong = verdict("01_live_lab", "e1", (per_round, records))
    assert "the panel counted" in wrong.message
    assert "no finished run" in verdict("01_live_lab", "e1", (right, [])).message
    assert "no answer yet" in verdict("01_live_lab", "e1", (lambda _: ..., records)).message


def test_runs_are_alike_but_for_one_field(records: list[RunRecord]) -> None:
    assert [one.number for one in alike(records, "method", "autoregressive", "mspeckv").values()] \
        == [1, 2]  # fmt: skip
    assert [one.number for one in alike(records, "resident", 0, 2).values()] == [2, 3]
    assert alike(records, "resident", 0, 15) == {}


def test_the_share_left_needs_the_runs_too(records: list[RunRecord]) -> None:
    def right(on_chip: int, resident: int) -> float:
        return (30 - on_chip - resident) / (30 - on_chip)

    asked = verdict("01_live_lab", "e2", (right, records))
    assert not asked.passed
    assert "now run resident 0 and resident 8" in asked.message
    other = verdict("01_live_lab", "e2", (lambda c, r: (30 - c - r) / 30, records))
    assert "is right" in other.message
    assert link_bytes(records[0]) < link_bytes(records[1])


def codec(along: dict[str, int], packed: bool = True) -> tuple[Any, Any]:
    """Four-bit codes with a low and a step along an axis for keys and for values."""

    def pack(x: Any, name: str) -> Any:
        low = x.min(along[name], keepdims=True).astype("float16")
        step = ((x.max(along[name], keepdims=True) - low) / 15).astype("float16")
        codes = ((x - low) / step).round().clip(0, 15).astype("uint8")
        return (16 * codes[::2] + codes[1::2] if packed else codes), low, step

    def unpack(stored: Any, name: str) -> Any:
        both, low, step = stored
        rows = np.stack((both // 16, both % 16), 1).reshape(-1, both.shape[1]) if packed else both
        return low + step * rows.astype("float32")

    return pack, unpack


@pytest.fixture(scope="module")
def probe() -> KVProbe:
    return KVProbe(random_pair(vocab=64), random_prompt(192), asked=32)


@pytest.fixture(autouse=True)
def _no_codec_stays() -> Iterator[None]:
    yield
    if lab02.OWN in doors.codecs.names():
        doors.codecs.unregister(lab02.OWN)


def test_a_codec_of_ones_own_passes_the_kit() -> None:
    register_own("mine", *codec({"keys": 0, "values": 1}))
    policy = KVPolicy(8, resident=1, block=16, group=16, tail=8, codec="mine")
    check_codec(policy)
    check_path_independence(policy, seeds=3)
    check_bytes(policy)


def test_a_codec_is_judged_by_bits_and_acceptance(
    probe: KVProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # heads of 16 channels share a scale among fewer numbers
    monkeypatch.setattr(lab02, "MOST_BITS", 5.5)
    kivi = codec({"keys": 0, "values": 1})
    right = verdict("02_quantize", "e3", (*kivi, probe))
    assert right.passed, right.message
    assert right.score is not None
    assert right.score.kind == "measured"
    assert lab02.OWN in doors.codecs.names()
    wide = verdict("02_quantize", "e3", (*codec({"keys": 0, "values": 1}, packed=False), probe))
    assert "two codes fit" in wide.message
    assert lab02.OWN not in doors.codecs.names()
    zeros = verdict("02_quantize", "e3", (kivi[0], lambda s, n: 0 * kivi[1](s, n), probe))
    assert "Which way" in zeros.message
    nothing = verdict("02_quantize", "e3", (kivi[0], lambda s, n: np.nan * kivi[1](s, n), probe))
    assert not nothing.passed
    assert (
        "no answer yet"
        in verdict("02_quantize", "e3", (lambda x, n: ..., *kivi[1:], probe)).message
    )
    listed = verdict("02_quantize", "e3", (lambda x, n: [1, 2], kivi[1], probe))
    assert "tuple of NumPy arrays" in listed.message


def test_one_level_too_many_is_told() -> None:
    def eager(x: Any, bits: int) -> Any:
        step = (x.max() - x.min()) / 2**bits
        return x.min() + step * ((x - x.min()) / step).round()

    assert "steps" in verdict("02_quantize", "e1", eager).message


def from_p(guesses: Any, ps: Any, qs: Any, rng: Draws) -> list[int]:
    """The mistake of section 2: a rejected guess is replaced from p."""
    for place, x in enumerate(guesses):
        if rng.random() * qs[place][x] >= ps[place][x]:
            return [*guesses[:place], int(rng.choice(len(ps[place]), p=ps[place]))]
    return [*guesses, int(rng.choice(len(ps[-1]), p=ps[-1]))]


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", SUSPECTS)
def test_one_of_three_loops_is_wrong_and_only_in_longer_texts(name: str, n: int) -> None:
    two = TwoTiers.memoryless(P, Q)
    seen = texts_seen(loop_of(SUSPECTS[name]), two, n, 2, 2000)
    chance = chi_square(seen, texts_expected(two, n))
    assert (chance < 1e-4) == (name == "blue" and n == 2), chance


def test_the_wrong_loop_has_to_be_shown() -> None:
    right = verdict("03_speculative_decoding", "e6", ("blue", SHOWN))
    assert right.passed
    assert right.score is not None
    assert 0.05 < right.score.value < 0.2
    assert not verdict("03_speculative_decoding", "e6", ("amber", SHOWN)).passed
    assert not verdict("03_speculative_decoding", "e6", ("blue", {**SHOWN, "gamma": 1})).passed
    assert not verdict("03_speculative_decoding", "e6", ("blue", {**SHOWN, "p": Q})).passed
    refused = verdict("03_speculative_decoding", "e6", ("blue", {**SHOWN, "n": 8}))
    assert "cannot be tried" in refused.message
    assert "none of" in verdict("03_speculative_decoding", "e6", ("red", SHOWN)).message


@pytest.fixture
def short_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny pair has no tokenizer, and few words."""
    monkeypatch.setattr(verify_loops, "_prompts", lambda _: [tiny_prompt(20), tiny_prompt(24)])
    monkeypatch.setattr(verify_loops, "SAMPLES", 1500)


@pytest.mark.usefixtures("short_prompts")
@pytest.mark.parametrize("settle", [amber, coral])
def test_a_right_loop_passes_on_a_pair(settle: Settle) -> None:
    found = verdict("03_speculative_decoding", "e5", (loop_of(settle), tiny_pair()))
    assert found.passed, found.message
    assert found.score is not None
    assert found.score.less_is_better


@pytest.mark.usefixtures("short_prompts")
def test_wrong_loops_are_told_what_is_wrong() -> None:
    def told(decode: Any) -> str:
        found = verdict("03_speculative_decoding", "e5", (decode, tiny_pair()))
        assert not found.passed
        return found.message

    def plain(draft: Any, target: Any, prompt: Any, n: int, gamma: int, rng: Draws) -> list[int]:
        tokens = list(prompt)
        for _ in range(n):
            draft(tokens)
            row = target(tokens, 1)[0]
            tokens.append(int(rng.choice(len(row), p=row)))
        return tokens[len(prompt) :]

    assert "plain decoding does as well" in told(plain)
    assert "not distributed" in told(loop_of(from_p))
    assert "not distributed" in told(loop_of(SUSPECTS["blue"]))
    assert "it returned" in told(lambda *all_of_it: loop_of(amber)(*all_of_it)[1:])
    assert "never asks the draft" in told(lambda d, t, p, n, g, r: [2] * n)
    assert "no answer yet" in told(lambda *_: None)
    greedy = lambda d, t, p, n, g, r: [int(d(p).argmax()) for _ in range(n)]  # noqa: E731
    assert "distributed" in told(greedy)
