"""A run's checks, its end, its cancel, and its memory."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from mspeckv import (
    KVPolicy,
    Pair,
    Prefill,
    Round,
    RunSummary,
    Sampling,
    Speculation,
    documents,
    generate,
    stream,
)
from mspeckv.api import engine_of
from mspeckv.decoding.fits import predict
from mspeckv.decoding.speculate import Speculate
from mspeckv.decoding.tiers import build_tiers
from mspeckv.kv.link import CopyEngine
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.models.text import TextStream
from mspeckv.record import Ledger, Recorder
from mspeckv.settings import RunConfig
from tests.random_models import random_pair, random_prompt

GREEDY = Sampling(temperature=0, stop_at_eos=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": KVPolicy(8, 3, 2)}, "on_chip \\+ resident: 5"),
        ({"method": "guesswork"}, "method: 'guesswork'"),
        ({"new_tokens": 0}, "new_tokens: 0"),
        ({"new_tokens": 5000}, "prompt \\+ new_tokens: '50 \\+ 5000'.*2048 positions"),
        ({"link": "fast"}, "link: 'fast'"),
        ({"method": "triforce", "policy": KVPolicy(8)}, "bits: 8.*triforce"),
    ],
)
def test_a_run_that_cannot_work_is_refused_at_the_call(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stream(random_pair(), random_prompt(50), RunConfig.build(**arguments))  # type: ignore[arg-type]


def test_prompts_are_checked() -> None:
    with pytest.raises(ValueError, match="prompt: .*at least one token"):
        generate(random_pair(), [])
    with pytest.raises(ValueError, match="prompt: 64 is not allowed; token ids lie in 0 .. 63"):
        generate(random_pair(), [1, 64])
    with pytest.raises(ValueError, match="no tokenizer"):
        generate(random_pair(), "text")
    with pytest.raises(ValueError, match="vanilla.*no draft"):
        generate(Pair.of(random_pair().target), [1, 2, 3], method="vanilla")


def test_events_add_up_to_the_summary() -> None:
    events = list(
        stream(
            random_pair(),
            random_prompt(70),
            RunConfig.build(new_tokens=33, sampling=GREEDY, method="vanilla"),
        )
    )
    assert isinstance(events[0], Prefill)
    summary = events[-1]
    assert isinstance(summary, RunSummary)
    rounds = [event for event in events if isinstance(event, Round)]
    assert len(rounds) == len(events) - 2 == summary.rounds
    assert sum((r.tokens for r in rounds), ()) == summary.tokens
    assert sum((r.settled_by for r in rounds), ()) == summary.settled_by
    assert len(summary.tokens) == 33
    assert [tier.tier for tier in summary.tiers] == [0, 2]
    for event in rounds:
        assert len(event.tokens) == event.accepted + 1
        assert event.settled_by == (0,) * event.accepted + (2,)
    low, top = summary.tiers
    assert (low.proposed, low.accepted) == (
        sum(r.proposed for r in rounds),
        sum(r.accepted for r in rounds),
    )
    assert top.passes == summary.rounds


def test_a_cancelled_run_keeps_what_it_has_and_leaves_the_pair_usable() -> None:
    pair, prompt = random_pair(), random_prompt(100)
    cancel = threading.Event()
    events = []
    for event in stream(
        pair, prompt, RunConfig.build(new_tokens=60, sampling=GREEDY), cancel=cancel
    ):
        events.append(event)
        if len(events) == 4:
            cancel.set()
    summary = events[-1]
    assert isinstance(summary, RunSummary)
    assert summary.cancelled
    assert len(events) == 5
    full = generate(pair, prompt, new_tokens=60, sampling=GREEDY)
    assert not full.cancelled
    assert summary.tokens == full.tokens[: len(summary.tokens)]
    assert summary.tokens


def test_a_run_can_be_cancelled_inside_its_prefill() -> None:
    cancel = threading.Event()
    seen = []

    def stop_at_layer_two(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))
        if done == 2:
            cancel.set()

    summary = generate(
        random_pair(),
        random_prompt(100),
        method="autoregressive",
        cancel=cancel,
        on_progress=stop_at_layer_two,
    )
    assert summary.cancelled
    assert summary.tokens == ()
    assert seen == [("prefill", 1, 4), ("prefill", 2, 4)]


def test_a_slow_link_does_not_delay_a_cancel() -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.5, cancel.set)
    timer.start()
    summary = generate(
        random_pair(),
        random_prompt(400),
        method="autoregressive",
        policy=KVPolicy("full"),
        new_tokens=1000,
        sampling=GREEDY,
        link=0.002,
        cancel=cancel,
    )
    assert summary.cancelled
    assert len(summary.tokens) < 50


def test_end_of_sequence_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, prompt = random_pair(), random_prompt(60)
    whole = generate(pair, prompt, new_tokens=30, sampling=GREEDY).tokens
    last = whole[7]
    monkeypatch.setattr(Pair, "eos_ids", frozenset({last}))
    cut = generate(pair, prompt, new_tokens=30, sampling=Sampling(temperature=0)).tokens
    assert cut == whole[: whole.index(last) + 1]


@pytest.mark.parametrize("method", ["autoregressive", "vanilla", "mspeckv"])
@pytest.mark.parametrize(("on_chip", "resident"), [(0, 0), (1, 2), (4, 0)])
def test_predicted_bytes_are_the_allocated_bytes(method: str, on_chip: int, resident: int) -> None:
    pair = random_pair()
    engine = engine_of(pair)
    config = RunConfig(method, 40, KVPolicy(8, on_chip, resident), Speculation(budget=96))
    predicted = predict(engine, pair, config, 150)
    recorder = Recorder(Ledger())
    with CopyEngine(recorder.ledger, None) as link:
        tiers = build_tiers(
            engine, config, pair, random_prompt(150), link, recorder, lent=ExitStack()
        )
        for place, size in tiers.full.allocated().items():
            assert getattr(predicted, place) == size, place
        if isinstance(tiers.root, Speculate) and method == "mspeckv":
            assert isinstance(tiers.root.proposer, Speculate)
            middle = tiers.root.proposer.verifier.cache  # type: ignore[attr-defined]
            assert isinstance(middle, RetrievalCache)
            assert predicted.retrieval == middle.bytes


def test_text_comes_in_whole_characters(pair: Pair) -> None:
    text = "naïve café, 東京 and 🙂 end"
    assert pair.tokenizer is not None
    tokens = pair.tokenizer(text)["input_ids"]
    out = TextStream(pair.tokenizer)
    pieces = [out.push([token]) for token in tokens]
    assert "".join(pieces) == text == out.text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_summary_has_the_contracts_keys(pair: Pair) -> None:
    prompt = documents.load_document("python-reference", pair.tokenizer, 80)
    out = generate(pair, prompt, new_tokens=4).to_json()
    assert {
        "tokens",
        "text",
        "tokens_per_second",
        "ms_per_token",
        "prefill_seconds",
        "rounds",
        "accepted_per_round",
        "tiers",
        "link",
        "memory",
        "config",
        "versions",
    } <= set(out)
    assert {"tier", "passes", "proposed", "accepted", "ms"} <= set(out["tiers"][0])
    assert {"kind", "gbps", "to_device_bytes", "to_host_bytes", "ms"} == set(out["link"])
