"""All checks of one engine, in turn."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

from mspeckv.models.kept import processor
from mspeckv.settings import check_kind, refuse
from mspeckv_study.verification.asking import Asking, TimeUp
from mspeckv_study.verification.contracts import judge_contracts
from mspeckv_study.verification.degeneration import judge_long_texts
from mspeckv_study.verification.endpoint import Endpoint
from mspeckv_study.verification.engine import Engine, Function
from mspeckv_study.verification.findings import Finding, Report
from mspeckv_study.verification.greedy import judge_greedy
from mspeckv_study.verification.plan import plan
from mspeckv_study.verification.sampled import judge_samples
from mspeckv_study.verification.trial import Trial

PLACES = 3
"""Prompts that the plan chooses among."""


def verify(
    engine: Engine | Callable[..., Any],
    against: Engine | Callable[..., Any],
    documents: Mapping[str, list[int]],
    trial: Trial | None = None,
    *,
    out: str | Path | None = None,
    cancel: threading.Event | None = None,
    on_ask: Callable[[], None] = lambda: None,
    on_stage: Callable[[str, int], None] = lambda stage, count: None,
) -> Report:
    """Judge whether an engine's text is that of plain decoding.

    Args:
        engine: an `Engine`, or a function of prompt ids, a `Sampling` and a number of tokens that
            returns token ids.
        against: plain decoding of the same model. Where it has ``logits``, chances are exact.
        documents: prompts by name, as token ids; the longest is that of the long texts.
        trial: what is asked.
        out: folder that answers are kept in; a later call with the same one goes on from there.
        cancel: set it from another thread, and the report is of what there is.
        on_ask: told of each answer that came.
        on_stage: told of each check as it begins, and of how many answers it takes at most.

    Raises:
        ValueError: a setting that is not allowed, or an engine that answers wrongly.
    """
    for field, one in (("engine", engine), ("against", against)):
        check_kind(field, one, Engine | Callable, "a function, or an Engine")
    check_kind("documents", documents, Mapping, "prompts by name, as token ids")
    check_kind("trial", trial, Trial | None, "a Trial")
    check_kind("out", out, str | Path | None, "a folder's path")
    trial, start = trial or Trial(), time.monotonic()
    engine, against = (
        one if isinstance(one, Engine) else Function(one, getattr(one, "__name__", "function"))
        for one in (engine, against)
    )
    for one, other in ((engine, against), (against, engine)):
        if isinstance(one, Endpoint) and not isinstance(other, Endpoint):
            one.needs_ids = True
    if not documents or any(len(prompt) < 2 for prompt in documents.values()):
        raise refuse("documents", list(documents), "use at least one of two tokens or more")
    engine.greet()
    against.greet()
    folder = None if out is None else Path(out).expanduser()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    seconds = None if trial.minutes is None else 60 * trial.minutes
    ask = Asking(engine, against, folder, seconds, cancel, on_ask)
    longest = max(documents.values(), key=len)
    found: list[Finding] = []
    try:
        if "greedy" in trial.checks:
            on_stage("greedy text", 2 * len(documents))
            found += [judge_greedy(ask, *one, trial.new_tokens) for one in documents.items()]
        short = [prompt[-trial.short :] for prompt in _places(longest, trial.short)]
        if "promises" in trial.checks:
            on_stage("promises", 16)
            found += judge_contracts(ask, short[0], trial.sampling)
        if "sampled" in trial.checks:
            on_stage("planning", PLACES)
            planned = plan(ask, short, trial)
            on_stage(planned.words(trial.samples), planned.budget(trial.samples))
            found += judge_samples(ask, planned, trial)
        if "long" in trial.checks:
            on_stage("long texts", 2 * trial.texts)
            found += judge_long_texts(ask, longest, trial)
    except TimeUp:
        pass
    seconds = time.monotonic() - start
    names = engine.name, against.name
    return Report(*names, tuple(found), trial.to_json(), _here(), seconds, not ask.late)


def _places(document: list[int], short: int) -> list[list[int]]:
    """Beginnings of a document that end at different places."""
    step = max(1, (len(document) - short) // PLACES)
    ends = {min(len(document), short + at * step) for at in range(PLACES)}
    return [document[:end] for end in sorted(ends)]


def _here() -> dict[str, str]:
    from mspeckv import __version__

    return {
        "mspeckv": f"mspeckv {__version__}", "torch": f"torch {torch.__version__}",
        "transformers": f"transformers {transformers.__version__}",
        "python": f"Python {platform.python_version()}",
        "machine": f"{processor()}, {platform.machine()}, {os.cpu_count()} cores",
    }  # fmt: skip
