"""The moving picture of a round: its script says what the events say, its still is safe."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import replace
from functools import partial
from typing import Any
from xml.etree import ElementTree

import nbconvert
import nbformat
import pytest

from mspeckv import (
    Event,
    Guess,
    KVPolicy,
    Pair,
    Plan,
    Round,
    RunConfig,
    RunSummary,
    Sampling,
    Speculation,
    Transfer,
    stream,
)
from mspeckv_widgets import MovingRound
from mspeckv_widgets.charts.table import readable_bytes
from mspeckv_widgets.panels.moving.parts import LEAST, LINGER, TAIL, Script
from mspeckv_widgets.panels.moving.pose import on_way, pose
from mspeckv_widgets.panels.moving.script import script_of
from mspeckv_widgets.panels.moving.sentences import naming, printable
from mspeckv_widgets.panels.moving.stage import WIDTHS, lay_out, lines_needed, write
from mspeckv_widgets.replay import words_of
from tests.calls import python_calls
from tests.labs import of_cells
from tests.random_models import random_pair, random_prompt

PAIR = random_pair()
POLICY = KVPolicy(8, on_chip=1, resident=1, block=16)
GUESSING = Speculation(gamma=5, draft_gamma=2, budget=48, chunk=4, recent=8, window=8)
NAME = naming(None)


def run(**settings: Any) -> list[Event]:
    chosen = {
        "new_tokens": 40, "link": 0.001, "policy": POLICY, "speculation": GUESSING,
        "sampling": Sampling(0, stop_at_eos=False), **settings,
    }  # fmt: skip
    return list(stream(PAIR, random_prompt(200), RunConfig.build(**chosen)))


def rounds_of(events: list[Event]) -> list[Round]:
    return [event for event in events if isinstance(event, Round)]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """A random pair, whose tiers often disagree, over a link slower than any machine computes."""
    return run()


@pytest.fixture(scope="module")
def others() -> list[Round]:
    """Rounds of other nestings: two tiers, the target alone, looked-up guesses, tier 1 alone."""
    alone = run(method="autoregressive", new_tokens=3)
    more = [run(speculation=replace(GUESSING, tier0=kind)) for kind in ("lookup", "none")]
    return rounds_of([*run(method="vanilla"), *alone, *more[0], *more[1]])


def made(**parts: Any) -> Round:
    """A round of three guesses without a pass or transfer of its own."""
    guesses = (
        Guess(0, 1, (7, 8), 1, 9),  # 7 stands, 8 does not: tier 1 says 9
        Guess(0, 1, (5,), 1, 4),  # place 2, and a bonus at place 3
        Guess(1, 2, (7, 9, 5, 4), 1, 3),  # 7 stands, 9 does not, 5 and 4 were built on it
    )
    base = Round(
        0, 1.0, 100.0, (7, 3), "", (0, 2), 4, 1, Plan((0, 1, 2), 4, 2), guesses, (), (), ()
    )
    return replace(base, **parts)


def moves_of(script: Script) -> list[Any]:
    return [move for chip in script.chips for move in chip.moves]


def check_round(one: Round) -> None:
    """What holds for every round."""
    script = script_of(one, NAME)
    # every word is put or said once, and becomes what the replay says
    fates = Counter((w.place, w.token, w.fate, w.judge is None) for w in words_of(one))
    drawn: Counter[tuple[int, int, str, bool]] = Counter()
    for chip in script.chips:
        assert chip.moves[0].kind in ("guessed", "said")
        for move in chip.moves:
            if move.kind in ("kept", "rejected", "dropped", "said"):
                drawn[chip.place, chip.token, move.kind, move.kind == "said"] += 1
    assert drawn == fates
    # each settled token lands once, in order, in its tier's colour
    landed = sorted(
        (move.at, chip.place, chip.token, chip.tier)
        for chip in script.chips for move in chip.moves if move.kind == "settles"
    )  # fmt: skip
    assert [(token, tier) for _, _, token, tier in landed] == list(
        zip(one.tokens, one.settled_by, strict=True)
    )
    # time
    assert script.ms == pytest.approx(max(one.ms, 1e-3))
    assert [b.at for b in script.beats] == sorted(b.at for b in script.beats)
    for chip in script.chips:
        times = [move.at for move in chip.moves]
        assert times == sorted(times)
        assert [m.beat for m in chip.moves] == sorted(m.beat for m in chip.moves)
    for move in moves_of(script):
        assert 0 <= move.at <= move.until <= script.end + 1e-9
        assert move.kind in ("settles", "unused") or move.at <= script.ms
        assert 0 <= move.beat < len(script.beats)
    # each transfer once, with its bytes
    assert [(c.layer, c.direction, c.purpose, c.bytes) for c in script.crossings] == [
        (t.layer, t.direction, t.purpose, t.bytes) for t in one.transfers
    ]
    told = " ".join(beat.words for beat in script.beats)
    for transfer, crossing in zip(one.transfers, script.crossings, strict=True):
        assert 0 <= crossing.at <= crossing.arrived <= script.ms
        assert crossing.arrived <= crossing.until <= script.end
        assert f"ayer {transfer.layer} " in told or f"layer {transfer.layer} " in told
        assert " ".join(readable_bytes(transfer.bytes)) in told
    assert 0 <= script.poster <= script.ms


def test_a_recorded_round_is_drawn_as_it_was(events: list[Event], others: list[Round]) -> None:
    seen = [*rounds_of(events), *others]
    for one in seen:
        check_round(one)
    kinds = {m.kind for one in seen for m in moves_of(script_of(one, NAME))}
    assert kinds >= {"guessed", "said", "kept", "rejected", "dropped", "settles"}
    assert any(c.wait for one in seen for c in script_of(one, NAME).crossings)
    assert {t.direction for one in seen for t in one.transfers} == {"to_device", "to_host"}


def test_a_round_without_passes_is_spread_over_its_time() -> None:
    one = made()
    check_round(one)
    script = script_of(one, NAME)
    said = [beat.words for beat in script.beats]
    assert said == [
        "Round 1 begins: the tiers guess, from the bottom up.",
        "Tier 0 guesses “7”.",
        "Tier 0 guesses “8”.",
        "Tier 1 tests 2 guesses at once, in one pass.",
        "Tier 1 keeps 1 of 2, rejects “8”, says “9” itself.",
        "Tier 0 guesses “5”.",
        "Tier 1 tests one guess, in one pass.",
        "Tier 1 keeps the guess and adds “4”.",
        "Tier 2 tests 4 guesses at once, in one pass.",
        "Tier 2 keeps 1 of 4, rejects “9”, says “3” itself.",
        "2 tokens settled (1 by tier 0, 1 by tier 2): 7 3",
    ]
    ends = [slots.until for slots in script.slots]
    assert ends == [pytest.approx(share * 100 / 3) for share in (1, 2, 3)]


def test_tokens_after_the_runs_end_fade_and_do_not_settle() -> None:
    script = script_of(made(tokens=(7,), settled_by=(0,)), NAME)
    ends = {chip.token: chip.moves[-1].kind for chip in script.chips}
    assert (ends[7], ends[3]) == ("settles", "unused")


def test_a_transfer_is_where_its_times_say() -> None:
    transfers = (
        Transfer("to_device", "verify", 3, 2, 300_000, 0.99, 40.0, 5.0),  # 10 ms before the round
        Transfer("to_device", "verify", 2, 2, 300_000, 0.5, 40.0),  # long before it
        Transfer("to_host", "flush", 3, 2, 20_000, 1.05, 0.1),
        Transfer("to_device", "verify", 2, 2, 300_000, 1.0505, 20.0),
    )
    one = made(transfers=transfers)
    check_round(one)
    begun, before, flush, after = script_of(one, NAME).crossings
    assert [begun.at, begun.arrived, begun.head] == pytest.approx([0, 30, 0.25])
    assert begun.wait == pytest.approx((25, 30))
    assert (before.at, before.arrived, before.head) == (0, 0, 1)
    # a short one is drawn until the next begins, never over it
    assert flush.until == pytest.approx(after.at)
    assert after.until == after.arrived == pytest.approx(70.5)
    (last,) = script_of(replace(one, transfers=transfers[2:3]), NAME).crossings
    assert last.until - last.at == pytest.approx(LEAST * 100)
    told = " ".join(beat.words for beat in script_of(one, NAME).beats)
    assert "stands still for it for 5.0 ms" in told
    assert "Layer 2 has crossed the link to the device: 300.00 KB, before the round began." in told
    assert "A finished block of layer 3 leaves for the host: 20.00 KB." in told
    assert script_of(one, NAME).crossed[-1].words == "920.00 KB of 920.00 KB"


def test_chips_rise_fall_and_land_where_they_should() -> None:
    stage = lay_out(WIDTHS[-1], 30, 5, (0, 1, 2))
    script = script_of(made(), NAME)
    chips = {(c.tier, c.place): c for c in script.chips}
    home = (500.0, 300.0)
    kept = chips[0, 0]
    assert pose(stage, kept, None, 0).opacity == 0
    before, after = (pose(stage, kept, None, at).middle.y for at in (kept.moves[1].at, 60))
    assert after < before, "kept tokens rise"
    fell = pose(stage, chips[0, 1], None, script.ms)
    assert (fell.opacity, fell.ghost) == (0, 1)
    there = pose(stage, kept, stage.cells[0]._replace(x=home[0], y=home[1]), script.end)
    assert there.middle == pytest.approx(home)
    assert (there.opacity, there.written) == (0, 1)


def test_a_tile_crosses_from_its_box_to_the_other() -> None:
    stage = lay_out(WIDTHS[0], 30, 5, (0, 1, 2))
    one = made(transfers=(Transfer("to_device", "verify", 29, 2, 9, 1.01, 40.0),))
    (crossing,) = script_of(one, NAME).crossings
    gone = 51 + LINGER * one.ms
    where = [on_way(stage, crossing, one.ms, at) for at in (9, 10.001, 30, 49.999, gone)]
    assert [seen for _, seen in where] == [0, 1, 1, 1, 0]
    begin, middle, end = (point for point, _ in where[1:4])
    host, device, pipe = stage.host, stage.device, stage.pipe
    assert host.x < begin.x < host.x + host.width
    assert pipe.x < middle.x < pipe.x + pipe.width
    assert device.x < end.x < device.x + device.width


@pytest.mark.parametrize("layers", [1, 4, 30, 32, 80, 126])
@pytest.mark.parametrize("places", [1, 9, 17, 65])
@pytest.mark.parametrize("width", WIDTHS)
def test_everything_stands_on_the_stage(width: int, places: int, layers: int) -> None:
    stage = lay_out(width, layers, places, (0, 1, 2))
    for place, cell in enumerate(stage.cells):
        assert 0 <= cell.x <= cell.x + stage.chip.x <= width, place
        for tier, band in stage.bands.items():
            bottom = stage.lanes[tier] + cell.y + stage.chip.y
            assert band.y <= bottom <= band.y + band.height
    for spot in stage.spots:
        assert spot.x + stage.tile.x <= stage.host.width
        assert spot.y + stage.tile.y <= stage.host.height - 36
    assert stage.device.x + stage.device.width <= width
    assert len({*stage.spots}) == layers
    assert stage.clock.y + stage.clock.height < stage.height


def test_text_is_broken_between_tokens_and_ends_with_the_round() -> None:
    pieces = [("word ", 0)] * 30 + [("end", 2)] * 3
    written = write(pieces, 3, 24, 2)
    assert [piece.fresh for piece in written[-3:]] == [0, 1, 2]
    assert {piece.line for piece in written} == {0, 1}
    assert all(piece.column + piece.columns <= 24 for piece in written)
    assert lines_needed(written) in (1, 2)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800", "\ufffe", "x\u202ey", "\x1b[1m", "a\nb\tc"])
def test_token_texts_fit_xml_and_one_line(text: str) -> None:
    shown = printable(text)
    ElementTree.fromstring(f"<a>{shown}</a>".encode())
    assert "\n" not in shown
    assert "\u202e" not in shown


class Spelling:
    """A tokenizer whose every token is the same troublesome text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decode(self, tokens: list[int], **_: Any) -> str:
        return self.text * len(tokens)


