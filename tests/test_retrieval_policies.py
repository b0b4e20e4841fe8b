"""A policy of one's own chooses tier 1's chunks, and changes no token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mspeckv import KVPolicy, Sampling, Speculation, generate, retrieval
from mspeckv.accelerate.graphs import Direct
from mspeckv.accelerate.workspace import plug_runners
from mspeckv.api import engine_of
from mspeckv.kv.floats import Floats
from mspeckv.kv.retrieval import RetrievalCache
from mspeckv.kv.shape import KVShape
from mspeckv.kv.sizes import ChunkPlan
from mspeckv.kv.tier1 import Tier1Room
from mspeckv_study.cli.arguments import build_parser, run_config
from tests.random_models import random_pair, random_prompt

SETTINGS: dict[str, Any] = {
    "gamma": 5, "draft_gamma": 2, "budget": 32, "chunk": 4, "recent": 4, "refresh": 4, "window": 16,
}  # fmt: skip


def peak(queries: torch.Tensor, landmarks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The largest score that any one query gives."""
    scores = queries @ landmarks.transpose(1, 2)
    return scores.masked_fill(weights[:, None] == 0, -1e9).amax(1)


@pytest.fixture
def own() -> Iterator[str]:
    """A registered policy."""
    retrieval.register("peak")(peak)
    yield "peak"
    retrieval.unregister("peak")


def run(name: str, **options: Any) -> Any:
    wanted: dict[str, Any] = {
        "new_tokens": 24,
        "policy": KVPolicy(8, on_chip=1, resident=1, block=16, tail=8),
        "sampling": Sampling(0, stop_at_eos=False),
        **options,
    }
    speculation = Speculation(**SETTINGS, retrieval=name)
    return generate(random_pair(), random_prompt(150), speculation=speculation, **wanted)


def cache_of(name: str, prompt: int = 40) -> RetrievalCache:
    pair = random_pair(layers=1)
    shape = KVShape.of(pair.target.config, pair.dtype)
    speculation = Speculation(**SETTINGS, retrieval=name)
    return RetrievalCache(Tier1Room(shape, speculation, prompt, 8), None, torch.device("cpu"))


def test_greedy_tokens_are_the_same_by_any_policy(own: str) -> None:
    plain = run("attention", method="autoregressive").tokens
    runs = {name: run(name) for name in ("attention", "newest", own)}
    assert {found.tokens for found in runs.values()} == {plain}
    assert {name: found.config["speculation"]["retrieval"] for name, found in runs.items()} == {
        name: name for name in runs
    }
    accepted = {name: found.tiers[1].accepted for name, found in runs.items()}
    assert len(set(accepted.values())) > 1, accepted


def test_the_policy_really_chooses(own: str) -> None:
    query, key = torch.randn(1, 4, 40, 16), torch.randn(1, 2, 40, 16)
    newest = cache_of("newest")
    newest.watch(0, query, Floats(key, key))
    plan = ChunkPlan.of(Speculation(**SETTINGS), 40)
    expected = [0, *range(plan.chunks - plan.chosen + 1, plan.chunks)]
    assert newest.chosen[0].tolist() == [expected, expected]
    peaks = cache_of(own)
    peaks.watch(0, query, Floats(key, key))
    rows = query.reshape(1, 2, 80, 16)[0].unflatten(1, (2, 40))[:, :, -16:].flatten(1, 2)
    scores = peak(rows, peaks.landmarks[0], torch.ones(32))
    scores[:, 0] = torch.inf
    best = scores.topk(plan.chosen).indices.sort().values
    assert torch.equal(peaks.chosen[0], best)
    assert not torch.equal(peaks.chosen[0], newest.chosen[0])


@pytest.mark.parametrize("name", ["attention", "newest", "peak"])
def test_static_passes_choose_alike(own: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(random_pair())
    ordinary = run(name)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "hooks", plug_runners(engine.hooks, Direct))
        fixed = run(name)
        # the same name, another function: what was kept for the old one must not be used
        kept = engine.spare
        retrieval.register("peak")(lambda q, marks, w: -peak(q, marks, w))
        assert run(name).tokens == ordinary.tokens
        assert (engine.spare is kept) == (name != "peak")
    engine.give_back()
    assert fixed.tokens == ordinary.tokens
    assert fixed.rounds == ordinary.rounds


def test_sampled_text_keeps_its_length_and_stays_reproducible(own: str) -> None:
    sampling = Sampling(0.8, seed=3, stop_at_eos=False)
    assert run(own, sampling=sampling).tokens == run(own, sampling=sampling).tokens


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda q, marks, w: marks.mean(), "return scores \\[H, chunks\\], here \\[2, 5\\]"),
        (lambda q, marks, w: 3.0, "not 'float'|not float"),
        (lambda q, marks, w: marks.sum(-1).long(), "floating-point"),
        (lambda q, marks, w: marks.sum(-1) / 0, "finite"),
        (lambda q, marks, w: (q @ marks.transpose(1, 2)).amax(1), "padding"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(function: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval.register("wrong")(function)
    assert "wrong" not in retrieval.names()


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="retrieval: 'peak' is not allowed; use one of attention"):
        run("peak")
    with pytest.raises(ValueError, match="retrieval: 3 is not allowed; use a name"):
        Speculation(retrieval=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tier1='nibble' chooses no chunks"):
        Speculation(tier1="nibble", retrieval="newest")
    with pytest.raises(ValueError, match="engine's own"):
        retrieval.register("attention")
    with pytest.raises(ValueError, match="engine's own"):
        retrieval.unregister("newest")
    with pytest.raises(ValueError, match="letters"):
        retrieval.register("two words")


def test_the_command_line_takes_a_name_or_a_file(tmp_path: Path) -> None:
    parse = build_parser().parse_args
    options = parse(["generate", "--retrieval", "newest"])
    assert run_config(options).speculation.retrieval == "newest"
    file = tmp_path / "mine.py"
    file.write_text(
        "import mspeckv\n"
        "@mspeckv.retrieval.register('first')\n"
        "def first(queries, landmarks, weights):\n"
        "    return -mspeckv.retrieval.newest(queries, landmarks, weights)\n"
    )
    try:
        options = parse(["generate", "--retrieval", f"{file}:first"])
        assert run_config(options).speculation.retrieval == "first"
    finally:
        retrieval.unregister("first")
    with pytest.raises(ValueError, match="no file .*none.py"):
        run_config(parse(["generate", "--retrieval", f"{tmp_path}/none.py:first"]))
    with pytest.raises(ValueError, match="use one of attention, newest"):
        run_config(parse(["generate", "--retrieval", "guess"]))
    file.write_text("1 / 0")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        run_config(parse(["generate", "--retrieval", f"{file}:first"]))
