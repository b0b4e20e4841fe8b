"""What was measured of this machine is kept in files, and only good ones are believed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mspeckv import KVPolicy, Pass, Prefill, Round, RunConfig, RunSummary, Sampling, Transfer
from mspeckv.adaptive import step_time
from mspeckv.api import engine_of, forget_measured, stream
from mspeckv.models import kept
from mspeckv.models.download import write_whole
from mspeckv.models.pair import Pair
from mspeckv.testing import SMALL, tiny_pair, tiny_prompt
from mspeckv_study.cli.doctor import examine, report
from mspeckv_study.measured import listing
from mspeckv_study.profiling import calibrate
from mspeckv_study.whatif import HARDWARE, Hardware, here, slowdown, this_machine
from mspeckv_study.whatif import measure as measured
from mspeckv_study.whatif.machines import MeasuredPasses

CONFIG = RunConfig(
    "mspeckv", 40, KVPolicy(8, 3, block=16), SMALL, Sampling(0, stop_at_eos=False)
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and engines that remember no step."""
    monkeypatch.setattr("mspeckv.models.kept.cache_folder", lambda: tmp_path)
    engine_of(tiny_pair()).step_seconds = None
    yield tmp_path
    engine_of(tiny_pair()).step_seconds = None


def another(pair: Pair) -> Pair:
    """The same models, as another process would load them."""
    return Pair.of(pair.target, pair.draft)


def origin_gbps(pair: Pair) -> float:
    """The bandwidth of a run over an ``origin`` link."""
    config = RunConfig.build(new_tokens=2, link="origin", speculation=SMALL, policy=CONFIG.policy)
    *_, last = stream(pair, tiny_prompt(), config)
    assert isinstance(last, RunSummary)
    assert last.link.gbps is not None
    return last.link.gbps


def test_origin_is_one_link_until_it_is_asked_for_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = tiny_pair()
    first = origin_gbps(pair)
    (path,) = folder.iterdir()
    assert path.name.startswith("origin-step-")
    text = json.loads(path.read_text(encoding="utf-8"))
    assert text["found"]["seconds"] == engine_of(pair).step_seconds
    assert text["of"]["threads"] == torch.get_num_threads()
    assert text["date"].startswith(time.strftime("%Y-", time.gmtime()))
    assert origin_gbps(another(pair)) == first

    # without its draft it is the same target, with another shape it is not
    assert origin_gbps(Pair.of(pair.target)) == first
    origin_gbps(tiny_pair(layers=5))
    assert len(list(folder.iterdir())) == 2
    (listed, _) = listing()
    assert listed["models"][0] in ("llama x3", "llama x5")

    # on request: engines that are in use forget it too
    monkeypatch.setattr(step_time, "quantiles", lambda _: [123.0])
    assert origin_gbps(pair) == first
    forget_measured()
    assert not list(folder.iterdir())
    assert origin_gbps(pair) != first
    assert engine_of(pair).step_seconds == 0.123


BAD: tuple[tuple[str, Any], ...] = (
    ("format", kept.FORMAT + 1), ("found", []), ("found", {}), ("found", {"seconds": -1.0}),
    ("found", {"seconds": "0.1"}), ("measured_at", None), ("of", {"threads": 96}),
)  # fmt: skip


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_file_of_something_else_is_as_good_as_none(
    field: str, value: object, folder: Path
) -> None:
    pair = tiny_pair()
    of = kept.subject(pair, [pair.target], ())
    assert kept.kept_step((), pair, lambda: 0.5) == 0.5
    assert kept.kept_step((), pair, lambda: 0.7) == 0.5
    path = kept.file_of(kept.STEP, of)
    whole = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**whole, field: value}), encoding="utf-8")
    assert kept.kept_step((), pair, lambda: 0.7) == 0.7
    for text in (b"{", b"\xff\xfe", b"[]", b"null"):
        path.write_bytes(text)
        assert kept.kept_step((), pair, lambda: 0.9) == 0.9
    path.unlink()
    path.mkdir()
    assert kept.kept_step((), pair, lambda: 1.5) == 1.5


