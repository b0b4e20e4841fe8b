"""What the live panel claims of runs: names by difference, times split, conclusions by spread."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from mspeckv import KVPolicy, Link, RunConfig, Sampling, stream
from mspeckv.testing import SMALL, tiny_pair, tiny_prompt
from mspeckv_widgets.compared import (
    Compared,
    Spread,
    apart,
    changed,
    flattened,
    link_bytes,
    names_of,
    split_of,
)
from mspeckv_widgets.conclusion import conclusion
from mspeckv_widgets.panels.run_bars import bars_html
from mspeckv_widgets.record import (
    RunRecord,
    Setting,
    acceptance_lines,
    time_line,
    traffic_line,
)

CONFIG = RunConfig(
    "mspeckv", 16, KVPolicy(8, on_chip=1, resident=0, block=16, tail=8), SMALL, Sampling(0),
    Link.parse(0.02),
)  # fmt: skip
SETTING = Setting("tiny", 61, CONFIG)


def ran(setting: Setting = SETTING, number: int = 1) -> RunRecord:
    """A whole run, watched step by step."""
    record = RunRecord(number, setting)
    ways = {"on_step": record.steps.append}
    for event in stream(tiny_pair(), tiny_prompt(), setting.config, **ways):  # type: ignore[arg-type]
        record.add(event)
    return record


def with_policy(**changes: object) -> Setting:
    """The setting with another policy."""
    policy = replace(CONFIG.policy, **changes)  # type: ignore[arg-type]
    return replace(SETTING, config=replace(CONFIG, policy=policy))


def slowed(record: RunRecord, factor: float) -> RunRecord:
    """The same run on a slower machine: passes and rounds take longer, waits do not."""
    rounds = []
    for one in record.rounds:
        extra = (factor - 1) * sum(count.ms for count in one.tiers)
        tiers = tuple(replace(count, ms=count.ms * factor) for count in one.tiers)
        rounds.append(replace(one, ms=one.ms + extra, tiers=tiers))
    return replace(record, rounds=rounds)


@pytest.fixture(scope="module")
def record() -> RunRecord:
    """One run."""
    return ran()


def test_a_split_adds_up_to_the_runs_time(record: RunRecord) -> None:
    found, summary = split_of(record), record.summary
    assert summary is not None
    assert found.total == pytest.approx(summary.ms_per_token, rel=0.01)
    assert set(found.tiers) == {0, 1, 2}
    assert all(ms > 0 for ms in found.tiers.values())
    waited = sum(one.wait_ms for one in record.decode_transfers) / len(record.tokens)
    assert found.wait == pytest.approx(waited)
    assert waited > 0


def test_lines_end_at_what_was_counted(record: RunRecord) -> None:
    total = sum(one.bytes for one in record.decode_transfers)
    assert record.prefill is not None
    prefill = sum(one.bytes for one in record.prefill.transfers)
    tokens, seconds = (traffic_line(record, axis) for axis in ("tokens", "seconds"))
    assert tokens.x[-1] == 16
    assert tokens.y[-1] * 1e6 == pytest.approx(total)
    assert seconds.y[-1] * 1e6 == pytest.approx(total + prefill)
    assert time_line(record, "tokens").y[-1] == pytest.approx(sum(r.ms for r in record.rounds))
    assert time_line(record, "seconds").y[-1] == 16
    assert list(seconds.x) == sorted(seconds.x)
    for tier, line in acceptance_lines(record, "tokens").items():
        counts = [count for r in record.rounds for count in r.tiers if count.tier == tier]
        kept = sum(c.accepted for c in counts) / sum(c.proposed for c in counts)
        assert line.y[-1] == pytest.approx(100 * kept)


def test_the_round_at_work_is_drawn_step_by_step() -> None:
    record = RunRecord(1, SETTING)
    drawn: list[tuple[float, float]] = []

    def watch(step: object) -> None:
        record.steps.append(step)  # type: ignore[arg-type]
        if record.prefill is not None:
            drawn.append((traffic_line(record, "tokens").y[-1], time_line(record, "tokens").y[-1]))

    events = stream(tiny_pair(), tiny_prompt(), CONFIG, on_step=watch)
    record.add(next(events))
    record.add(next(events))
    moved, spent = zip(*drawn, strict=True)
    assert list(moved) == sorted(moved)
    assert len(set(moved)) > 1
    assert spent[-1] > spent[0]
    assert traffic_line(record, "tokens").y[-1] == pytest.approx(moved[-1])
    events.close()  # type: ignore[attr-defined]


def test_runs_are_named_by_what_differs() -> None:
    more = with_policy(resident=1)
    assert names_of([SETTING, more]) == ["resident 0", "resident 1"]
    other = replace(more, config=replace(more.config, method="autoregressive"))
    assert names_of([SETTING, other]) == ["mspeckv, resident 0", "autoregressive, resident 1"]
    gammas = [
        replace(SETTING, config=replace(CONFIG, speculation=replace(SMALL, gamma=gamma)))
        for gamma in (2, 8, 16)
    ]
    assert names_of(gammas) == ["gamma 2", "gamma 8", "gamma 16"]
    assert names_of([SETTING]) == ["mspeckv, int8, on-chip 1, resident 0"]
    assert names_of([]) == []
    links = [replace(SETTING, config=replace(CONFIG, link=Link(name))) for name in ("live", "off")]
    assert names_of(links) == ["link live", "link off"]
    own = replace(SETTING, config=replace(CONFIG, link=Link("custom", 0.01)))
    assert names_of([own, links[1]]) == ["link 0.01 GB/s", "link off"]


def test_what_was_changed_is_said() -> None:
    assert changed(SETTING, with_policy(resident=1)) == "resident 0, now 1"
    config = replace(
        CONFIG, new_tokens=32, speculation=replace(CONFIG.speculation, tier0="lookup", gamma=5),
        sampling=replace(CONFIG.sampling, top_p=0.8),
    )  # fmt: skip
    said = changed(SETTING, replace(SETTING, config=config))
    assert "16 new, now 32 new" in said
    assert "tier 0 draft, now lookup" in said
    assert f"gamma {CONFIG.speculation.gamma}, now 5" in said
    assert "top p 0.9, now 0.8" in said
    assert changed(SETTING, SETTING) == ""


@pytest.mark.parametrize(
    ("a", "b", "claimed"),
    [
        ((10, 11, 12), (20, 21, 22), True),
        ((10, 11, 12), (12.5, 13, 14), False),  # no overlap, but nearer than they are wide
        ((10, 11, 21), (20, 21, 22), False),
        ((10, 11), (20, 21), False),
    ],
)
def test_a_difference_is_claimed_only_beyond_its_spread(
    a: tuple[float, ...], b: tuple[float, ...], claimed: bool
) -> None:
    assert apart(Spread.of(a), Spread.of(b)) == claimed
    assert apart(Spread.of(b), Spread.of(a)) == claimed


def test_bytes_are_claimed_at_once_and_time_is_not(record: RunRecord) -> None:
    fewer = with_policy(resident=1)
    one, other = Compared(SETTING, 0, (record,)), Compared(fewer, 1, (ran(fewer),))
    assert link_bytes(other.records[0]) < link_bytes(record)
    said = conclusion([one, other], names_of([SETTING, fewer]))
    assert "Fewest: resident 1." in said[0]
    assert "not to be compared before 3 runs" in said[1]


def test_a_busy_machine_cannot_turn_the_order_around(record: RunRecord) -> None:
    """Runs of one setting, some slowed twofold: no claim that it differs from itself."""
    jitter = [slowed(record, factor) for factor in (1.0, 2.0, 1.3)]
    twin = [slowed(record, factor) for factor in (1.9, 1.0, 1.2)]
    names = ["a", "b"]
    said = conclusion(
        [Compared(SETTING, 0, tuple(jitter)), Compared(SETTING, 1, tuple(twin))], names
    )
    assert said[0].endswith("All move as many.")
    assert said[1:]
    assert all("no difference is beyond" in line for line in said[1:])


def test_a_difference_in_compute_is_told_from_one_in_waiting(record: RunRecord) -> None:
    fast = Compared(SETTING, 0, tuple(slowed(record, f) for f in (1.0, 1.01, 1.02)))
    slow = Compared(SETTING, 1, tuple(slowed(record, f) for f in (4.0, 4.01, 4.02)))
    _, time, wait, compute = conclusion([fast, slow], ["fast", "slow"])
    assert "fast less than slow" in time
    assert "no difference" in wait
    assert "emulated" in wait
    assert "fast less than slow" in compute


def test_nothing_to_conclude_is_said() -> None:
    assert "change a control" in conclusion([], [])[0]


def test_one_setting_alone_is_told(record: RunRecord) -> None:
    (said,) = conclusion([Compared(SETTING, 0, (record, record))], ["it"])
    assert "counted" in said
    assert "median of 2 runs" in said


def key_of(bars: str) -> set[str]:
    """Words of the bars' key."""
    return set(re.findall(r'mskv-swatch"[^>]*></span><abbr[^>]*>([^<]*)<', bars))


