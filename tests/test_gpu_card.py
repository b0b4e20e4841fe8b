"""`benchmarks.gpu` goes on where a run before ended, and mixes no machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Card
from benchmarks.gpu_cases import Case, run, weight_bytes
from mspeckv import KVPolicy, Speculation
from mspeckv.testing import tiny_pair, tiny_prompt


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "machine", lambda device: f"a machine with a {device.type}")


def card(folder: Path, budget: float = 100) -> Card:
    return Card(folder, only=None, budget=budget)


@pytest.mark.usefixtures("here")
def test_a_card_goes_on_where_it_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = tiny_pair(layers=4)
    guess = Speculation(gamma=3, draft_gamma=2, budget=48, chunk=4, recent=8, window=16)
    case = Case("three tiers", "mspeckv", KVPolicy(8, block=16), guess, 12)
    found = run(pair, tiny_prompt(120), case)
    first = card(tmp_path)
    first.keep(("rate", 0, ""), lambda: {"rate": 1e10, "text": "a rate"})
    first.keep(("a1", 120, case.name), found.to_json)
    # what it read: weights once for every pass, and keys and values
    for tier, passes in found.passes.items():
        assert found.read_gb[tier] > passes * weight_bytes(pair, tier) / 1e9
    late = card(tmp_path, budget=-1)
    row = late.keep(("a1", 120, case.name), lambda: pytest.fail("measured twice"))
    assert row is not None
    late.keep(("a1", 120, "another"), lambda: pytest.fail("time was up"))
    late.print()
    shown = capsys.readouterr().out
    share = found.read_gb[2] * 1e12 / 1e10 / found.tier_ms[2]
    assert f"t2 {found.tier_ms[2]:.2f} ({share:.0%})" in shown
    assert "not begun in time: a1 120 another" in shown
    parts = [json.loads(line)["part"] for line in (tmp_path / "gpu.jsonl").open()]
    assert parts == ["machine", "rate", "a1"]
    monkeypatch.setattr(gpu, "machine", lambda device: "elsewhere")
    with pytest.raises(ValueError, match="it is of a machine"):
        card(tmp_path)


@pytest.mark.usefixtures("here")
def test_a_case_that_does_not_fit_is_no_row(tmp_path: Path) -> None:
    def fails() -> gpu.Row:
        raise torch.OutOfMemoryError("too much")

    one = card(tmp_path)
    assert one.keep(("b1", 8, "large"), fails) is None
    assert one.find(("b1", 8, "large")) is None
