"""The explorer draws what the report says, for every setting of its controls."""

from __future__ import annotations

import numpy as np
import pytest

from mspeckv import Pair, Speculation
from mspeckv_widgets import RetrievalExplorer
from mspeckv_widgets.explorers.retrieval_charts import HERE, KEPT, LEFT, MARK, STRIP, chunk_texts
from tests.random_models import random_pair, random_prompt

PAIR = random_pair()
SPECULATION = Speculation(budget=64, chunk=8, recent=8)


@pytest.fixture
def explorer() -> RetrievalExplorer:
    return RetrievalExplorer(PAIR, random_prompt(200), speculation=SPECULATION)


def test_the_strip_counts_heads_and_bars_split_the_mass(explorer: RetrievalExplorer) -> None:
    explorer.set(layer=2, head=1)
    report, data = explorer.report, explorer.figure.data
    np.testing.assert_array_equal(data[STRIP].z, report.kept.sum(1))
    assert list(data[MARK].y) == [2]
    assert sorted([*data[KEPT].x, *data[LEFT].x]) == list(range(report.plan.chunks))
    assert list(data[KEPT].x) == report.chosen[2, 1].tolist()
    shown = np.sum(data[KEPT].y) + np.sum(data[LEFT].y)
    assert shown == pytest.approx(100 * report.mass[2, 1].sum(), rel=1e-4)


def test_tables_hold_the_charts_numbers(explorer: RetrievalExplorer) -> None:
    explorer.set(layer=1, head=0)
    report = explorer.report
    captured = f"{100 * report.captured[1, 0]:.1f} %"
    assert captured in explorer._captured.value
    assert f"{100 * report.captured.mean():.1f} %" in explorer._captured.value
    assert f"{report.plan.chosen} of {report.plan.chunks} chunks kept" in explorer._captured.value
    assert "measured" in explorer._captured.value
    best = int(np.argmax(report.scores[1, 0]))
    first = explorer._ranking.value.split("<tbody>")[1].split("</tr>")[0]
    assert f">{best}<" in first


def test_budget_and_size_choose_anew_from_one_reading(explorer: RetrievalExplorer) -> None:
    probe, before = explorer.probe, explorer.report
    explorer.set(budget=128)
    assert explorer.probe is probe
    assert explorer.report.plan.chosen > before.plan.chosen
    assert explorer.report.captured.mean() > before.captured.mean()
    explorer.set(chunk=20)
    explorer.set(size=16)
    assert explorer.report.plan.chunk == 16
    assert explorer.controls["chunk"].max == explorer.report.plan.chunks - 1
    assert explorer.place[2] <= explorer.controls["chunk"].max
    explorer.set(policy="newest")
    assert explorer.report.speculation.retrieval == "newest"
    assert "newest" in explorer._ranking.value


def test_buttons_walk_through_the_kept_chunks(explorer: RetrievalExplorer) -> None:
    kept = explorer.report.chosen[0, 0].tolist()
    assert explorer.place[2] == kept[0] == 0
    explorer.buttons["back"].click()
    assert explorer.place[2] == 0
    walked = [0]
    for _ in kept[1:]:
        explorer.buttons["on"].click()
        walked.append(explorer.place[2])
    assert walked == kept
    explorer.buttons["on"].click()
    explorer.buttons["back"].click()
    assert explorer.place[2] == kept[-2]
    assert list(explorer.figure.data[HERE].x) == [kept[-2]]
    assert f"Chunk {kept[-2]}: kept" in explorer._read.value


def test_a_setting_that_cannot_be_is_one_line_and_the_panel_works_on(
    explorer: RetrievalExplorer,
) -> None:
    before = explorer.report
    explorer.set(size=32)
    assert "budget: 64 is not allowed" in explorer._status.value
    assert "Traceback" not in explorer._status.value
    assert explorer.report is before
    explorer.set(budget=128)
    assert explorer.report.plan.chunk == 32
    assert explorer._status.value == ""
    with pytest.raises(ValueError, match="there are policy"):
        explorer.set(colour="blue")
    with pytest.raises(ValueError, match="policy: 'none' is not allowed"):
        explorer.set(policy="none")


def test_the_document_is_shown_whole_and_marked(pair: Pair) -> None:
    assert pair.tokenizer is not None
    text = "".join(f"Line {number} of <b>naïve</b> text.\n" for number in range(20))
    tokens = pair.tokenizer(text)["input_ids"]
    texts = chunk_texts(pair.tokenizer, tokens, 8, len(tokens) // 8)
    joined = "".join(texts)
    assert text.startswith(joined)
    assert len(joined) > 0.9 * len(text)


def test_every_chunk_is_marked_as_the_head_has_it(explorer: RetrievalExplorer) -> None:
    page = explorer._document.value
    assert page.count("mskv-chunk") == explorer.report.plan.chunks
    assert page.count('data-kept="true"') == explorer.report.plan.chosen
    assert page.count("aria-current") == 1


def test_controls_have_names_and_axes_units(explorer: RetrievalExplorer) -> None:
    for control in (*explorer.controls.values(), *explorer.buttons.values()):
        assert control.description
    layout = explorer.figure.layout
    assert "%" in layout.yaxis2.title.text
    assert layout.yaxis.title.text == "layer"
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()


def test_lengths_of_bars_may_be_compared(explorer: RetrievalExplorer) -> None:
    explorer.set(layer=1, head=1)
    axis, mass = explorer.figure.layout.yaxis2, 100 * explorer.report.mass[1, 1]
    assert axis.type != "log"
    assert axis.range[0] == 0
    assert axis.range[1] >= mass[1:].max()
    beyond = "goes beyond" in explorer.figure.layout.annotations[1].text
    assert beyond == (mass[0] > axis.range[1])
