"""The site without a browser: traces say what Python says; pages and labs lead to each other."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mspeckv.settings import METHODS
from mspeckv_study.cli import main
from mspeckv_study.whatif import MODELS
from mspeckv_widgets.site import forecasts, tracing
from mspeckv_widgets.site.build import PAGES
from mspeckv_widgets.site.films import page_data as films
from tests.labs import load

ROOT = Path(__file__).resolve().parents[1]


def replay(packed: Mapping[str, Any], name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a page computes, in Python: the results of a packed trace for numbers ``given``."""
    which, own = packed["uses"][name]
    program = packed["programs"][which]
    over: dict[str, Any] = {"max": np.max, "any": np.any, "sum": np.sum}
    values: list[Any] = []
    for step, *operands in program["nodes"]:
        if step in ("given", "own", "constant"):
            source = {"given": given, "own": own}.get(step)
            values.append(np.asarray(operands[0] if source is None else source[operands[0]]))
            continue
        inputs = [values[place] for place in operands]
        if step == "pick":
            values.append(inputs[1][inputs[0].astype(int)])
        elif step == "bitwise_and":
            values.append(np.logical_and(*inputs))
        else:
            values.append((over.get(step) or getattr(np, step))(*inputs))
    return {result: values[place] for result, place in program["results"].items()}


@pytest.fixture(scope="module")
def packed() -> dict[str, Any]:
    return forecasts.programs()


def test_traces_say_what_python_says(packed: dict[str, Any]) -> None:
    dice = random.Random(7)
    for _ in range(60):
        model, machine = dice.choice(list(MODELS)), dice.choice(forecasts.MACHINES)
        method, place = dice.choice(METHODS), dice.randrange(len(forecasts.CONTEXTS))
        bits, residency = dice.choice(forecasts.POLICIES)
        bits = "full" if method == "triforce" else bits
        layers = MODELS[model].kv(torch.float16).layers
        on_chip = dice.randint(0, layers)
        numbers = {
            "prefill": forecasts.CONTEXTS[place], "gamma": dice.choice(forecasts.GAMMAS),
            "on_chip": on_chip, "resident": dice.randint(0, layers - on_chip),
        }  # fmt: skip
        wanted = forecasts.results(
            forecasts.forecast_of(model, machine, method, bits, residency, **numbers)
        )
        rates = packed["acceptance"][f"{model}/{method}"][place]
        middle, draft = packed["inner"][f"{rates[0]}/{1 if machine == 'origin' else 3}"]
        given = {
            **packed["machines"][machine], **numbers, "middle_full": rates[1],
            "draft_full": rates[2], "middle_passes": middle[numbers["gamma"] - 1],
            "draft_passes": draft[numbers["gamma"] - 1],
            "policy": forecasts.POLICIES.index((bits, residency)),
        }  # fmt: skip
        found = replay(packed, f"{model}/{packed['kind'][machine]}/{method}", given)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)


def test_a_trace_may_not_branch() -> None:
    given = tracing.Tape().given("x")
    with pytest.raises(TypeError, match="branch"):
        max(given, 1)
    with pytest.raises(TypeError):
        float(given)  # type: ignore[arg-type]  # so it says
    with pytest.raises(TypeError, match="no such step"):
        np.sin(given)


def test_constants_are_shared_where_all_agree_only() -> None:
    traces = {}
    for name, (a, b) in {"one": (2.0, 2.0), "two": (2.0, 3.0)}.items():
        tape = tracing.Tape()
        x = tape.given("x")
        traces[name] = tracing.Trace.of(tape, {"y": (x + a) * (x + b) - a})
    packed = tracing.pack(traces)
    assert len(packed["programs"]) == 1
    assert [own for _, own in packed["uses"].values()] == [[2.0], [3.0]]
    for name, value in (("one", 23.0), ("two", 28.0)):
        assert replay(packed, name, {"x": 3.0})["y"] == value


def test_every_recorded_run_writes_the_same_text() -> None:
    runs = films()
    texts = {"".join(piece for piece, _, _ in run["text"]) for run in runs}
    assert len(texts) == 1
    assert len(runs) == 3
    assert runs[0]["rounds"] < runs[1]["rounds"] < runs[2]["rounds"] == runs[2]["tokens"]


@pytest.mark.parametrize(
    "words", [[], ["build"], ["build", "--out", __file__], ["build", "--inn", "x"], ["grow"]]
)
def test_what_is_not_allowed_is_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["site", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


def test_each_page_leads_to_its_lab_and_each_lab_to_its_page() -> None:
    for page in PAGES:
        for lab in page.labs:
            first = load(ROOT / "labs" / f"{lab}.ipynb").cells[0].source
            assert f"(../site/{page.name}.html)" in first, lab


def test_the_readme_begins_with_the_pages() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    top = text.partition("## ")[0]
    assert all(f"(site/{page.name}.html)" in top for page in PAGES)


def test_the_recipe_for_pages_builds_the_site() -> None:
    recipe = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text("utf-8"))
    steps = recipe["jobs"]["pages"]["steps"]
    (command,) = [one["run"] for one in steps if "mspeckv site build" in one.get("run", "")]
    (upload,) = [one for one in steps if "upload-pages-artifact" in one.get("uses", "")]
    assert f"--out {upload['with']['path']} " in command
