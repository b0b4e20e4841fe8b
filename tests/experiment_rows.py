"""Rows with chosen figures, in the form that a real run's summary takes."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from mspeckv.events import LinkSummary, Memory, Residency, RunSummary, TierCount
from mspeckv_study.experiments import Row, experiment

HARDWARE = {"machine": "a test", "cores": 2, "threads": 2, "memory_gb": 8}
SEEDS = tuple(range(1, 11))
FACTORS = {seed: 0.955 + 0.01 * (seed - 1) for seed in SEEDS}
"""By which repeats differ: their median is 1, second least and second largest 0.965 and 1.035."""
A1_SPEEDS = {
    "autoregressive": (8.0, 4.0, 2.5, 2.0),
    "vanilla": (9.0, 5.0, 3.0, 2.2),
    "triforce": (20.0, 15.0, 10.0, 8.0),
    "mspeckv": (40.0, 36.0, 35.0, 28.0),
    "plain-int8": (20.0, 36.0, 35.0, 56.0),
    "plain-int8-streamed": (10.0, 6.0, 4.0, 4.0),
    "mspeckv-streamed": (30.0, 25.0, 22.0, 20.0),
    "all-float": (50.0, 45.0, 40.0, 30.0),
}
B1_LRU = (9.0, 9.5, 10.0, 20.0, 21.0)
B1_STATIC = (12.0, 14.0, 17.0, 20.0, 21.0)
B1_LRU_TIER2_MS = (100.0, 95.0, 90.0, 40.0, 38.0)
B1_STATIC_TIER2_MS = (60.0, 52.0, 45.0, 40.0, 38.0)


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
    tier2_ms: float = 20.0,
    device_kv: tuple[int, int] = (3_000_000, 1_000_000),
    link: str = "emulated",
    error: str | None = None,
    preset: str = "classroom",
) -> Row:
    """A trial of ``name`` at ``value``; it failed if it has an error."""
    known = experiment(name, preset)
    (cell,) = known.cells([value], [variant])
    config = replace(cell.config, sampling=replace(cell.config.sampling, seed=seed))
    guesses = 40 if config.method != "autoregressive" else 0
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
        tiers=(TierCount(1, 5, guesses, guesses // 2, 7.0), TierCount(2, 3, 0, 0, 3 * tier2_ms)),
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


def a1() -> list[Row]:
    """Eight variants of A1; a repeat is as slow or fast for all of them."""
    return [
        row("A1", value, variant, seed, speeds[place] * FACTORS[seed])
        for variant, speeds in A1_SPEEDS.items()
        for (place, value), seed in product(enumerate((512, 1024, 1536, 2048)), SEEDS)
    ]


def b1(repeats: int = len(SEEDS)) -> list[Row]:
    """B1, under fixed places and under LRU, whose layers are all found from 15 on."""
    rows = []
    for (place, value), seed in product(enumerate((4, 8, 12, 15, 17)), SEEDS[:repeats]):
        found = (30, 0) if value >= 15 else (0, 30)
        rows += [
            row("B1", value, "triforce", seed, 8.0),
            row(
                "B1", value, "mspeckv", seed, B1_STATIC[place], residency=(15, max(0, 15 - value)),
                tier2_ms=B1_STATIC_TIER2_MS[place],
            ),
            row(
                "B1", value, "mspeckv-lru", seed, B1_LRU[place], residency=found,
                tier2_ms=B1_LRU_TIER2_MS[place],
            ),
        ]  # fmt: skip
    return rows


def a2(alone: float = 20.0, full: float = 22.0) -> list[Row]:
    """A2; triforce's cells are one configuration, and differ by 5 %."""
    rows = []
    for seed, factor in FACTORS.items():
        rows += [row("A2", value, "triforce", seed, 10.0 + value / 30) for value in (0, 8, 15)]
        rows.append(row("A2", 0, "mspeckv", seed, alone * factor))
        rows += [row("A2", value, "mspeckv", seed, full) for value in (8, 15)]
        rows += [row("A2", value, "plain-int8", seed, alone / 2) for value in (0, 8, 15)]
    return rows


def write(folder: Path, rows: list[Row]) -> Path:
    """Rows as a runner's store has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in rows:
        path = folder / f"{one.experiment}-{one.preset}.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one.to_json()) + "\n")
    return folder


def b2() -> list[Row]:
    """B2: twice triforce's speed whatever the length; guesses kept grow with it."""
    rows = []
    for value, seed in product((16, 32, 48, 64, 96, 128), SEEDS):
        speed = 10.0 * FACTORS[seed]
        rows.append(row("B2", value, "triforce", seed, speed))
        rows.append(row("B2", value, "mspeckv", seed, 2 * speed, accepted=4 + value / 64))
    return rows
