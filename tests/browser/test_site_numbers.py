"""The site's numbers in Chromium beside Python's: 200 settings, sizes of KV, rules of accepting."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import torch

from mspeckv.kv.sizes import full_sizes
from mspeckv.settings import METHODS, WIDTHS, KVPolicy
from mspeckv_study.whatif import MODELS
from mspeckv_widgets.explorers.acceptance_charts import emitted_distribution
from mspeckv_widgets.site.forecasts import (
    CONTEXTS,
    GAMMAS,
    LENGTHS,
    MACHINES,
    NEW_TOKENS,
    PART_WORDS,
    POLICIES,
    forecast_of,
    results,
)
from mspeckv_widgets.site.guesses import RULES, outcome

from .site_pages import Opened

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def random_settings(count: int) -> list[dict[str, Any]]:
    """Settings of the what-if page, every control anywhere."""

    dice = random.Random(31)
    found = []
    for _ in range(count):
        model = dice.choice(list(MODELS))
        method = dice.choice(METHODS)
        bits, residency = dice.choice(POLICIES)
        layers = MODELS[model].kv(torch.float16).layers
        on_chip = dice.randint(0, layers)
        found.append({
            "model": model, "machine": dice.choice(MACHINES), "method": method,
            "bits": "full" if method == "triforce" else str(bits), "residency": residency,
            "context": dice.randrange(len(CONTEXTS)), "gamma": dice.choice(GAMMAS),
            "on_chip": on_chip, "resident": dice.randint(0, layers - on_chip),
        })  # fmt: skip
    return found


READ_TABLE = """Object.fromEntries([...document.querySelectorAll("#numbers tbody tr")].map(
  row => [row.cells[0].textContent, [...row.cells].slice(1).map(cell => cell.textContent)]))"""


def agrees(shown: str, value: float) -> bool:
    """Whether a number is shown as it is, to the last digit shown."""
    digits = len(shown.partition(".")[2])
    return abs(float(shown.replace(",", "")) - value) <= 0.5000001 * 10.0**-digits


Ways = tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]


def ways(one: dict[str, Any]) -> Ways:
    """Python's word on a setting, on the same without guesses, and on equal memory."""
    prefill = CONTEXTS[one["context"]]
    bits = one["bits"] if one["bits"] == "full" else int(one["bits"])

    def said(method: str, bits: Any, **more: Any) -> dict[str, Any]:
        numbers = {name: one[name] for name in ("on_chip", "resident", "gamma")}
        return results(forecast_of(
            one["model"], one["machine"], method, bits, one["residency"], prefill=prefill,
            **(numbers | more),
        ))  # fmt: skip

    here, same = said(one["method"], bits), said("autoregressive", bits, control=False)
    if not here["control/fits"]:
        return here, same, None
    held = {"on_chip": here["control/on_chip"], "resident": 0}
    equal = said("autoregressive", "full", control=False, **held)
    assert equal["ms"] == pytest.approx(here["control/ms_per_token"], rel=1e-12)
    return here, same, equal


def rows_of(here: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Rows of the page's table: which result, in which unit."""
    steps = [name for name in here if name.startswith("step/")]
    parts = [name for name in here if name.startswith("part/")]
    return {
        "ms per token": ("ms", 1.0), "tokens per round": ("settled", 1.0),
        "link, MB per token": ("link_bytes", 1e6), "device, GB": ("device", 1e9),
        "on the host, GB": ("host", 1e9), "link busy, ms per token": ("link_ms", 1.0),
        **{f"{name[5:]}, ms": (name, 1.0) for name in steps},
        **{f"{PART_WORDS.get(name[5:], name[5:])}, GB": (name, 1e9) for name in parts},
    }  # fmt: skip


def test_200_random_settings_agree_with_python(site: Path, shown: Opened) -> None:
    shown.go(site, "what-if")
    for one in random_settings(200):
        found = ways(one)
        rows = shown.set(urlencode(one), READ_TABLE)
        seen = 0
        for words, (name, unit) in rows_of(found[0]).items():
            for cell, way in zip(rows.get(words, ("", "", "")), found, strict=True):
                if cell:
                    assert way is not None
                    seen += 1
                    assert agrees(cell, float(way[name]) / unit), (one, words, cell, way[name])
        assert seen > 20
        assert (rows["ms per token"][2] == "") == (found[2] is None)


def test_sizes_of_kv_agree_with_python(site: Path, shown: Opened) -> None:

    units = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    shown.go(site, "kv")
    dice = random.Random(4)
    for _ in range(40):
        size, bits = dice.randrange(1, len(LENGTHS)), dice.choice(WIDTHS)
        rows = shown.set(
            urlencode({"size": size, "bits": str(bits), "machine": "h200", "model": "llama-3-8b"}),
            READ_TABLE,
        )
        assert set(rows) == set(MODELS)
        for name, shape in MODELS.items():
            kept = shape.kv(torch.float16)
            floats = kept.layers if bits == "full" else 0
            policy = KVPolicy(bits=bits, on_chip=floats, resident=kept.layers - floats)
            sizes = full_sizes(kept, policy, LENGTHS[size])
            number, unit = rows[name][1].split()
            # what does not grow is the cost model's alone
            still = forecast_of(
                name, "h200", "autoregressive", prefill=LENGTHS[size] - NEW_TOKENS, gamma=1
            ).memory.parts
            kv = sizes.on_chip + sizes.resident + sizes.tail
            kv += still.get("windows", 0) + still.get("states", 0)
            assert agrees(number, kv / units[unit]), (name, size, bits, rows[name])


def test_rules_agree_with_python(site: Path, shown: Opened) -> None:

    shown.go(site, "accept")
    dice = random.Random(5)
    for at in range(40):
        cuts = [sorted(dice.sample(range(1, 100), 3)) for _ in range(2)]
        lists = [[b - a for a, b in zip([0, *cut], [*cut, 100], strict=True)] for cut in cuts]
        p, q = (torch.tensor(one, dtype=torch.float64) / 100 for one in lists)
        rule = RULES[at % len(RULES)]
        words = [",".join(map(str, one)) for one in lists]
        rows = shown.set(
            urlencode({"p": words[0], "q": words[1], "rule": rule.name, "seed": 1 + at % 20}),
            READ_TABLE,
        )
        found = outcome(rule, p, q)
        if rule.name == "fair":
            torch.testing.assert_close(found["emitted"], emitted_distribution(p, q))
        for token, cells in enumerate(rows.values()):
            wanted = (p, q, found["kept"], found["redrawn"], found["emitted"])
            for cell, one in zip(cells, wanted, strict=False):
                assert agrees(cell, float(one[token])), (rule.name, words, cells)
