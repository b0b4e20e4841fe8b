"""Profiles: what their tables add up to, and what becomes of them on disk."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from torch.profiler import profile as profiler

from mspeckv import (
    KVPolicy,
    Pair,
    Profile,
    RunConfig,
    Sampling,
    calibrate,
    documents,
    profile,
    record,
    stream,
)
from mspeckv.accelerate.ordered_weights import PRODUCT
from mspeckv.accelerate.packed_attention import kernel
from mspeckv.record import span
from mspeckv_study.profiling.host_events import host_events
from mspeckv_study.profiling.result import RANGES, REST
from mspeckv_study.profiling.session import _one_at_a_time, _read_events
from mspeckv_study.profiling.spans import nest, read_trace, tier_totals
from tests.random_models import random_pair, random_prompt

PACKED = "kv/packed" if kernel() is not None else "kv/dequantize"
"""What reading packed layers is called here."""
GREEDY = Sampling(temperature=0, stop_at_eos=False)


@pytest.fixture(scope="module")
def taken() -> Profile:
    """Sixteen tokens of the real pair at 1 k, int8, everything streamed."""
    pair = load()
    assert pair.tokenizer is not None
    prompt = documents.load_document("python-reference", pair.tokenizer, 1024)
    return profile(
        pair, prompt, method="mspeckv", new_tokens=16, policy=KVPolicy(8, on_chip=10, resident=10),
        sampling=GREEDY, link="live",
    )  # fmt: skip


def load() -> Pair:
    from mspeckv import load_pair

    return load_pair(weights="float")


def test_rows_add_up_to_the_wall_and_little_is_left_over(taken: Profile) -> None:
    named = [row for row in taken.rows if row.step != REST]
    (rest,) = (row for row in taken.rows if row.step == REST)
    assert sum(row.self_ms for row in taken.rows) == pytest.approx(taken.wall_ms)
    # the rest is a difference: it must be small, and not negative, for the sum to mean anything
    assert -0.01 < rest.share < 0.05
    assert all(row.self_ms >= 0 for row in named)
    assert all(row.total_ms >= row.self_ms for row in named)
    assert rest.step in taken.table()


def test_the_profilers_own_time_is_a_row_and_little(taken: Profile) -> None:
    (own,) = (row for row in taken.rows if row.step == RANGES)
    assert 0 < taken.range_us < 1000
    assert own.calls > 3 * len(taken.rounds)
    assert 0 < own.share < 0.03
    assert own.self_ms <= own.calls * taken.range_us / 1e3


def test_every_kind_of_work_is_there_and_nested_where_it_happens(taken: Profile) -> None:
    found = {(row.tier, row.step) for row in taken.rows}
    assert found >= {
        (0, "tier0/draft"), (1, "tier1/verify"), (2, "tier2/verify"), (2, "kv/fetch"),
        (2, PACKED), (2, "retrieval/score"), (2, "retrieval/gather"), (None, "sample"),
    }  # fmt: skip
    by_step = {row.step: row for row in taken.rows}
    assert by_step["tier2/verify"].calls == len(taken.rounds)
    assert by_step[PACKED].calls == 20 * len(taken.rounds)
    assert by_step["kv/fetch"].calls == 10 * len(taken.rounds)
    assert by_step["tier1/verify"].gflop > by_step["tier0/draft"].gflop > 0


def test_times_are_those_of_the_events(taken: Profile) -> None:
    assert taken.tier_ms.keys() == {0, 1, 2}
    counts = [count for one in taken.rounds for count in one.tiers]
    for tier, ms in taken.tier_ms.items():
        own = sum(count.ms for count in counts if count.tier == tier)
        assert ms == pytest.approx(own, rel=0.05)


def test_bytes_are_the_ledgers(taken: Profile) -> None:
    moved = [t for one in taken.rounds for t in one.transfers if t.direction == "to_device"]
    (fetch,) = (row for row in taken.rows if row.step == "kv/fetch")
    assert fetch.bytes == sum(t.bytes for t in moved) == taken.summary.link.to_device_bytes
    # the emulated link's own bandwidth, which no wait can exceed
    assert taken.summary.link.gbps is not None
    assert 0 < fetch.gbps <= 1.01 * taken.summary.link.gbps


def test_a_pass_reads_weights_and_kv(taken: Profile) -> None:
    draft, target = taken.weights
    # SmolLM2-135M's float32 weights; the draft's two layers and the head that it shares
    assert 5.3e8 < target < 5.5e8
    assert 1.3e8 < draft < 1.5e8
    by_step = {row.step: row for row in taken.rows}
    for step, weights in (("tier0/draft", draft), ("tier1/verify", target)):
        row = by_step[step]
        passes = [one for done in taken.rounds for one in done.passes if one.tier == int(step[4])]
        assert row.bytes == row.calls * weights + sum(one.kv_bytes for one in passes)
        assert row.gbps == pytest.approx(row.bytes / row.total_ms / 1e6)


def test_guessing_lies_left_of_the_ridge(taken: Profile) -> None:
    """A pass over one token does two operations per float32 weight, which has four bytes."""
    found = {row.step: row.gflop * 1e9 / row.bytes for row in taken.rows if row.gflop and row.bytes}
    assert found["tier0/draft"] == pytest.approx(0.5, abs=0.05)
    assert found["tier0/draft"] < found["tier1/verify"] < found["tier2/verify"]
    ceilings = calibrate()
    ridge = ceilings.matrix_gflops / ceilings.memory_gbps
    assert found["tier1/verify"] < ridge


@pytest.mark.parametrize("stacks", [False, True])
def test_the_hosts_events_say_what_torchs_own_do(stacks: bool) -> None:
    config = RunConfig.build(
        new_tokens=4, policy=KVPolicy(8, on_chip=1, resident=1, block=16), sampling=GREEDY
    )
    taken = profiler(profile_memory=True, with_flops=True, with_stack=stacks)
    events = stream(random_pair(), random_prompt(100), config)
    next(events)
    record.record_spans(on=True)
    try:
        with taken:
            list(events)
    finally:
        record.record_spans(on=False)
    assert taken.profiler is not None
    spans, ops, gflop = _read_events(host_events(taken.profiler.kineto_results))
    of_torch = _read_events(taken.events())
    assert (spans, gflop) == (of_torch[0], of_torch[2])
    theirs = {(one.tier, one.op): one for one in of_torch[1]}
    assert theirs.keys() == {(one.tier, one.op) for one in ops}
    for one in ops:
        own = theirs[one.tier, one.op]
        assert one.calls == own.calls, one.op
        assert one.self_ms == pytest.approx(own.self_ms), one.op


def test_floats_are_copied_and_not_dequantized() -> None:
    found = profile(
        random_pair(), random_prompt(200), new_tokens=4, overhead=False, memory=False, link=1.0,
        policy=KVPolicy("full", block=16), sampling=GREEDY,
    )  # fmt: skip
    steps = {row.step for row in found.rows}
    assert "kv/copy" in steps
    assert "kv/dequantize" not in steps


def test_the_tracer_writes_no_lines_of_its_own() -> None:
    """torch reads how much its tracer says once: as a process takes its first trace."""
    code = (
        "from mspeckv import Sampling, profile\n"
        "from tests.random_models import random_pair, random_prompt\n"
        "greedy = Sampling(temperature=0, stop_at_eos=False)\n"
        "profile(random_pair(), random_prompt(60), new_tokens=4, overhead=False, sampling=greedy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "profiler_start" not in done.stderr


def test_an_exported_trace_gives_the_same_totals(taken: Profile, tmp_path: Path) -> None:
    path = taken.export_trace(tmp_path / "deep" / "trace.json")
    json.loads(path.read_text(encoding="utf-8"))
    again = tier_totals(read_trace(path))
    for tier, ms in taken.tier_ms.items():
        assert again[tier] == pytest.approx(ms, rel=0.01)


def test_rows_are_exported_as_csv(taken: Profile, tmp_path: Path) -> None:
    path = taken.export_csv(tmp_path / "rows.csv")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [row.step for row in taken.rows]
    assert sum(float(row["self_ms"]) for row in rows) == pytest.approx(taken.wall_ms)


def test_a_folder_for_tensorboard_holds_a_trace(taken: Profile, tmp_path: Path) -> None:
    folder = taken.export_tensorboard(tmp_path / "board")
    (file,) = folder.glob("mspeckv*.pt.trace.json")
    assert tier_totals(read_trace(file)).keys() == {0, 1, 2}


def test_operators_and_memory(taken: Profile) -> None:
    (dearest, *_) = sorted(
        (row for row in taken.ops if row.tier == 2), key=lambda row: -row.self_ms
    )
    assert dearest.self_ms > 0
    products = [row for row in taken.ops if row.op in ("aten::mm", "aten::addmm", PRODUCT)]
    assert {row.tier for row in products} >= {0, 1, 2}
    assert len(taken.memory) > 100
    assert max(held for _, held in taken.memory) > 1e6
    assert taken.overhead is not None
    assert "profiling changed the time of a token" in taken.table()


def test_only_so_many_rounds_are_profiled_and_the_run_goes_on() -> None:
    found = profile(
        random_pair(), random_prompt(60), rounds=2, overhead=False, memory=False, new_tokens=40,
        sampling=GREEDY,
    )  # fmt: skip
    assert len(found.rounds) == 2
    assert len(found.summary.tokens) == 40
    assert sum(one.name == "round" for one in found.spans) == 2
    assert found.overhead is None
    assert found.memory == ()
    assert isinstance(span("anything"), nullcontext)


@pytest.mark.parametrize(("stacks", "tokens"), [(False, 600), (True, 100)])
def test_a_long_profile_must_be_asked_for(stacks: bool, tokens: int) -> None:
    with pytest.raises(ValueError, match="rounds: None is not allowed"):
        profile(random_pair(), random_prompt(60), stacks=stacks, new_tokens=tokens)


def test_one_profile_at_a_time() -> None:
    with (
        _one_at_a_time,
        pytest.raises(RuntimeError, match="one at a time"),
    ):
        profile(random_pair(), random_prompt(60), new_tokens=4)
    profile(random_pair(), random_prompt(60), new_tokens=4, overhead=False)


def test_a_bad_setting_leaves_the_profiler_free() -> None:
    with pytest.raises(ValueError, match="method"):
        profile(random_pair(), random_prompt(60), method="none")
    assert not _one_at_a_time.locked()
    assert isinstance(span("anything"), nullcontext)


def test_nesting() -> None:
    spans = nest([
        ("round", 0.0, 100.0), ("tier2/verify", 10.0, 60.0), ("kv/fetch", 20.0, 30.0),
        ("sample", 70.0, 75.0), ("kv/flush", 80.0, 90.0),
    ])  # fmt: skip
    assert [one.self_us for one in spans] == [35.0, 40.0, 10.0, 5.0, 10.0]
    assert [one.tier for one in spans] == [None, 2, 2, None, 2]
    assert [one.depth for one in spans] == [0, 1, 2, 1, 1]


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="trace: "):
        read_trace(path)


def test_without_a_profiler_a_range_is_nothing() -> None:
    assert span("one") is span("other")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setattr("mspeckv.models.kept.cache_folder", lambda: tmp_path)
    return tmp_path


def test_ceilings_are_measured_and_kept(folder: Path) -> None:
    first = calibrate()
    for figure in (first.to_device_gbps, first.to_host_gbps, first.memory_gbps):
        assert 0.1 < figure < 10_000
    assert first.matrix_gflops > 1
    assert 0 < first.call_us < 1000
    again = calibrate()
    assert again == first
    assert "min ago" in again.describe()
    assert calibrate(again=True).measured_at > first.measured_at


def test_kept_ceilings_that_cannot_be_read_are_measured_anew(folder: Path) -> None:
    calibrate()
    (path,) = folder.glob("*.json")
    whole = json.loads(path.read_text(encoding="utf-8"))
    for text in ('{"device": 1}', json.dumps({**whole, "found": {"device": 1}})):
        path.write_text(text, encoding="utf-8")
        assert calibrate().memory_gbps > 0


def test_ceilings_of_a_device_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="device: 'tpu' is not allowed"):
        calibrate("tpu")


def test_a_gpus_ranges_are_found_again_on_the_host() -> None:
    """The host runs ahead: the second pass is enqueued before the device is done with the first."""
    host = [("round", 0.0, 100.0), ("tier0/draft", 10.0, 12.0), ("tier0/draft", 14.0, 16.0)]
    host += [("kv/fetch", 40.0, 42.0), ("tier2/verify", 38.0, 50.0)]
    compute = [
        ("tier0/draft", 11.0, 21.0),
        ("tier0/draft", 21.0, 31.0),
        ("tier2/verify", 45.0, 90.0),
    ]
    copies = [("tier2/verify", 41.0, 44.0)]
    found = nest(host, {7: compute, 13: copies})
    by_name = [(one.name, one.device_us, one.done) for one in found]
    assert by_name == [
        ("round", 0.0, 100.0), ("tier0/draft", 10.0, 21.0), ("tier0/draft", 10.0, 31.0),
        ("tier2/verify", 45.0, 90.0), ("kv/fetch", 0.0, 42.0),
    ]  # fmt: skip
    # from the host's start to the device's end, since a pass is over when the device is
    assert tier_totals(found) == pytest.approx({0: 0.028, 2: 0.052})


def test_a_range_that_did_nothing_on_the_device_leaves_a_gap() -> None:
    host = [("sample", 0.0, 5.0), ("sample", 10.0, 15.0), ("sample", 20.0, 25.0)]
    found = nest(host, {7: [("sample", 12.0, 13.0), ("sample", 22.0, 24.0)]})
    assert [one.device_us for one in found] == [0.0, 1.0, 2.0]
