"""The emulated link: it really copies, keeps its bandwidth, queues, overlaps and counts."""

from __future__ import annotations

import time

import pytest
import torch

from mspeckv import (
    KVPolicy,
    Link,
    Prefill,
    Round,
    RunConfig,
    RunSummary,
    Sampling,
    generate,
    stream,
)
from mspeckv.decoding.reader import ModelReader, Seat
from mspeckv.events import total_bytes
from mspeckv.kv.full import FullCache
from mspeckv.kv.link import CopyEngine, origin_gbps
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import full_sizes
from mspeckv.record import Ledger, Recorder
from tests.random_models import block_codec, random_pair, random_prompt

GREEDY = Sampling(temperature=0, stop_at_eos=False)


def buffers(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, generator=generator)
    return source, torch.zeros_like(source)


def test_copies_arrive_at_the_bandwidth_and_queue_behind_one_another() -> None:
    ledger = Ledger()
    with CopyEngine(ledger, gbps=0.01) as link:
        source, target = buffers(200_000)
        start = time.perf_counter()
        tickets = [link.copy(source, target, "to_device", "verify", i) for i in range(3)]
        for ticket in tickets:
            link.wait(ticket)
        seconds = time.perf_counter() - start
    assert torch.equal(source, target)
    assert seconds >= 3 * 200_000 / 0.01e9
    assert [t.bytes for t in ledger.since()] == [200_000] * 3
    assert all(t.ms >= 19 for t in ledger.since())


def test_a_transfer_overlaps_what_is_computed_meanwhile() -> None:
    ledger = Ledger()
    with CopyEngine(ledger, gbps=0.01) as link:
        ticket = link.copy(*buffers(3_000_000), "to_device", "verify", 0)
        assert not ticket.arrived.is_set()
        assert ticket.arrived.wait(60)  # what is computed meanwhile
        link.wait(ticket)
    (transfer,) = ledger.since()
    assert transfer.ms >= 299
    assert transfer.wait_ms < transfer.ms / 2


def test_closing_drops_what_is_queued_without_holding_it() -> None:
    ledger = Ledger()
    # each would take 100 s
    with CopyEngine(ledger, gbps=1e-6) as link:
        for layer in range(5):
            link.copy(*buffers(100_000), "to_device", "verify", layer)
    assert len(ledger.since()) <= 1


def test_a_failing_copy_reaches_the_run() -> None:
    with CopyEngine(Ledger(), None) as link:
        ticket = link.copy(buffers(10)[0], buffers(11)[0], "to_device", "verify", 0)
        with pytest.raises(RuntimeError, match="copy thread failed"):
            link.wait(ticket)


def test_origin_keeps_the_published_ratio() -> None:
    # SmolLM2-135M at a 50 ms step: design figure of about 36 MB/s.
    assert origin_gbps(0.050, 30, 2 * 3 * 64 * 4) == pytest.approx(0.0356, rel=0.01)


@pytest.mark.parametrize(("bits", "on_chip", "resident"), [(8, 0, 0), (4, 1, 2), ("full", 1, 1)])
def test_the_ledger_is_the_formula_and_the_sum_of_the_events(
    bits: int, on_chip: int, resident: int
) -> None:
    pair, prompt, new, block = random_pair(), 100, 50, 16
    tail = 8
    policy = KVPolicy(bits, on_chip, resident, block=block, tail=tail)
    events = list(
        stream(
            pair,
            random_prompt(prompt),
            RunConfig.build(
                method="autoregressive", new_tokens=new, policy=policy, sampling=GREEDY
            ),
        )
    )
    first, rounds, last = events[0], events[1:-1], events[-1]
    assert isinstance(first, Prefill)
    assert isinstance(last, RunSummary)
    transfers = list(first.transfers)
    for event in rounds:
        assert isinstance(event, Round)
        transfers += event.transfers
    shape = KVShape.of(pair.target.config, pair.dtype)
    codec = block_codec(shape.heads, shape.dim, block, policy.bits, policy.group, pair.dtype)
    streamed = policy.placement(4).count("offloaded")
    # Pass i reads every packed block; prompt - 1 + i tokens are settled before it.
    blocks = sum((prompt - 1 + i - tail) // block for i in range(new))
    assert last.link.to_device_bytes == streamed * codec.record_bytes * blocks
    # Each block crosses to the host once, when it is packed.
    sent = (prompt + new - 1 - tail) // block
    assert last.link.to_host_bytes == streamed * codec.record_bytes * sent
    assert total_bytes(transfers, "to_device") == last.link.to_device_bytes
    assert total_bytes(transfers, "to_host") == last.link.to_host_bytes
    assert {t.layer for t in transfers} <= set(range(4 - streamed, 4))


def test_a_throttled_run_gives_the_same_tokens_and_is_called_emulated() -> None:
    pair, prompt = random_pair(), random_prompt(200)
    fast = generate(pair, prompt, new_tokens=20, sampling=GREEDY)
    slow = generate(pair, prompt, new_tokens=20, sampling=GREEDY, link=Link("custom", 0.005))
    assert fast.tokens == slow.tokens
    assert (fast.link.kind, slow.link.kind) == ("memory", "emulated")
    assert slow.link.gbps == 0.005


@pytest.mark.parametrize("ahead", [2, 3, 6])
def test_layers_cross_the_link_while_lower_tiers_guess(ahead: int) -> None:
    """Between `begin_pass` and the first lookup, as many layers arrive as the policy says."""
    pair, tokens = random_pair(layers=4), random_prompt(100)
    policy = KVPolicy(8, block=16, tail=8, ahead=ahead)
    recorder = Recorder(Ledger())
    shape = KVShape.of(pair.target.config, pair.dtype)
    with CopyEngine(recorder.ledger, None) as link, torch.inference_mode():
        cache = FullCache(shape, policy, 120, link, pair.device)
        reader = ModelReader(Seat(2, "decode", pair.target, cache, recorder))
        reader.prefill(tokens[:-1])
        link.drain()
        recorder.take()
        cache.begin_pass()
        link.drain()
        guessing = recorder.take().transfers
        reader.read(tokens, rows=1)
        reading = recorder.take().transfers
    assert [t.layer for t in guessing] == list(range(min(ahead, 4)))
    assert [t.layer for t in reading] == list(range(min(ahead, 4), 4))
    assert cache.pipeline.bytes == full_sizes(shape, policy, 120).slots
