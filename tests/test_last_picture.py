"""The output that stands in for a panel, without a browser."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

import ipywidgets as ipw
import pytest
from IPython.core import display_functions

from mspeckv_widgets import last_picture
from mspeckv_widgets.course.predict import PredictBox
from mspeckv_widgets.panel import Panel, panel

VIEW = "application/vnd.jupyter.widget-view+json"
TOLD = {
    "kind": "picture", "svg": "<svg>\u00e9</svg>", "width": 640, "height": 200.5,
    "words": 'Run "this" & <that>', "night": True,
}  # fmt: skip
Shown = list[tuple[str, str, bool]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What is displayed, as if in a notebook: HTML, display id, whether it is an update."""
    outputs: Shown = []

    def show(update: bool) -> Any:
        def take(data: Mapping[str, str], raw: bool, display_id: str) -> None:
            assert raw
            assert data["text/plain"] == ""
            outputs.append((data["text/html"], display_id, update))

        return take

    monkeypatch.setattr(last_picture, "notebook_listens", lambda: True)
    monkeypatch.setattr("mspeckv_widgets.panel.notebook_listens", lambda: True)
    monkeypatch.setattr(display_functions, "display", show(update=False))
    monkeypatch.setattr(display_functions, "update_display", show(update=True))
    return outputs


def made() -> Panel:
    """A panel of one line."""
    return panel("Example", [ipw.HTML("words")])


def told(box: Panel, **other: Any) -> None:
    """The page has drawn a picture."""
    box._frame._handle_custom_msg({**TOLD, **other}, [])


def test_outside_a_notebook_nothing_else_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(last_picture.SESSION, "/a/notebook.ipynb")
    assert not last_picture.notebook_listens(), "there is no kernel"
    box = made()
    assert box._repr_mimebundle_()[VIEW]["model_id"] == box.model_id
    assert not box._frame.kept
    assert capsys.readouterr().out == ""


def test_a_kernel_without_a_session_has_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shell:
        kernel = object()

    monkeypatch.setattr(last_picture, "get_ipython", Shell)
    monkeypatch.delenv(last_picture.SESSION, raising=False)
    assert not last_picture.notebook_listens()
    monkeypatch.setenv(last_picture.SESSION, "/a/notebook.ipynb")
    assert last_picture.notebook_listens()


def test_a_picture_replaces_the_output_before_the_panel(shown: Shown) -> None:
    box = made()
    assert box._repr_mimebundle_()["text/plain"] == "Example: run this cell again"
    assert box._frame.kept
    [(first, place, update)] = shown
    assert not update
    assert "The kernel was restarted. Run this cell again." in first
    assert "<img" not in first
    told(box)
    after, same, update = shown[1]
    assert update
    assert same == place
    assert "The kernel was restarted. This is the last picture: run this cell again." in after
    [source] = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', after)
    assert base64.b64decode(source).decode() == TOLD["svg"]
    assert 'class="mskv-night" width="640" height="200"' in after
    assert "Last picture of Example: Run &quot;this&quot; &amp; &lt;that&gt;" in after
    assert re.search(r"Drawn \d{4}-\d\d-\d\d \d\d:\d\d\.", after)
    told(box, svg="")
    assert "<img" not in shown[2][0], "one too large is no picture"


def test_a_page_that_lost_the_output_is_handed_it(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, sent = made(), []
    monkeypatch.setattr(type(box._frame), "send", lambda _, content: sent.append(content))
    box._repr_mimebundle_()
    told(box, stamp=1700000000123)
    told(box, kind="renew")
    assert [one["kind"] for one in sent] == ["last"]
    assert sent[0]["html"] == shown[-1][0], "the same that the kernel shows"
    assert 'data-drawn="1700000000123"' in sent[0]["html"]
    assert f'mskv-last mskv-is-{box._frame.own_id}"' in sent[0]["html"]


def test_only_the_last_places_are_kept_up_to_date(shown: Shown) -> None:
    box = made()
    for _ in range(last_picture.PLACES + 2):
        box._repr_mimebundle_()
    places = [place for _, place, _ in shown]
    shown.clear()
    told(box)
    assert [place for _, place, _ in shown] == places[2:]


def test_two_panels_do_not_hide_each_others_pictures(shown: Shown) -> None:
    for box in (made(), made()):
        box._repr_mimebundle_()
    marks = [re.findall(r"mskv-last (mskv-is-\w+)", output)[0] for output, _, _ in shown]
    assert marks[0] != marks[1]
    assert marks[1] not in shown[0][0]


def test_predictions_have_one_too(shown: Shown) -> None:
    box = PredictBox("p1", "How many?", "", (), lambda _: None)
    assert box._repr_mimebundle_()["text/plain"] == "Predict p1: How many?"
    assert len(shown) == 1
