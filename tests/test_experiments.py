"""Ablations: definitions, trials, stores that survive a kill, runners side by side."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mspeckv import Link, Pair, stream
from mspeckv.api import engine_of
from mspeckv_study.cli import main
from mspeckv_study.experiments import (
    ALL_FLOAT,
    EQUAL_MEMORY,
    EXPERIMENTS,
    IDS,
    PRESETS,
    SQUARE,
    VARIANTS,
    Bench,
    Row,
    RowStore,
    experiment,
    load_rows,
    missing,
    ordered,
    run,
)
from tests.random_models import random_pair
from tests.tiny_sweep import LAYERS, SLOW_GBPS, VOCAB, save_target, tiny, tiny_pair

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are done before a second thread has woken up."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny target's folder."""
    return save_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def small(target: str) -> Pair:
    """The tiny target, loaded."""
    return tiny_pair(target)


@pytest.fixture(scope="module")
def done(small: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted sweep."""
    out = tmp_path_factory.mktemp("done")
    run(tiny(), seeds=(1, 2), out=out, pair=small)
    return out


def keys(rows: list[Row]) -> list[str]:
    return sorted(row.key for row in rows)


def lines(out: Path) -> list[dict[str, object]]:
    """Every line, whatever rows of one trial would hide."""
    text = (out / "A2-classroom.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


# Definitions


def test_presets_hold_the_published_values_and_their_sixteenth() -> None:
    for id in IDS:  # noqa: A001  # its name
        origin, classroom = experiment(id, "origin"), experiment(id, "classroom")
        assert origin.preset.new_tokens == 256
        assert origin.preset.prefill == 16 * classroom.preset.prefill
        assert origin.preset.speculation.budget == 16 * classroom.preset.speculation.budget
        assert origin.axis == classroom.axis
        assert len(origin.values) == len(classroom.values)
        if origin.axis in ("prefill", "new_tokens"):
            assert origin.values == tuple(16 * value for value in classroom.values)
    assert len(EXPERIMENTS) == len(IDS) * len(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("id", IDS)
def test_every_cell_is_a_run_that_its_target_allows(id: str, preset: str) -> None:  # noqa: A002
    chosen = experiment(id, preset)
    for cell in chosen.cells():
        config = cell.config
        config.policy.check_layers(chosen.preset.layers)
        assert not config.sampling.stop_at_eos
        assert getattr(cell.preset, cell.axis) == cell.value
    assert chosen.reference in chosen.variants
    assert {"mspeckv", EQUAL_MEMORY, ALL_FLOAT} < set(chosen.variants)


def test_the_control_of_equal_memory_has_mspeckvs_policy_and_does_not_guess() -> None:
    for chosen in EXPERIMENTS.values():
        cells = chosen.cells(variants=["mspeckv", EQUAL_MEMORY])
        for guessing, plain in zip(cells[::2], cells[1::2], strict=True):
            assert plain.config == replace(guessing.config, method="autoregressive")


def test_the_square_asks_two_questions_apart() -> None:
    """Only the method differs along one side, only places along the other."""
    (chosen,) = experiment("A1").cells([1024], ["mspeckv"])
    runs = {
        place: VARIANTS[name].config(replace(chosen.preset, new_tokens=8))
        for place, name in SQUARE.items()
    }
    assert {one.policy.bits for one in runs.values()} == {8}
    for stays in ("streamed", "kept"):
        assert runs["plain", stays].policy == runs["guessing", stays].policy
    for guesses in ("plain", "guessing"):
        streamed, kept = (runs[guesses, stays].policy for stays in ("streamed", "kept"))
        assert streamed == replace(kept, resident=0)
        assert kept.on_chip + kept.resident == chosen.preset.layers
        assert runs[guesses, "kept"].method == runs[guesses, "streamed"].method
    assert set(SQUARE.values()) < set(experiment("A1").variants)


def test_the_cliff_lies_where_residents_hold_what_on_chip_layers_leave() -> None:
    cells = {
        cell.value: cell.config.policy for cell in experiment("B1").cells(variants=["mspeckv-lru"])
    }
    assert {on_chip: policy.resident for on_chip, policy in cells.items()} == {
        4: 15, 8: 15, 12: 15, 15: 15, 17: 13,
    }  # fmt: skip
    fits = {on_chip: on_chip + policy.resident == 30 for on_chip, policy in cells.items()}
    assert fits == {4: False, 8: False, 12: False, 15: True, 17: True}


def test_all_float_keeps_everything_on_the_device() -> None:
    for cell in experiment("B1").cells(variants=["all-float"]):
        assert set(cell.config.policy.placement(30)) == {"on-chip"}
        assert cell.config.method == "autoregressive"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["A9"], "experiment: 'A9'"),
        (["A1", "--preset", "lecture"], "preset: 'lecture'"),
        (["A1", "--seeds", "1,x"], "seeds: '1,x'"),
        (["A1", "--seeds", "1,1"], r"seeds: \(1, 1\)"),
        (["A1", "--variants", "triforce,best"], "variants: 'best'"),
        (["A2", "--values", "31"], "resident: 31"),
        (["A1", "--values", "512,512"], "cells: "),
        (["all", "--values", "512"], "values: '512'"),
        (["A1", "--dtype", "int8"], "dtype: 'int8'"),
    ],
)
def test_the_command_refuses_before_it_loads_anything(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments, "--out", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mspeckv: ")
    assert re.search(message, error)
    assert not (tmp_path / "none").exists()


def test_order_is_shuffled_per_seed_and_always_the_same() -> None:
    chosen = experiment("B1")
    trials = ordered(chosen, chosen.cells(), (1, 2, 3))
    assert trials == ordered(chosen, reversed(chosen.cells()), (1, 2, 3))
    assert len({trial.key for trial in trials}) == 5 * 5 * 3
    by_seed = [[t.cell.key for t in trials if t.seed == seed] for seed in (1, 2, 3)]
    assert by_seed[0] != by_seed[1] != by_seed[2]
    assert sorted(by_seed[0]) == sorted(by_seed[1]) == sorted(by_seed[2])
    for first in range(0, len(trials), 5):  # variants of one value next to one another
        assert len({(t.seed, t.cell.value) for t in trials[first : first + 5]}) == 1


# Trials


def test_a_row_says_what_was_run_and_what_was_counted(done: Path) -> None:
    rows = load_rows(done)
    assert keys(rows) == keys([row for row in rows if row.ok])
    assert len(rows) == 2 * 3 * 2
    for row in rows:
        assert row.result is not None
        assert row.result["config"]["sampling"]["seed"] == row.seed
        assert len(row.result["tokens"]) == 12
        assert row.hardware["cores"] == len(os.sched_getaffinity(0))
        assert row.seconds > 0
        whole = row.variant == "all-float" or (row.variant == "mspeckv" and row.value == 3)
        assert (row.link_bytes_per_token == 0) == whole, row.key
        # autoregressive reads every token of the context per token; the rest share passes
        token_bytes = LAYERS * 2 * 2 * 16 * 4
        if row.variant == "all-float":
            reads = sum(200 + step for step in range(12)) * token_bytes / 12
            assert row.kv_read_per_token == {"2": pytest.approx(reads)}
        else:
            assert set(row.kv_read_per_token) == {"1", "2"}


def test_trials_do_not_depend_on_what_ran_before(done: Path, small: Pair) -> None:
    trial = next(t for t in ordered(tiny(), tiny().cells(), (2,)) if t.cell.variant == "mspeckv")
    alone = Bench(small).run(trial)
    kept = next(row for row in load_rows(done) if row.key == trial.key)
    assert alone is not None
    assert alone.result is not None
    assert kept.result is not None
    assert list(alone.result["tokens"]) == kept.result["tokens"]
    assert alone.kv_read_per_token == kept.kv_read_per_token
    assert alone.link_bytes_per_token == kept.link_bytes_per_token


def test_the_warm_up_runs_once_and_leaves_no_row(
    small: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    from mspeckv_study.experiments import bench

    def counted(*arguments: object, **settings: object) -> Iterator[object]:
        begun.append(1)
        return stream(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(bench, "stream", counted)
    rows = run(tiny(), seeds=(1,), out=tmp_path, pair=small)
    assert len(rows) == len(lines(tmp_path)) == 6
    assert len(begun) == 7


def test_a_failing_trial_is_a_row_and_is_tried_again(small: Pair, tmp_path: Path) -> None:
    chosen = replace(tiny(), variants=("vanilla", "all-float"))  # no draft: vanilla cannot run
    rows = run(chosen, seeds=(1,), out=tmp_path, pair=small)
    assert len(rows) == 4
    failed = [row for row in rows if not row.ok]
    assert {row.variant for row in failed} == {"vanilla"}
    assert all(
        row.error and row.error.startswith("ValueError: method: 'vanilla'") for row in failed
    )
    assert len(missing(chosen, (1,), tmp_path)) == 2
    run(chosen, seeds=(1,), out=tmp_path, pair=small)
    assert len(lines(tmp_path)) == 6  # both failures once more, nothing else
    assert len(load_rows(tmp_path)) == 4


def test_an_experiment_for_another_target_is_refused(small: Pair, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset: 'classroom'.*30 layers and the target has 4"):
        run("A1", out=tmp_path, pair=small)
    assert not list(tmp_path.glob("*.json*"))


# Stores


def test_a_folder_keeps_to_its_models_and_its_measured_step(small: Pair, tmp_path: Path) -> None:
    chosen = replace(tiny(Link("origin")), values=(3,), variants=("all-float",))
    engine_of(small).step_seconds = None
    (row,) = run(chosen, seeds=(1,), out=tmp_path, pair=small)
    step = json.loads((tmp_path / "classroom.json").read_text())["step_seconds"]
    assert step == engine_of(small).step_seconds
    assert row.result is not None
    assert row.result["config"]["link"]["preset"] == "origin"
    engine_of(small).step_seconds = None
    _, other = run(chosen, seeds=(1, 2), out=tmp_path, pair=small)
    assert other.result is not None
    assert other.result["link"]["gbps"] == row.result["link"]["gbps"]
    assert engine_of(small).step_seconds == step
    stranger = Pair.of(small.target, None, small.tokenizer, target_id="another")
    with pytest.raises(ValueError, match="target: 'another' is not allowed; .* has rows of"):
        run(chosen, seeds=(3,), out=tmp_path, pair=stranger)
    kept = tmp_path / "classroom.json"
    kept.write_text(kept.read_text().replace('"weights": "float"', '"weights": "int4"'))
    with pytest.raises(ValueError, match="weights: 'float' is not allowed; .* has rows of 'int4'"):
        run(chosen, seeds=(3,), out=tmp_path, pair=small)
    engine_of(small).step_seconds = None


def test_a_torn_last_line_is_left_out_and_then_mended(done: Path, tmp_path: Path) -> None:
    whole = (done / "A2-classroom.jsonl").read_bytes()
    store = RowStore(tmp_path, "A2", "classroom")
    store.path.write_bytes(whole[:-40])
    rows = store.rows()
    assert len(rows) == 11
    again = replace(rows[0], key="another")
    store.append(again)
    assert [row.key for row in load_rows(tmp_path)] == [*(row.key for row in rows), "another"]
    assert store.path.read_bytes().startswith(b"".join(whole.splitlines(keepends=True)[:11]))


def test_a_line_that_is_no_row_is_named(done: Path, tmp_path: Path) -> None:
    first, *rest = (done / "A2-classroom.jsonl").read_text().splitlines(keepends=True)
    path = tmp_path / "A2-classroom.jsonl"
    path.write_text(first + "{}\n" + "".join(rest))
    with pytest.raises(ValueError, match="line 2: not a row of an experiment: it lacks key"):
        load_rows(path)
    with pytest.raises(ValueError, match="results: .* is not allowed"):
        load_rows(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"result": {}}, "result: its ms_per_token is no Real"),
        ({"result": [1]}, "result: it is none of a run"),
        ({"seed": "a"}, "seed: 'a' is no int"),
        ({"value": None}, "value: None is no int"),
        ({"seconds": "long"}, "seconds: 'long' is no Real"),
    ],
)
def test_a_damaged_row_is_named(
    changed: dict[str, Any], told: str, done: Path, tmp_path: Path
) -> None:
    first, *_ = (done / "A2-classroom.jsonl").read_text().splitlines()
    damaged = tmp_path / "A2-classroom.jsonl"
    damaged.write_text(f"{first}\n{json.dumps({**json.loads(first), **changed})}\n")
    with pytest.raises(ValueError, match=f"A2-classroom.jsonl, line 2: {re.escape(told)}"):
        load_rows(tmp_path)


def test_a_later_row_counts_only_after_failures(done: Path, tmp_path: Path) -> None:
    row = load_rows(done)[0]
    failed = replace(row, status="failed", error="OSError: disk", result=None)
    store = RowStore(tmp_path, "A2", "classroom")
    for one in (failed, replace(row, seconds=1.0), replace(row, seconds=2.0), failed):
        store.append(one)
    (kept,) = load_rows([tmp_path])
    assert kept == replace(row, seconds=1.0)


def test_a_claim_is_one_runners_and_dies_with_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from mspeckv_study.experiments.rows import RowStore\n"
        "with RowStore(Path(sys.argv[1]), 'A2', 'classroom').claim('a') as mine:\n"
        "    print(mine, flush=True); time.sleep(60)\n"
    )
    store = RowStore(tmp_path, "A2", "classroom")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with store.claim("a") as mine, store.claim("b") as other:
            assert not mine
            assert other
        holder.kill()
    with store.claim("a") as mine:
        assert mine


# Sweeps that are cut short, or not alone


def begin(target: str, out: Path, gbps: float) -> subprocess.Popen[str]:
    """The tiny sweep in a process of its own."""
    command = [sys.executable, "-m", "tests.tiny_sweep", target, str(out), str(gbps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_killed_sweep_goes_on_and_repeats_nothing(
    target: str, small: Pair, done: Path, tmp_path: Path
) -> None:
    with begin(target, tmp_path, SLOW_GBPS) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline()
        # in the middle of a trial: at this bandwidth the next one takes a while
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = lines(tmp_path)
    assert 3 <= len(before) < 12
    told: list[str] = []
    rows = run(
        tiny(), seeds=(1, 2), out=tmp_path, pair=small, on_row=lambda row: told.append(row.key)
    )
    assert keys(rows) == keys(load_rows(done))
    assert len(lines(tmp_path)) == 12
    assert lines(tmp_path)[: len(before)] == before
    assert len(told) == 12 - len(before)
    # the seed decides, not the link nor who ran it: the same tokens as without a kill
    tokens = {row.key: row.result["tokens"] for row in load_rows(done) if row.result}
    assert {row.key: row.result["tokens"] for row in rows if row.result} == tokens


def test_two_runners_share_a_folder(target: str, small: Pair, done: Path, tmp_path: Path) -> None:
    with begin(target, tmp_path, SLOW_GBPS) as process:
        assert process.stdout is not None
        assert process.stdout.readline()  # the other one is at work
        told: list[str] = []
        chosen = tiny(Link("custom", SLOW_GBPS))
        mine = run(
            chosen, seeds=(1, 2), out=tmp_path, pair=small, on_row=lambda r: told.append(r.key)
        )
        others = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert keys(mine) == keys(load_rows(done))
    assert len(lines(tmp_path)) == 12
    assert len(others) >= 11
    assert set(told) <= {row.key for row in mine}
    assert len(set(told)) == len(told)


def test_a_cancelled_sweep_keeps_finished_rows(small: Pair, tmp_path: Path) -> None:
    cancel = threading.Event()
    rows = run(
        tiny(), seeds=(1, 2), out=tmp_path, pair=small, on_row=lambda _: cancel.set(), cancel=cancel
    )
    assert len(rows) == len(lines(tmp_path)) == 1
    trial = ordered(tiny(), tiny().cells(), (1,))[-1]
    assert Bench(small).run(trial, cancel) is None


def test_the_command_runs_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_thirty_layers(tmp_path / "target")
    command = [
        "run", "a2", "--values", "15", "--variants", "mspeckv,plain-int8", "--seeds", "1",
        "--target", folder, "--draft", "none", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out.count("ms/token (measured, link emulated") == 2
    assert "2/2" in shown.err
    assert main(command) == 0
    assert not capsys.readouterr().out
    rows = load_rows(tmp_path / "out")
    assert {row.variant for row in rows} == {"mspeckv", "plain-int8"}
    assert {row.result["config"]["policy"]["on_chip"] for row in rows if row.result} == {15}


def save_thirty_layers(folder: Path) -> str:
    """A target that the classroom's placements are made for."""
    save_target(folder)
    random_pair(layers=30, vocab=VOCAB).target.save_pretrained(folder)
    return str(folder)


# Prefill sharing (what is kept: `tests.test_kept_prompts`)


def test_shared_prefills_are_told_in_the_rows(done: Path) -> None:
    rows = {row.key: row for row in load_rows(done)}
    order = [trial.key for trial in ordered(tiny(), tiny().cells(), (1, 2))]
    # one prompt, read by the warm-up, whatever the policy
    assert all(rows[key].prefill_shared for key in order)
    assert all(rows[key].prefill_saved_seconds != 0 for key in order)
