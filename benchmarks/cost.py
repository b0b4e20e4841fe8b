"""The cost model against this machine: predicted and measured time per token, side by side.

    python -m benchmarks.cost                    # 12 random settings of the default pair
    python -m benchmarks.cost --seed 2 --settings 6

The machine is calibrated first, by `mspeckv_study.whatif.this_machine`: ceilings, pass times,
unpacking.
Each setting is then run, and predicted with the acceptance that the run showed: the model predicts
time, not what a draft guesses. Links are emulated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.report import machine, table
from mspeckv import (
    KVPolicy,
    Pair,
    RunSummary,
    Sampling,
    Speculation,
    calibrate,
    documents,
    generate,
    load_pair,
)
from mspeckv.settings import METHODS, Width
from mspeckv_study.whatif import Acceptance, Forecast, Hardware, rate_of, this_machine, what_if
from mspeckv_study.whatif.catalogue import draft_shape
from mspeckv_study.whatif.shapes import ModelShape

_SLOWEST = 200.0
"""Settings predicted to take more milliseconds per token are drawn again: the run is short."""


@dataclass(frozen=True)
class Case:
    """One random setting."""

    method: str
    prefill: int
    link_gbps: float
    policy: KVPolicy
    speculation: Speculation

    @property
    def name(self) -> str:
        """In few words."""
        policy, guess = self.policy, self.speculation
        words = [self.method, f"{self.prefill}", f"{self.link_gbps:g} GB/s", f"{policy.bits}"]
        words.append(f"{policy.on_chip}+{policy.resident}")
        if self.method != "autoregressive":
            words.append(f"gamma {guess.gamma}")
        if self.method in ("triforce", "mspeckv"):
            words.append(f"/{guess.draft_gamma} budget {guess.budget}")
        return " ".join(words)


def draw_case(random: np.random.Generator, layers: int, method: str) -> Case:
    """Context, link, width, placement and lengths, each uniformly."""

    def one_of(values: tuple[Any, ...]) -> Any:
        return values[int(random.integers(len(values)))]

    on_chip = int(random.integers(0, layers + 1))
    bits: Width = one_of((8, 4, "full")) if method != "triforce" else "full"
    return Case(
        method,
        one_of((512, 1024, 1536, 2048)),
        one_of((0.1, 0.2, 0.4, 0.8)),
        KVPolicy(
            bits=bits, on_chip=on_chip, resident=int(random.integers(0, layers - on_chip + 1))
        ),
        Speculation(
            gamma=int(random.integers(2, 11)),
            draft_gamma=int(random.integers(1, 5)),
            budget=one_of((128, 256, 512)),
        ),
    )


def predict(
    case: Case, shape: ModelShape, draft: ModelShape, here: Hardware, new_tokens: int,
    acceptance: Acceptance,
) -> Forecast:  # fmt: skip
    """The cost model's word on one setting."""
    return what_if(
        shape, here, draft=draft, method=case.method, prefill=case.prefill, new_tokens=new_tokens,
        policy=case.policy, speculation=case.speculation, acceptance=acceptance,
        link_gbps=case.link_gbps, control=False,
    )  # fmt: skip


def acceptance_of(run: RunSummary) -> Acceptance:
    """Per-token rates at which the run's rounds would settle what they did.

    A short run's last round may guess less than the others: what was guessed counts, not gamma.
    """
    counts = {tier.tier: tier for tier in run.tiers}
    top = max((count for count in run.tiers if count.proposed), default=None, key=lambda c: c.tier)
    outer = inner = 0.0
    if top is not None:
        outer = float(rate_of(top.accepted / run.rounds, top.proposed / run.rounds))
    if 0 in counts and 1 in counts:
        # by inner round: guesses put to tier 1, and kept
        passes = counts[1].passes
        inner = float(rate_of(counts[0].accepted / passes, counts[0].proposed / passes))
    return Acceptance(inner, outer, outer)


def measure(pair: Pair, prompt: list[int], case: Case, new_tokens: int) -> RunSummary:
    """Run one setting."""
    return generate(
        pair, prompt[: case.prefill], method=case.method, new_tokens=new_tokens,
        policy=case.policy, speculation=case.speculation,
        sampling=Sampling(stop_at_eos=False), link=case.link_gbps,
    )  # fmt: skip


