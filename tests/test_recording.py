"""A recorded run: what is saved comes back, and is shown step by step."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from mspeckv import Prefill, Round, Transfer
from mspeckv.events import Pass
from mspeckv_widgets import LiveLab
from mspeckv_widgets.recording import Recording
from tests.test_compared import ran

DEMO = Path(__file__).resolve().parents[1] / "labs" / "demo" / "recorded.json.gz"


SETTING_OF_NOTHING = b'{"format": 1, "setting": {"config": []}, "events": [], "pieces": {}}'


class Numbers:
    """A tokenizer that says its token ids."""

    def decode(self, tokens: list[int], **_: object) -> str:
        return "".join(f"{token} " for token in tokens)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    record = ran()
    made = Recording.of(record, Numbers())
    made.save(tmp_path / "run")
    assert Recording.load(tmp_path / "run") == made
    assert made.events == (record.prefill, *record.rounds)


def test_steps_come_before_the_event_that_holds_them() -> None:
    made = Recording.of(ran(), Numbers())
    steps: list[Pass | Transfer] = []
    for event in made.play(steps.append, lambda seconds: False, pace=1):
        assert isinstance(event, (Prefill, Round))
        assert sorted(steps, key=repr) == sorted((*event.passes, *event.transfers), key=repr)
        steps.clear()


def test_a_replay_can_be_ended() -> None:
    made = Recording.of(ran(), Numbers())
    assert list(made.play(lambda step: None, lambda seconds: True)) == []


def test_a_run_that_is_not_finished_is_refused() -> None:
    record = ran()
    record.summary = None
    with pytest.raises(ValueError, match="came to its end"):
        Recording.of(record, Numbers())


@pytest.mark.parametrize("text", [b"{}", b"[]", b"\xff", b'{"format": 9}', SETTING_OF_NOTHING])
@pytest.mark.parametrize("packed", [True, False])
def test_another_file_is_refused(tmp_path: Path, text: bytes, packed: bool) -> None:
    file = tmp_path / "run"
    file.write_bytes(gzip.compress(text) if packed else text)
    with pytest.raises(ValueError, match=r"recording|format"):
        Recording.load(file)


@pytest.mark.parametrize("spoil", [lambda whole: whole[:-9], lambda whole: whole[:60] + whole[80:]])
def test_a_file_that_was_spoilt_is_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "run"
    file.write_bytes(spoil(DEMO.read_bytes()))
    with pytest.raises(ValueError, match="recording"):
        Recording.load(file)


def test_the_demos_run_is_shown_and_gives_way_to_a_real_one() -> None:
    lab = LiveLab(recorded=DEMO)
    lab.view.panel._frame.size = (934, 650, False)
    assert lab.runner.wait(60)
    lab.wait(10)
    (record,) = lab.records
    assert record.pieces is not None
    assert len(record.tokens) == record.setting.config.new_tokens
    assert "recorded run" in " ".join(
        str(note.text) for note in lab.view.charts.figure.layout.annotations
    )
    assert lab.view.story.value.count("data-tier=") > 8
    assert lab.runner.view().compared == []
