"""The judge's statistics: planted faults are caught at the stated power, honest engines let go."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from mspeckv_study.verification import Trial, verify
from mspeckv_study.verification.asking import FILE, Asking
from mspeckv_study.verification.bets import crossing, wealth
from mspeckv_study.verification.engine import Said
from mspeckv_study.verification.faults import FAULTS, honest
from mspeckv_study.verification.plan import TESTS, Plan, plan
from mspeckv_study.verification.sampled import _chi_square
from mspeckv_widgets.course.liars import VOCAB, Tables

TRIAL = Trial(checks=("sampled",), samples=2000, alpha=0.05)
PROMPT = [0, 1, 2, 3, 4, 5, 2, 0]


@cache
def planned(*, chances: bool = True) -> Plan:
    engine, against = Tables(chances=chances), Tables("plain", chances=chances)
    return plan(Asking(engine, against), [PROMPT], TRIAL)


def draws(way: str, seed: int, texts: int, *, tells: bool = True) -> list[Said]:
    engine = Tables(way, tells=tells)
    seeds = (replace(TRIAL.sampling, seed=10**6 * (seed + 1) + i) for i in range(texts))
    return [engine.say(PROMPT, one, TRIAL.depth + 1) for one in seeds]


def caught(way: str, seed: int, *, chances: bool = True) -> bool:
    """Whether any of the tests calls an engine faulty that is asked what was planned."""
    found = planned(chances=chances)
    rate, texts = TRIAL.alpha / TESTS, found.budget(TRIAL.samples)
    said, plain = draws(way, seed, texts), []
    if not chances:
        plain = draws("plain", seed + 5000, texts)
    others = None if chances else found.tree.events(plain)
    seen = found.tree.events(said)
    parts = [seen, *(seen.where(seen.state == state) for state in (0, 1))]
    return any(crossing(found.tree, part, rate, others) is not None for part in parts) or (
        _chi_square(found, said, plain) < rate
    )


def test_what_is_planned() -> None:
    found = planned()
    assert found.exact
    assert found.tree.enumerated
    assert set(found.needs) == set(FAULTS)
    assert all(need is not None for need in found.needs.values())
    assert 50 < found.budget(TRIAL.samples) < TRIAL.samples
    assert f"{found.budget(TRIAL.samples)} texts of 2 tokens planned" in found.words(2000)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_at_the_stated_power(fault: str) -> None:
    hits = sum(caught(fault, seed) for seed in range(20))
    # of 20 runs at a power of 0.9, fewer than 15 come once in 90 times; the seeds are fixed
    assert hits >= 15


def test_an_honest_engine_is_not_called_faulty() -> None:
    """At most alpha of the runs: of 100 at 0.05, more than 10 come once in 90 times."""
    assert sum(caught("honest", seed) for seed in range(100)) <= 10
    assert sum(caught("plain", seed) for seed in range(10)) <= 3


@pytest.mark.parametrize("fault", ["resample", "mixture", "unscaled"])
def test_two_engines_of_unknown_chances(fault: str) -> None:
    assert planned(chances=False).needs[fault] is not None
    assert sum(caught(fault, seed, chances=False) for seed in range(5)) >= 4


def test_two_honest_engines_of_unknown_chances() -> None:
    assert sum(caught("honest", seed, chances=False) for seed in range(10)) <= 3


def test_a_rule_keeps_the_target_and_planted_ones_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = torch.rand(2, 5, generator=generator, dtype=torch.float64)
    p, q = p / p.sum(), q / q.sum()
    assert torch.allclose(honest(p, q).sum(0), p)
    for name, (_, rule, after) in FAULTS.items():
        settled = rule(p, q)
        assert float(settled.sum()) == pytest.approx(1)
        assert torch.allclose(settled.sum(0), p) == (after is not None), name


def test_no_stake_grows_on_average() -> None:
    """Bets at fair odds: over all texts that plain decoding may say, wealth comes to one coin."""
    tree = planned().tree
    mean = 0.0
    for one in range(VOCAB):
        for other in range(VOCAB):
            said = Said((one, other), (1, 1))
            share = float(tree.p[0, one] * tree.p[int(tree.child[0, one]), other])
            logs, _ = wealth(tree, tree.events([said]))
            mean += share * math.exp(float(logs[-1]))
    assert mean == pytest.approx(1)


def test_a_token_that_cannot_come_is_caught_at_once() -> None:
    tree = planned().tree
    tree = replace(tree, p=tree.p.clone())
    tree.p[0, 3] = 0
    assert crossing(tree, tree.events([Said((3, 0))]), 1e-9) == 1


def test_too_few_samples_are_said_to_be_too_few() -> None:
    trial = replace(TRIAL, samples=32)
    report = verify(Tables(), Tables("plain"), {"ids": PROMPT}, trial)
    assert report.verdict == "not enough samples"
    assert report.exit_code == 1
    assert "> 32" in report.findings[0].numbers["plan"]
    assert "not caught" in report.findings[0].control


def test_a_report_of_an_honest_engine(tmp_path: Path) -> None:
    first, plain = Tables(), Tables("plain")
    report = verify(first, plain, {"ids": PROMPT}, TRIAL, out=tmp_path)
    assert report.verdict == "lossless", report.to_text()
    assert report.exit_code == 0
    names = [one.check for one in report.findings]
    assert "sampled: after a kept guess" in names
    assert "sampled: after a correction or bonus" in names
    assert "<table>" in report.to_html()
    assert report.to_json()["findings"][0]["numbers"]["power"]["scale"] >= TRIAL.power
    # a second run goes on from what is kept, also where the last line was cut off
    text = (tmp_path / FILE).read_text(encoding="utf-8")
    (tmp_path / FILE).write_text(text[:-5], encoding="utf-8")
    again = Tables()
    assert verify(again, plain, {"ids": PROMPT}, TRIAL, out=tmp_path).verdict == "lossless"
    assert again.asked <= 1 < first.asked


def test_a_liar_is_told_from_what_it_says_most_wrongly() -> None:
    report = verify(Tables("mixture"), Tables("plain"), {"ids": PROMPT}, TRIAL)
    assert report.verdict == "fault"
    assert "times, where" in report.findings[0].told