@pytest.mark.parametrize("what", ["torch", "threads", "dtype", "accelerations"])
def test_other_circumstances_are_another_measurement(what: str, folder: Path) -> None:
    pair = tiny_pair()
    of = kept.subject(pair, pair.models, ("split_keys",))
    kept.keep(kept.MACHINE, of, {"a": 1}, 5.0)
    assert kept.recall(kept.MACHINE, of) == ({"a": 1}, 5.0)
    other = {**of, what: "another"}
    assert kept.recall(kept.MACHINE, other) is None
    # even under its name
    kept.file_of(kept.MACHINE, of).rename(kept.file_of(kept.MACHINE, other))
    assert kept.recall(kept.MACHINE, other) is None


def test_a_file_is_written_whole_or_not_at_all(folder: Path) -> None:
    path, ends = folder / "some.json", threading.Event()
    texts = ["1" * 200_000, "2" * 300_000]
    write_whole(path, texts[0])
    seen = set()

    def look() -> None:
        while not ends.is_set():
            seen.add(path.read_text(encoding="utf-8"))

    watcher = threading.Thread(target=look)
    watcher.start()
    for turn in range(40):
        write_whole(path, texts[turn % 2])
    ends.set()
    watcher.join()
    assert seen <= set(texts)
    assert [one.name for one in folder.iterdir()] == ["some.json"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Hardware]:
    """Stands in for ten seconds of measuring; every machine that was measured."""
    found: list[Hardware] = []

    def measure(machine: Hardware, pair: Pair) -> Hardware:
        shape = pair.kv_shape
        table = MeasuredPasses(
            shape.layers, (1, 2), (32, 64), ((1.0, 1.1), (1.2, 1.3 + len(found))), shape.token_bytes
        )
        found.append(replace(machine, passes={"target": table, "draft": table}, row_us=2.0,
                             unpack_ns={"8": 1.5}, dtype="float32"))  # fmt: skip
        return found[-1]

    monkeypatch.setattr(here, "measure", measure)
    return found


def test_a_pairs_machine_is_recalled(folder: Path, made: list[Hardware]) -> None:
    pair = tiny_pair()
    first = this_machine(pair=pair)
    assert len(made) == 1
    assert "0 min ago" in first.describe()
    again = this_machine(pair=another(pair))
    assert again == first
    assert len(made) == 1
    assert this_machine(pair=pair, again=True).passes != first.passes
    assert this_machine(pair=pair).passes == made[1].passes
    assert len(made) == 2
    # the machine itself, measured anew, lets go of its pairs'
    calibrate(again=True)
    this_machine(pair=pair)
    assert len(made) == 3


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("row_us",), "fast"), (("memory_gbps",), -1.0), (("kind",), "abacus"),
        (("more",), 1), (("passes", "target", "ms"), [[1.0]]), (("passes",), None),
        (("passes", "target", "ms"), [[1.0, 1.0], [0.0, 1.0]]), (("loop",), 5),
        (("unpack_ns",), {"8": None}), (("measured_at",), None),
    ],
)  # fmt: skip
def test_a_machine_that_is_none_is_measured_anew(
    place: tuple[str, ...], value: object, folder: Path, made: list[Hardware]
) -> None:
    pair = tiny_pair()
    this_machine(pair=pair)
    (path,) = folder.glob("machine-*.json")
    whole = json.loads(path.read_text(encoding="utf-8"))
    inner = whole["found"]
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_text(json.dumps(whole), encoding="utf-8")
    this_machine(pair=pair)
    assert len(made) == 2
    this_machine(pair=pair)
    assert len(made) == 2


def test_the_doctor_lists_what_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.kept_step((), tiny_pair(), lambda: 0.5)
    (folder / "machine-torn.json").write_text("{", encoding="utf-8")
    monkeypatch.setattr(
        "mspeckv_study.cli.doctor._self_test", lambda *_: {"passed": True, "reason": ""}
    )
    found = examine()
    assert [one["models"] for one in found["measured"]["kept"]] == [["llama x3"]]
    assert "llama x3, " in report(found)
    assert "0 min ago (anew: mspeckv doctor --again)" in report(found)


# How the machine does now


def table(token_bytes: int = 8) -> MeasuredPasses:
    """10 ms and a tenth per token of context, whatever is read."""
    return MeasuredPasses(2, (1, 2), (100, 200), ((20.0, 30.0), (20.0, 30.0)), token_bytes)


