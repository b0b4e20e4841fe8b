"""The live panel's model: what it says of a setting, how quickly, and where it comes from."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from mspeckv import KVPolicy, Link, Pair, RunConfig, Speculation, generate
from mspeckv_study.documents import load_document
from mspeckv_study.whatif import HARDWARE, MODELS, published
from mspeckv_widgets import LiveLab
from mspeckv_widgets.panels.prediction import Model, as_published
from mspeckv_widgets.record import Setting
from tests.calls import python_calls

MODEL = Model(MODELS["smollm2-135m"], HARDWARE["laptop-cpu"])
CONFIG = RunConfig("mspeckv", 32, KVPolicy(8, on_chip=15, resident=0))
SETTING = Setting("python-reference", 1024, CONFIG)


def with_policy(**changes: object) -> Setting:
    """The setting with another policy."""
    policy = replace(CONFIG.policy, **changes)  # type: ignore[arg-type]
    return replace(SETTING, config=replace(CONFIG, policy=policy))


def test_parts_add_up() -> None:
    found = MODEL.of(SETTING)
    assert sum(found.tiers.values()) + found.wait + found.rest == pytest.approx(found.ms)
    assert set(found.kept) == {0, 1}


def test_residents_move_less_and_hold_more() -> None:
    none, some, all_of_them = (MODEL.of(with_policy(resident=count)) for count in (0, 8, 15))
    assert none.link_bytes > some.link_bytes > all_of_them.link_bytes == 0
    assert none.device_bytes < some.device_bytes < all_of_them.device_bytes


def test_bytes_of_plain_decoding_are_those_of_a_run(pair: Pair) -> None:
    """Without guesses nothing is left to acceptance: the model's bytes are the ledger's."""
    setting = Setting("python-reference", 256, replace(CONFIG, method="autoregressive"))
    assert pair.tokenizer is not None
    prompt = load_document("python-reference", pair.tokenizer, 256)
    config = setting.config
    found = generate(
        pair, prompt, method=config.method, new_tokens=32, policy=config.policy, link="off"
    )
    moved = found.link.to_device_bytes / 32
    assert MODEL.of(setting).link_bytes == pytest.approx(moved, rel=0.15)
    assert MODEL.of(setting).device_bytes == pytest.approx(found.memory.kv_device_bytes, rel=0.01)


def test_a_slower_link_waits_longer() -> None:
    fast, slow = (replace(SETTING, config=replace(CONFIG, link=Link.parse(g))) for g in (1.0, 0.01))
    assert MODEL.of(slow).wait > MODEL.of(fast).wait
    live = replace(SETTING, config=replace(CONFIG, link=Link("live")))
    assert MODEL.gbps(live) == 0.15
    origin = replace(SETTING, config=replace(CONFIG, link=Link("origin")))
    assert 0 < MODEL.gbps(origin) < MODEL.gbps(live)
    measured = Model(MODEL.shape, MODEL.machine, origin=0.0233)
    assert measured.gbps(origin) == 0.0233


def test_lengths_left_to_be_chosen_are_not_modelled() -> None:
    auto = replace(SETTING, config=replace(CONFIG, speculation=Speculation(gamma="auto")))
    with pytest.raises(ValueError, match="automatic"):
        MODEL.of(auto)


@pytest.mark.parametrize("name", ["A1", "A2", "B1", "B2"])
def test_presets_have_curves(name: str) -> None:
    here, there = MODEL.here(name, SETTING), as_published(name)
    assert all(len(line) == len(here.x) for line in here.lines.values())
    assert all((line > 0).all() for line in (*here.lines.values(), *there.lines.values()))
    table = published(name)
    assert there.reference == table.methods[0]
    for value, ms, _ in there.points["lru"]:
        assert ms == pytest.approx(1e3 / table.speeds[int(value), "mspeckv"].mean)
    assert len(here.places) == len(there.places)


def test_the_cliff_of_b1_is_lru_alone() -> None:
    curve = as_published("B1")
    falls = {name: -float(min(line[1:] - line[:-1])) for name, line in curve.lines.items()}
    assert falls["lru"] > 5 * falls["static"]


def test_a_control_moves_the_prediction_at_once(pair: Pair) -> None:
    lab = LiveLab(pair)
    before = lab.predicted
    for resident in (3, 7, 11):
        move = partial(setattr, lab.controls.inputs["resident"], "value", resident)
        # they take some 15 ms; a tenth of a second is promised
        assert python_calls(move) < 50_000
        assert lab.predicted is not None
        assert lab.predicted != before
        before = lab.predicted
    assert lab.predicted is not None
    line = lab.view.charts._traces[1, "modelled"]
    assert line.y[-1] * 1e6 == pytest.approx(32 * lab.predicted.link_bytes)
    assert f"{lab.predicted.ms:.0f} ms" in lab.view.tiles.value


def test_automatic_lengths_say_why_nothing_is_modelled(pair: Pair) -> None:
    lab = LiveLab(pair)
    lab.controls.set(auto=True)
    assert lab.predicted is None
    assert "automatic" in lab.view.tiles.value
    assert not lab.view.charts._traces[1, "modelled"].y
