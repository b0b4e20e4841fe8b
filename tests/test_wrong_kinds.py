"""What is of the wrong kind is refused in the one form of a complaint, whatever it is given to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import mspeckv
import mspeckv_widgets
from mspeckv import Pair, RunConfig, Speculation, generate, load_pair, stream
from tests.random_models import random_pair, random_prompt

PAIR, PROMPT = random_pair(), random_prompt(60)
WRONG = {
    "text": "int8",
    "number": 3.5,
    "nothing": None,
    "list": [object()],
    "model": PAIR.target,
}
"""What people hand over by mistake: the name of a width, a model where a pair belongs, ..."""

ASKED: dict[str, tuple[Callable[[Any], object], str]] = {
    "generate": (lambda wrong: generate(wrong, PROMPT), ""),
    "generate policy": (lambda wrong: generate(PAIR, PROMPT, policy=wrong), "nothing"),
    "generate speculation": (lambda wrong: generate(PAIR, PROMPT, speculation=wrong), "nothing"),
    "generate sampling": (lambda wrong: generate(PAIR, PROMPT, sampling=wrong), "nothing"),
    "stream": (lambda wrong: stream(wrong, PROMPT), ""),
    "stream config": (lambda wrong: stream(PAIR, PROMPT, wrong), "nothing"),
    "RunConfig link": (lambda wrong: RunConfig(link=wrong), ""),
    "load_pair target": (load_pair, "text"),
    "load_pair draft": (lambda wrong: load_pair(draft=wrong), "text"),
    "Pair.of target": (Pair.of, "model"),
    "Pair.of draft": (lambda wrong: Pair.of(PAIR.target, wrong), "nothing model"),
    "custom policy": (lambda wrong: mspeckv.as_custom_generate(policy=wrong), "nothing"),
    "profile": (lambda wrong: mspeckv.profile(wrong, PROMPT), ""),
    "profile config": (lambda wrong: mspeckv.profile(PAIR, PROMPT, wrong), "nothing"),
    "KVProbe": (lambda wrong: mspeckv.KVProbe(wrong, PROMPT), ""),
    "AttentionProbe": (lambda wrong: mspeckv.AttentionProbe(wrong, PROMPT), ""),
    "retrieval_report": (lambda wrong: mspeckv.retrieval_report(PAIR, PROMPT, wrong), "nothing"),
    "next_distributions": (lambda wrong: mspeckv.next_distributions(wrong, PROMPT), ""),
    "next_distributions sampling": (
        lambda wrong: mspeckv.next_distributions(PAIR, PROMPT, wrong), "nothing"
    ),
    "what_if model": (mspeckv.what_if, "model"),
    "what_if prefill": (lambda wrong: mspeckv.what_if(prefill=wrong), ""),
    "what_if policy": (lambda wrong: mspeckv.what_if(policy=wrong), "nothing"),
    "what_if speculation": (lambda wrong: mspeckv.what_if(speculation=wrong), "nothing"),
    "what_if acceptance": (lambda wrong: mspeckv.what_if(acceptance=wrong), "nothing"),
    "plan acceptance": (lambda wrong: mspeckv.plan(acceptance=wrong), "nothing"),
    "plan width_acceptance": (lambda wrong: mspeckv.plan(width_acceptance=wrong), "nothing"),
    "plan grid": (lambda wrong: mspeckv.plan(grid=wrong), "nothing"),
    "verify": (lambda wrong: mspeckv.verify(wrong, len, {"a": [1, 2]}), "model"),
    "verify documents": (lambda wrong: mspeckv.verify(len, len, wrong), ""),
    "verify trial": (lambda wrong: mspeckv.verify(len, len, {"a": [1, 2]}, wrong), "nothing"),
    "load_document": (lambda wrong: mspeckv.documents.load_document(wrong, PAIR.tokenizer, 3), ""),
    "experiment": (mspeckv.experiments.experiment, ""),
    "Ablation": (mspeckv_widgets.Ablation, ""),
    "Ablation pair": (lambda wrong: mspeckv_widgets.Ablation(pair=wrong), "nothing"),
    "AcceptanceExplorer": (lambda wrong: mspeckv_widgets.AcceptanceExplorer(wrong, [1.0]), ""),
    "LiveLab": (mspeckv_widgets.LiveLab, "nothing"),
    "LiveLab document": (lambda wrong: mspeckv_widgets.LiveLab(PAIR, wrong), "text"),
    "MemoryMap": (mspeckv_widgets.MemoryMap, ""),
    "MovingRound": (lambda wrong: mspeckv_widgets.MovingRound(wrong, PAIR), ""),
    "PlanView": (mspeckv_widgets.PlanView, ""),
    "QuantExplorer": (mspeckv_widgets.QuantExplorer, ""),
    "RetrievalExplorer": (mspeckv_widgets.RetrievalExplorer, ""),
    "Roofline": (lambda wrong: mspeckv_widgets.Roofline(wrong, wrong), ""),
    "TierBreakdown": (mspeckv_widgets.TierBreakdown, ""),
    "Timeline": (mspeckv_widgets.Timeline, ""),
    "TokenStory": (lambda wrong: mspeckv_widgets.TokenStory(wrong, []), ""),
    "TokenStory events": (lambda wrong: mspeckv_widgets.TokenStory(PAIR, wrong), ""),
    "WhatIf": (mspeckv_widgets.WhatIf, "nothing"),
}  # fmt: skip
"""What asks, and which of `WRONG` are not wrong there."""


@pytest.mark.parametrize("asking", ASKED)
def test_another_kind_of_thing_is_refused_by_name(asking: str) -> None:
    ask, right = ASKED[asking]
    for kind, wrong in WRONG.items():
        if kind not in right.split():
            with pytest.raises(ValueError, match=r"^[\w ]+: .{1,200} is not allowed; \w") as told:
                ask(wrong)
            assert len(str(told.value)) < 400, kind


def test_every_panel_is_asked() -> None:
    assert {name.split()[0] for name in ASKED} >= set(mspeckv_widgets.__all__)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("gamma", "use speculation=Speculation(gamma=...)"),
        ("bits", "use policy=KVPolicy(bits=...)"),
        ("temperature", "use sampling=Sampling(temperature=...)"),
        ("gbps", "use link=Link(gbps=...)"),
        ("beam", "use method, new_tokens, policy, speculation, sampling, link, device_gb, graphs"),
    ],
)
def test_a_setting_of_another_name_is_told_its_place(name: str, allowed: str) -> None:
    settings: dict[str, Any] = {name: 3}
    with pytest.raises(ValueError) as told:  # noqa: PT011  # the whole of it, below
        generate(PAIR, PROMPT, **settings)
    assert str(told.value).startswith(f"setting: {name!r} is not allowed; {allowed}")


def test_the_right_kinds_are_taken() -> None:
    assert generate(PAIR, PROMPT, new_tokens=2, speculation=Speculation(gamma=2)).tokens


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"method": "x"}, "method: 'x' is not allowed; use what the control has"),
        ({"bits": None}, "bits: None is not allowed; use a value"),
        ({"gamma": "many"}, "gamma: 'many' is not allowed; use what the control has"),
        ({"on_chip": None, "resident": 3}, "on_chip: None is not allowed; use a whole number"),
        ({"nothing": 3}, "control: 'nothing' is not allowed; use some of"),
    ],
)
def test_a_live_panels_controls_refuse_by_name(values: dict[str, Any], told: str) -> None:
    lab = mspeckv_widgets.LiveLab(PAIR)
    with pytest.raises(ValueError, match=told) as complaint:
        lab.controls.set(**values)
    assert "\n" not in str(complaint.value)
    lab.controls.set(gamma=3)
    assert lab.controls.values["gamma"] == 3


def test_what_a_panel_is_asked_to_do_is_checked() -> None:
    lab = mspeckv_widgets.LiveLab(PAIR)
    for times in (0, -1, "x"):
        with pytest.raises(ValueError, match="repeats: .* is not allowed; use a whole number"):
            lab.run(repeats=times)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="recording: 5 is not allowed"):
        lab.replay(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="preset: 'Z' is not allowed; use one of"):
        lab.controls.apply_preset("Z")
    panel = mspeckv_widgets.WhatIf()
    for name in ("experiment", "method", "model"):
        with pytest.raises(ValueError, match=f"{name}: None is not allowed; use a value"):
            panel.set(**{name: None})
    panel.set(gamma=5)
    assert panel.found