def test_the_bars_key_lists_only_what_occurs(record: RunRecord) -> None:
    everything = key_of(bars_html([Compared(SETTING, 0, (record,))], ["it"], None))
    assert {"tier 0", "tier 1", "tier 2"} <= everything
    plain = replace(SETTING, config=replace(CONFIG, method="autoregressive"))
    alone = key_of(bars_html([Compared(plain, 0, (ran(plain),))], ["it"], None))
    assert "tier 2" in alone
    assert not {"tier 0", "tier 1"} & alone


def test_a_run_is_not_named_by_the_place_of_every_layer() -> None:
    config = {
        "method": "mspeckv", "policy": {"on_chip": 1}, "speculation": {}, "sampling": {},
        "link": {}, "placement": ["on-chip", "offloaded"],
    }  # fmt: skip
    assert flattened(config) == {"method": "mspeckv", "on_chip": 1}


def test_profiled_and_recorded_runs_are_not_compared() -> None:
    record = ran()
    assert record.timed
    assert not replace(record, profiled=True).timed
    assert not replace(record, pieces=object()).timed


def test_bytes_that_differ_from_run_to_run_are_not_called_certain() -> None:
    """Lengths that follow measured times move other bytes in each run."""
    one, more = ran(), ran(number=2)
    fewer = replace(more, rounds=more.rounds[:-1])
    assert link_bytes(one) != link_bytes(fewer)
    other = Compared(with_policy(on_chip=2), 1, (ran(with_policy(on_chip=2)),))
    said = conclusion([Compared(SETTING, 0, (one, fewer)), other], ["a", "b"])[0]
    assert "different from run to run" in said
    assert "Certain" not in said
    assert "Fewest in every run: b" in said
    same = conclusion(
        [Compared(SETTING, 0, (one, fewer)), Compared(SETTING, 1, (one,))], ["a", "b"]
    )
    assert "The ranges overlap" in same[0]