EVIL = ("</text><script>alert(1)</script>", "\x00a", "\ud800b", "&\"'<")


@pytest.mark.parametrize("evil", EVIL)
def test_the_still_is_well_formed_and_safe(events: list[Event], evil: str) -> None:
    shown = MovingRound(events, Spelling(evil))
    page = shown._repr_mimebundle_()["text/html"]
    root = ElementTree.fromstring(page.encode())
    tags = {element.tag.split("}")[-1] for element in root.iter()}
    assert "svg" in tags
    assert not tags & {"script", "image", "foreignObject", "a", "iframe"}
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert printable(evil)[:2] in "".join(root.itertext())
    for stage in shown.picture.stages:
        ElementTree.fromstring(f"<svg>{stage['backdrop']}</svg>")


def test_a_notebook_without_a_kernel_shows_the_still(events: list[Event]) -> None:
    data = MovingRound(events, PAIR)._repr_mimebundle_()
    output = nbformat.v4.new_output("display_data", data=data)
    notebook = of_cells("shown")
    notebook.cells[0].outputs = [output]
    exporter: Any = nbconvert.HTMLExporter  # it has no types
    page, _ = exporter().from_notebook_node(notebook)
    assert page.count('class="mskv-mr"') == 1
    assert "Round 1: " in page