def main() -> None:
    """Calibrate, draw, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--settings", type=int, default=12)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="turns; the fastest counts")
    parser.add_argument("--seconds", type=float, default=190, help="no turn that would pass it")
    parser.add_argument("--json", type=Path, help="also write passes and steps here")
    options = parser.parse_args()
    pair = load_pair(weights="float")
    assert pair.draft is not None
    assert pair.tokenizer is not None
    print(machine(pair.device), end="\n\n", flush=True)
    start = time.perf_counter()
    calibrate("cpu", again=True)
    here = this_machine("cpu", pair)
    print(f"calibrated in {time.perf_counter() - start:.1f} s: {here.describe()}")
    print(
        f"drawing {here.row_us:.0f} us a row, a round's rest {here.round_us:.0f} us, a transfer's "
        f"{here.copy_us:.0f} us; unpacking "
        + ", ".join(f"{width} {ns:.0f}" for width, ns in here.unpack_ns.items())
        + " ns a token and layer; a pass of the target over 1 token at "
        f"1024: {here.passes['target'].at(1, 1024):.1f} ms, over 9: "
        f"{here.passes['target'].at(9, 1024):.1f} ms\n",
        flush=True,
    )
    shape = ModelShape.of(pair.target.config)
    draft = draft_shape(shape, "default")
    assert draft is not None
    prompt = documents.load_document("python-reference", pair.tokenizer, 2048)
    random = np.random.default_rng(options.seed)
    cases: list[Case] = []
    while len(cases) < options.settings:
        # methods in turn
        case = draw_case(random, pair.layers, METHODS[len(cases) % len(METHODS)])
        likely = predict(case, shape, draft, here, options.new_tokens, Acceptance(0.5, 0.8, 0.4))
        if likely.ms_per_token <= _SLOWEST:
            cases.append(case)
    generate(pair, prompt[:128], new_tokens=8)
    runs: dict[int, list[RunSummary]] = defaultdict(list)
    turns, begun = 0, time.perf_counter()
    while turns < options.repeats:
        for place, case in enumerate(cases):
            runs[place].append(measure(pair, prompt, case, options.new_tokens))
        turns += 1
        took = time.perf_counter() - begun
        if took * (turns + 1) / turns > options.seconds:
            break
    rows, off, kept = [], [], []
    for place, case in enumerate(cases):
        run = min(runs[place], key=lambda one: one.ms_per_token)
        acceptance = acceptance_of(run)
        found = predict(case, shape, draft, here, options.new_tokens, acceptance)
        error = found.ms_per_token / run.ms_per_token - 1
        off.append(abs(error))
        tiers = {tier.tier: tier.ms / len(run.tokens) for tier in run.tiers}
        slowest = max(one.ms_per_token for one in runs[place])
        rows.append((
            case.name, run.accepted_per_round, found.ms_per_token, run.ms_per_token, slowest,
            f"{100 * error:+.1f} %", _tiers(_predicted_tiers(found)), _tiers(tiers),
        ))  # fmt: skip
        kept.append({
            "setting": case.name, "steps": dict(found.steps), "passes": found.passes_per_round,
            "runs": [{"ms": one.ms_per_token, "rounds": one.rounds,
                      "tiers": [asdict(tier) for tier in one.tiers]} for one in runs[place]],
        })  # fmt: skip
    headers = (
        "setting", "kept per round", "predicted ms/token", "measured ms/token", "slowest", "error",
        "predicted by tier", "measured by tier",
    )  # fmt: skip
    print(f"Modelled, and measured (the fastest of {turns} turns); links emulated")
    print(table(headers, rows))
    print(
        f"\nabsolute error: median {100 * median(off):.1f} %, worst {100 * max(off):.1f} %, "
        f"{sum(one <= 0.2 for one in off)} of {len(off)} within 20 %"
    )
    if options.json:
        options.json.write_text(json.dumps({"machine": asdict(here), "cases": kept}, indent=1))


def _predicted_tiers(found: Forecast) -> dict[int, float]:
    steps = found.steps
    return {
        0: steps["tier 0 draft"],
        1: steps["tier 1 verify"],
        2: sum(value for name, value in steps.items() if name.startswith("tier 2"))
        + steps["retrieve"],
    }


def _tiers(ms: dict[int, float]) -> str:
    return " / ".join(f"{ms.get(tier, 0.0):.1f}" for tier in (0, 1, 2))


if __name__ == "__main__":
    main()
