"""The quantization explorer without a browser: what is drawn is what packing loses."""

from __future__ import annotations

import numpy as np
import pytest

from mspeckv import Packing
from mspeckv_widgets import QuantExplorer
from mspeckv_widgets.explorers.quant_charts import head_loss
from tests.random_models import random_pair, random_prompt


@pytest.fixture(scope="module")
def made() -> QuantExplorer:
    return QuantExplorer(random_pair(), random_prompt(160), asked=32)


@pytest.fixture
def explorer(made: QuantExplorer) -> QuantExplorer:
    made.set(tensor="keys", layer=0, head=0, bits=(4, False), axis="channel", group=64)
    made.asked.clear()
    return made


def test_charts_show_the_chosen_head(explorer: QuantExplorer) -> None:
    explorer.set(tensor="values", layer=2, head=1, bits=(2, False), axis="token", group=16)
    before, after, bars, *_ = explorer.figure.data
    expected = head_loss(explorer.probe.values[2, 1], Packing(2, "token", 16))
    assert np.array_equal(before.z, expected.sizes)
    assert np.array_equal(before.z, explorer.probe.values[2, 1].abs().double().numpy())
    assert np.array_equal(after.z, expected.errors)
    assert np.allclose(bars.y, np.sqrt((expected.errors**2).mean(0)))
    assert explorer.figure.layout.annotations[0].text == "Size of values, layer 2"


def test_controls_stand_beside_all_charts(explorer: QuantExplorer) -> None:
    beside = explorer.panel.children[1]
    controls, charts = (box.children for box in beside.children)
    assert set(explorer.controls.values()) < set(controls)
    assert charts == (explorer.figure,)
    assert explorer.figure.layout.height <= 640
    channels = explorer.loss.sizes.shape[1]
    for axis in ("xaxis", "xaxis2", "xaxis3"):
        assert list(explorer.figure.layout[axis].range) == [-0.5, channels - 0.5]


def test_wider_codes_lose_less_and_cost_more(explorer: QuantExplorer) -> None:
    found = []
    for bits in (("full", False), (8, False), (8, True), (4, False), (2, False)):
        explorer.set(bits=bits)
        found.append(explorer.loss)
    assert found[0].relative == 0
    assert [one.relative for one in found] == sorted(one.relative for one in found)
    assert [one.bits for one in found] == [32, 8.5, 4.5, 4.5, 2.5]


def test_the_table_names_the_loudest_channel(explorer: QuantExplorer) -> None:
    loudest = int(np.argmax(explorer.loss.channel_range))
    first = explorer._table.value.split("channel ")[1]
    assert first.startswith(f"{loudest}<")


def test_asking_measures_and_lists(explorer: QuantExplorer) -> None:
    explorer._ask.click()
    explorer.set(bits=(2, False))
    rough = explorer.ask()
    assert rough is not None
    assert [one.tensor for one in explorer.asked] == ["keys", "keys"]
    fine = explorer.asked[0]
    assert fine.packing == Packing(4, "channel", 64)
    assert 0 < rough.acceptance < fine.acceptance < 1
    assert rough.relative > fine.relative
    keys, values = explorer.figure.data[3:]
    assert list(keys.y) == [fine.acceptance, rough.acceptance]
    assert np.isnan(values.y).all()
    assert "int2, per channel, 64 a scale" in explorer._answers.value
    # a point says by itself which packing it is, and lies within its axis
    assert keys.mode == "markers+text"
    assert list(keys.text) == ["int4, channel", "int2, channel"]
    left, right = explorer.figure.layout.xaxis4.range
    assert left == 0
    assert right > 1.2 * max(keys.x)
    explorer.ask()
    assert len(explorer.asked) == 2, "the same packing is listed once"


def test_what_cannot_be_packed_is_said_and_the_panel_goes_on() -> None:
    short = QuantExplorer(random_pair(), random_prompt(72), asked=32)
    assert "group: 64 is not allowed; there are 40 tokens" in short._status.value
    assert short.ask() is None
    short.set(group=16)
    assert short.loss.sizes.shape == (32, 16)
    assert short._status.value == ""


def test_controls_are_named_and_refuse_what_they_have_not(explorer: QuantExplorer) -> None:
    assert all(control.description for control in explorer.controls.values())
    with pytest.raises(ValueError, match="bits: 5 is not allowed"):
        explorer.set(bits=5)
    with pytest.raises(ValueError, match="width: there are tensor, layer, head, bits"):
        explorer.set(width=8)
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()
