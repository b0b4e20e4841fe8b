"""What every rank of `tests.test_parallel` does: ``python -m torch.distributed.run ... FOLDER``.

Each rank writes what it saw to ``FOLDER/rank<n>.json``, case by case. Without torchrun the same
cases run in one process, to compare with.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mspeckv import (
    KVPolicy,
    Pair,
    Round,
    RunConfig,
    RunSummary,
    Sampling,
    Speculation,
    load_pair,
    stream,
)
from mspeckv.adaptive.estimates import PassCost
from mspeckv.decoding.sampling import Sampler
from mspeckv.parallel import Ranks, end, join
from tests.random_models import random_prompt

PROMPT = random_prompt(150)
PLACED = KVPolicy(bits=8, on_chip=1, resident=1, block=16, tail=16)
GUESSES = Speculation(budget=64, chunk=8, recent=16, gamma=4, draft_gamma=2)
ADAPTIVE = Speculation(
    budget=64, chunk=8, recent=16, gamma="auto", draft_gamma="auto", draft_threshold=0.05
)
GREEDY, SAMPLED = Sampling(temperature=0.0), Sampling(temperature=0.9, top_p=0.95, seed=5)


def outcome(pair: Pair, **settings: Any) -> dict[str, Any]:
    """A run's tokens, lengths and bytes."""
    *before, last = stream(pair, PROMPT, RunConfig.build(new_tokens=12, **settings))
    assert isinstance(last, RunSummary)
    plans = [(one.plan.path, one.plan.gamma) for one in before if isinstance(one, Round)]
    return {
        "tokens": last.tokens,
        "plans": plans,
        "accepted": [tier.accepted for tier in last.tiers],
        "proposed": [tier.proposed for tier in last.tiers],
        "offloaded": last.memory.offloaded_bytes,
        "gbps": last.link.gbps,
        "cancelled": last.cancelled,
    }


def cancelled(pair: Pair, ranks: Ranks | None) -> dict[str, Any]:
    """The last rank alone wishes to stop, after one round."""
    cancel = threading.Event()
    for event in stream(
        pair,
        PROMPT,
        RunConfig.build(method="autoregressive", new_tokens=12, sampling=GREEDY),
        cancel=cancel,
    ):
        if isinstance(event, Round) and (ranks is None or ranks.rank == ranks.size - 1):
            cancel.set()
    assert isinstance(event, RunSummary)
    return {"tokens": event.tokens, "cancelled": event.cancelled}


def misled(pair: Pair, ranks: Ranks | None) -> dict[str, Any]:
    """The last rank draws other numbers and measures other times."""
    own_uniform, own_cost = Sampler._uniform, PassCost.__call__
    if ranks is not None and not ranks.first:
        Sampler._uniform = lambda self: 0.999  # type: ignore[method-assign]
        PassCost.__call__ = lambda self, tokens: 1.0  # type: ignore[method-assign]
    try:
        return outcome(pair, policy=PLACED, speculation=ADAPTIVE, sampling=SAMPLED, link="origin")
    finally:
        Sampler._uniform, PassCost.__call__ = own_uniform, own_cost  # type: ignore[method-assign]


def complaint(action: Callable[[], object]) -> str:
    """What ``action`` refuses."""
    try:
        action()
    except ValueError as error:
        return str(error)
    return ""


def run_cases(folder: Path, ranks: Ranks | None) -> dict[str, Any]:
    """Every case, in the same order on every rank."""
    target, draft = str(folder / "llama"), str(folder / "draft")
    pair = load_pair(target, draft, ranks=ranks)
    placed = {"policy": PLACED, "sampling": GREEDY, "link": 0.5}
    out: dict[str, Any] = {
        "autoregressive": outcome(pair, method="autoregressive", sampling=GREEDY),
        "mspeckv": outcome(pair, speculation=GUESSES, **placed),
        "sampled": outcome(pair, speculation=GUESSES, policy=PLACED, sampling=SAMPLED),
        "misled": misled(pair, ranks),
        "cancelled": cancelled(pair, ranks),
    }
    own_draft = load_pair(target, str(folder / "draft.safetensors"), ranks=ranks)
    short = Speculation(budget=64, chunk=8, recent=16, gamma=4, draft_gamma=2, draft_vocab=32)
    out["shared head"] = outcome(own_draft, speculation=short, **placed)
    qwen2 = load_pair(str(folder / "qwen2"), "none", ranks=ranks)
    out["qwen2"] = outcome(qwen2, speculation=GUESSES, **placed)
    apart = PROMPT if ranks is None or ranks.first else PROMPT[::-1]
    out["other prompts"] = complaint(lambda: stream(pair, apart))
    alone = 10**6 if ranks is not None and ranks.first else 12
    out["one refuses"] = complaint(lambda: stream(pair, PROMPT, RunConfig.build(new_tokens=alone)))
    out["weight bytes"] = pair.weight_bytes
    return out


def main() -> None:
    """Run under torchrun."""
    ranks, folder = join(), Path(sys.argv[1])
    assert ranks is not None
    found = run_cases(folder, ranks)
    (folder / f"rank{ranks.rank}.json").write_text(json.dumps(found))
    end(ranks, 0)


if __name__ == "__main__":
    main()