def machine(**passes: MeasuredPasses) -> Hardware:
    return Hardware("this", "", "cpu", 1, 1, 1, 1, 1, passes=passes)


def test_slowdown_is_the_median_of_what_can_be_compared() -> None:
    here = machine(target=table(), draft=table())
    # 100 tokens of context: 20 ms when it was calibrated
    one = Pass(1, "verify", 1, 100 * 2 * 8, 0.0, 40.0)
    assert slowdown(here, [one], []) == pytest.approx(2)
    slow = replace(one, ms=4000.0)
    assert slowdown(here, [one, replace(one, tier=0), slow], []) == pytest.approx(2)
    left_out = [
        replace(one, ms=9e9, **more)
        for more in ({"step": "prefill"}, {"builds": True}, {"tier": 2, "misses": 3},
                     {"tier": 2, "hits": 1})
    ]  # fmt: skip
    assert slowdown(here, [one, *left_out], []) == pytest.approx(2)
    assert slowdown(here, left_out, []) is None
    assert slowdown(here, [], []) is None
    assert slowdown(machine(), [one], []) is None
    assert slowdown(machine(target=table(0)), [one], []) is None


def test_slowdown_is_against_the_calibrations_own_runs() -> None:
    """A run is no slower for having been no luckier than theirs."""
    here = replace(machine(target=table()), own=(1.0, 1.25, 2.0), measured_at=1.0)
    one = Pass(1, "verify", 1, 100 * 2 * 8, 0.0, 40.0)
    assert slowdown(here, [one], []) == pytest.approx(2 / 1.25)
    assert Hardware.from_json(json.loads(json.dumps(asdict(here)))) == here
    older = {name: value for name, value in asdict(here).items() if name != "own"}
    assert Hardware.from_json(older).own == ()


def test_a_calibration_keeps_how_its_own_runs_went(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three runs that take 1, 1.5 and 3 times as long, the middle one is the measure."""
    short, times = measured._short_run, iter((1.5, 1.0, 3.0))
    rounds = short(tiny_pair())

    def run(pair: Pair) -> list[Round]:
        slow = next(times)
        return [
            replace(o, ms=slow * o.ms, passes=tuple(replace(p, ms=slow * p.ms) for p in o.passes),
                    transfers=tuple(replace(t, wait_ms=0.0) for t in o.transfers))
            for o in rounds
        ]  # fmt: skip

    monkeypatch.setattr(measured, "_short_run", run)
    found = measured.measure(HARDWARE["laptop-cpu"], tiny_pair())
    assert [one / found.own[1] for one in found.own] == pytest.approx([1.5, 1.0, 3.0])


def test_waits_of_tier_2_are_no_slowness() -> None:
    here = machine(target=table())
    one = Pass(2, "verify", 1, 100 * 2 * 8, 1.0, 100.0)
    copy = Transfer("to_device", "verify", 0, 2, 8, 0.95, 80.0, 60.0)  # arrives at 1.03
    late = replace(copy, start=2.0)
    assert slowdown(here, [one], []) == pytest.approx(5)
    assert slowdown(here, [one], [copy, late]) == pytest.approx(2)


def test_slowdown_of_a_real_run_follows_the_machine() -> None:
    events = list(stream(tiny_pair(), tiny_prompt(), CONFIG))
    told = [event for event in events if isinstance(event, Prefill | Round)]
    passes = [one for event in told for one in event.passes]
    transfers = [one for event in told for one in event.transfers]
    shape = tiny_pair().kv_shape
    flat = MeasuredPasses(
        shape.layers, (1, 2), (10, 20), ((1.0, 1.0), (1.0, 1.0)), shape.token_bytes
    )
    now = slowdown(machine(target=flat, draft=flat), passes, transfers)
    assert now is not None
    slower = [replace(one, ms=3 * one.ms) for one in passes]
    assert slowdown(machine(target=flat, draft=flat), slower, transfers) == pytest.approx(3 * now)


def test_the_step_is_measured_once_for_many_threads(folder: Path) -> None:
    pair, found = another(tiny_pair()), set()
    engine = engine_of(pair)
    step = engine.hooks.step
    assert step is not None
    threads = [threading.Thread(target=lambda: found.add(step(engine, pair))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