def test_tiles_lie_where_the_policy_says(events: list[Event]) -> None:
    shown = MovingRound(events, PAIR)
    root = ElementTree.fromstring(shown.still().encode())
    tiles = [
        (int(one.attrib["data-layer"]), one.attrib["data-place"])
        for one in root.iter() if "data-place" in one.attrib
    ]  # fmt: skip
    lying = dict(tiles[: PAIR.layers])
    assert lying == dict(enumerate(POLICY.placement(PAIR.layers)))
    # and one more, on its way at the moment that is shown
    assert {place for _, place in tiles[PAIR.layers :]} <= {"offloaded"}


def test_a_picture_has_every_round_for_every_stage(events: list[Event]) -> None:
    shown = MovingRound(events, PAIR)
    rounds = shown.picture.rounds
    assert len(rounds) == shown.picture.count == len(rounds_of(events))
    assert shown.picture.over
    assert "emulated" in shown.picture.caption
    for index, (one, data) in enumerate(zip(rounds_of(events), rounds, strict=True)):
        assert f"Round {index + 1}" in data["title"]
        assert len(data["crossings"]) == len(one.transfers)
        for pieces in data["written"]:
            assert [piece[5] for piece in pieces if piece[5] >= 0] == list(range(len(one.tokens)))


def test_a_live_run_grows_round_by_round(
    events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = MovingRound(events, PAIR, POLICY)
    shown = MovingRound((), PAIR, POLICY)
    assert not shown.picture.over
    assert "No round yet" in shown.still()
    sent: list[Any] = []
    monkeypatch.setattr(shown.picture, "send", sent.append)
    worker = threading.Thread(target=lambda: deque(map(shown.add, events), 0))
    worker.start()
    worker.join()
    assert shown.picture.over
    assert shown.picture.rounds == whole.picture.rounds
    assert shown.picture.stages == [
        {**stage, "key": shown._key, "backdrop": stage["backdrop"].replace(whole._key, shown._key)}
        for stage in whole.picture.stages
    ]
    assert sent, "most rounds go by themselves"
    assert all(one["round"] == shown.picture.rounds[one["at"]] for one in sent)


def test_adding_is_cheap_however_many_rounds_there_are(events: list[Event]) -> None:
    shown = MovingRound((), PAIR, POLICY)
    *_, last = rounds_of(events)
    calls = [python_calls(partial(shown.add, last)) for _ in range(300)]
    # ten a second are added: 5,300 calls take some 2 ms
    assert max(calls) < 10_000
    # they grow with the text until its lines are full, and then no more
    assert len(set(calls[100:])) == 1


def test_show_goes_to_a_round(events: list[Event]) -> None:
    shown = MovingRound(events, PAIR)
    shown.show(2)
    assert shown.picture.shown == 2
    for wrong in (-1, len(rounds_of(events)), 1.5, True, "one"):
        with pytest.raises(ValueError, match="round: .* is not allowed; use a whole number from 0"):
            shown.show(wrong)  # type: ignore[arg-type]


def test_bad_input_is_refused_in_the_houses_form(events: list[Event]) -> None:
    with pytest.raises(ValueError, match="policy: None is not allowed; use a Pair and the run's"):
        MovingRound(rounds_of(events), PAIR)
    with pytest.raises(ValueError, match="event: 'round' is not allowed; use what mspeckv.stream"):
        MovingRound(["round"], PAIR, POLICY)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="pair: 'int' is not allowed"):
        MovingRound(events, 3)
    with pytest.raises(ValueError, match="on_chip"):
        MovingRound(events, PAIR, KVPolicy(on_chip=40))
    shown = MovingRound(events, PAIR)
    with pytest.raises(ValueError, match="event"):
        shown.add(None)  # type: ignore[arg-type]


def test_the_same_link_is_named_as_the_summary_names_it(events: list[Event]) -> None:
    summary = events[-1]
    assert isinstance(summary, RunSummary)
    for kind, words in (("pcie", "PCIe"), ("memory", "no slow link"), ("emulated", "emulated")):
        said = replace(summary, link=replace(summary.link, kind=kind))
        assert words in MovingRound([*events[:-1], said], PAIR).picture.caption
    assert TAIL > 0


def test_real_tokens_are_named(pair: Pair) -> None:
    assert pair.tokenizer is not None
    name = naming(pair.tokenizer)
    ids = pair.tokenizer(" the\n", add_special_tokens=False)["input_ids"]
    assert [name(token) for token in ids] == ["the", "⏎"]
