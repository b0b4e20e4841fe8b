"""Rows with chosen figures, in the form that a real run's summary takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mspeckv.events import LinkSummary, Memory, Residency, RunSummary, TierCount
from mspeckv.experiments import Row, experiment

HARDWARE = {"machine": "a test", "cores": 2, "threads": 2, "memory_gb": 8}


def row(
    name: str,
    value: int,
    variant: str,
    seed: int = 1,
    speed: float = 10.0,
    *,
    accepted: float = 5.0,
    link_bytes: float = 1e6,
    kv_read: dict[str, float] | None = None,
    residency: tuple[int, int] = (0, 0),
    device_kv: tuple[int, int] = (3_000_000, 1_000_000),
    link: str = "emulated",
    error: str | None = None,
    preset: str = "classroom",
) -> Row:
    """A trial of ``name`` at ``value``; it failed if it has an error."""
    known = experiment(name, preset)
    (cell,) = known.cells([value], [variant])
    config = replace(cell.config, sampling=replace(cell.config.sampling, seed=seed))
    guesses = 40 if variant not in {"autoregressive", "control"} else 0
    hits, misses = residency
    summary = RunSummary(
        tokens=(1, 2, 3),
        text="abc",
        settled_by=(2, 2, 2),
        tokens_per_second=speed,
        ms_per_token=1000 / speed if speed else 0.0,
        prefill_seconds=0.5,
        rounds=3,
        accepted_per_round=accepted if guesses else 0.0,
        tiers=(TierCount(1, 5, guesses, guesses // 2, 7.0), TierCount(2, 3, 0, 0, 9.0)),
        kv_read_bytes=(6, 9),
        link=LinkSummary(link, 0.02 if link == "emulated" else None, 9, 9, 1.0),
        residency=Residency(hits, misses, hits / (hits + misses) if hits + misses else None),
        memory=Memory(*device_kv, 5_000_000, 400_000_000),
        cancelled=False,
        config={
            **config.to_dict(),
            "prompt_tokens": cell.preset.prefill,
            "target": "a target",
            "draft": "a draft",
        },
        versions={"python": "3"},
    )
    result: dict[str, Any] | None = summary.to_json() if error is None else None
    return Row(
        key=f"{cell.key}/seed={seed}",
        experiment=name,
        preset=preset,
        axis=known.axis,
        value=value,
        variant=variant,
        seed=seed,
        status="ok" if error is None else "failed",
        error=error,
        result=result,
        link_bytes_per_token=link_bytes if result else 0.0,
        kv_read_per_token=(kv_read or {"1": 2e6, "2": 3e6}) if result else {},
        prefill_shared=False,
        prefill_saved_seconds=0.0,
        started="2026-01-01T00:00:00+00:00",
        seconds=2.0,
        hardware=HARDWARE,
        versions={"python": "3", "torch": "2"},
        mspeckv="0.1.0",
    )
