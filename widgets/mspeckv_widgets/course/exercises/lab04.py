"""The tiers: what each one sees of the prompt, and who knows the needle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mspeckv import AttentionProbe, RetrievalReport, Speculation
from mspeckv.kv.layers import fold_groups
from mspeckv.kv.shape import KVShape
from mspeckv.kv.streaming import StreamingCache
from mspeckv_widgets.course.answers import as_number, call, short, starts_with, tried
from mspeckv_widgets.course.exercise import Exercise, Score, Verdict
from mspeckv_widgets.replay import Replay, Step

MASS = 0.9
"""Share of the attention that exercise 4 wants captured."""
_STEP = 8
_SLACK = 0.005
"""Share of attention by which exercise 2 may fall short of the engine's choice."""


def check_sees(found: Any) -> Verdict:
    """A function says which positions tier 0's cache holds."""
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    for length, sinks, window in ((40, 4, 12), (40, 0, 8), (10, 4, 12)):
        shape = KVShape(1, 1, 8, torch.float32)
        cache = StreamingCache(shape, sinks, window, 1, torch.device("cpu"))
        visible = set(next(cache.to_read(list(range(length))))[0])
        for position in range(length):
            case, right = (position, length, sinks, window), position in visible
            gave = call(found, *case)
            if bool(gave) != right:
                sees = "sees" if right else "does not see"
                where = f"position {position} of {length}, {sinks} sinks, window {window}"
                seen = tried(found, case, short(gave), str(right))
                return Verdict(False, f"{where}: tier 0 {sees} it", attempt=seen)
    return Verdict(True, "the first tokens and the latest, and nothing between them.")


def check_choice(answer: Any) -> Verdict:
    """A function chooses chunks of each layer, and they capture as much as landmarks would.

    The answer is a probe, the speculation that says how many chunks, and the learner's function.
    """
    if not (starts_with(answer, 3, AttentionProbe) and isinstance(answer[1], Speculation)):
        return Verdict(False, "give (explorer.probe, guess, your function)")
    probe, guess, choose = answer
    if not callable(choose):
        return Verdict(False, f"a function is asked for, this is {short(choose)}")
    report = probe.report(guess)
    chosen = []
    for layer, (keys, queries) in enumerate(zip(probe.keys, probe.queries, strict=True)):
        found = _chosen(choose, keys, queries, report, layer)
        if isinstance(found, Verdict):
            return found
        chosen.append(found)
    mine = float(replace(report, chosen=np.stack(chosen)).captured.mean())
    engines = float(report.captured.mean())
    told = f"{mine:.1%} of the next token's attention captured (measured)"
    if mine < engines - _SLACK:
        return Verdict(False, f"{told}; the engine's landmarks capture {engines:.1%}")
    best = float(report.best.mean())
    return Verdict(
        True,
        f"{told}; landmarks capture {engines:.1%}, the best choice {best:.1%}.",
        Score(round(100 * mine, 2), "% of the attention captured", "measured"),
    )


def _chosen(
    choose: Any, keys: torch.Tensor, queries: torch.Tensor, report: RetrievalReport, layer: int
) -> Verdict | NDArray[np.int64]:
    """One layer's choice, or what is wrong with it."""
    plan, heads = report.plan, keys.shape[0]
    whole = plan.chunks * plan.chunk
    asked = fold_groups(queries[None], heads)[0]
    gave = call(choose, keys[:, :whole].clone(), asked.clone(), plan.chunk, plan.chosen)
    try:
        found = np.sort(np.asarray(gave, dtype=np.int64), axis=-1)
    except (TypeError, ValueError):
        return Verdict(False, f"whole numbers [heads, count] are asked for, this is {short(gave)}")
    wanted = (heads, plan.chosen)
    if found.shape != wanted:
        return Verdict(False, f"return {list(wanted)} chunks, not {list(found.shape)}")
    if found.min() < 0 or found.max() >= plan.chunks:
        return Verdict(False, f"chunks are numbered from 0 to {plan.chunks - 1}")
    if (np.diff(found) == 0).any():
        return Verdict(False, f"a head of layer {layer} keeps a chunk twice")
    if found[:, 0].any():
        return Verdict(False, f"a head of layer {layer} leaves out chunk 0")
    return found


def check_put_right(answer: Any) -> Verdict:
    """A function of a step: tier 0 was wrong, tier 1 right, and tier 2 agreed."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        return Verdict(False, "give (events, your function)")
    events, found = answer
    if not callable(found):
        return Verdict(False, f"a function is asked for, this is {short(found)}")
    steps = Replay.of(events).steps
    for step in steps:
        right, gave = _put_right(step), call(found, step)
        if bool(gave) != right:
            told = "" if right else "not "
            fates = [f"tier {word.tier}: {word.fate} by {word.judge}" for word in step.words]
            where = f"token {step.index + 1}, settled by tier {step.settled_by}"
            seen = tried(found, (step,), short(gave), str(right))
            message = f"{where} ({', '.join(fates)}), is {told}one of these"
            return Verdict(False, message, attempt=seen)
    count = sum(_put_right(step) for step in steps)
    return Verdict(True, f"{count} of {len(steps)} tokens: tier 0 wrong, tier 1 right (counted).")


def _put_right(step: Step) -> bool:
    wrong = any(word.fate == "rejected" and word.judge == 1 for word in step.words)
    return wrong and step.settled_by == 1


def check_budget(answer: Any) -> Verdict:
    """The smallest budget with enough attention captured, from a probe and the learner's number."""
    if not starts_with(answer, 2, AttentionProbe):
        return Verdict(False, "give (probe, your budget)")
    probe, budget = answer
    if as_number(budget) is None or int(budget) % _STEP:
        return Verdict(False, f"a multiple of {_STEP} tokens is asked for, this is {short(budget)}")
    here, less = (_captured(probe, int(budget) - by) for by in (0, _STEP))
    if here is None:
        return Verdict(False, "such a budget is refused: it has no room for recent and two chunks")
    told = f"{budget} tokens capture {here:.1%} on average (measured)"
    if here < MASS:
        return Verdict(False, f"{told}, which is less than {MASS:.0%}")
    if less is not None and less >= MASS:
        return Verdict(False, f"{told}, but {int(budget) - _STEP} do as well")
    return Verdict(True, f"{told}, of a prompt of {len(probe.tokens)}.")


def _captured(probe: AttentionProbe, budget: int) -> float | None:
    """Mean mass that a budget captures; None where it is refused."""
    try:
        return float(probe.report(Speculation(budget=budget)).captured.mean())
    except ValueError:
        return None


EXERCISES: dict[str, Exercise] = {
    "e1": Exercise(
        "what tier 0 sees",
        check_sees,
        "Two stretches of the context are seen, and nothing between them. What if the context is "
        "shorter than both together?",
        "Positions count from 0, so those of the window begin at length - window; those of the "
        "sinks are less than sinks.",
    ),
    "e2": Exercise(
        "choose the chunks yourself",
        check_choice,
        "A chunk is worth what the queries would give it. Reshape the keys to [heads, chunks, "
        "chunk, channels]; chunk 0 is always kept, whatever its score.",
        "landmarks = keys.reshape(heads, -1, chunk, channels).mean(2). The scores of all queries "
        "are queries @ landmarks.transpose(1, 2), times channels ** -0.5: that goes into softmax.",
    ),
    "e3": Exercise(
        "what tier 0 cannot know",
        check_put_right,
        "Press Step through the story and read what became of each guess. Two things must hold: a "
        "guess of tier 0 was rejected by tier 1, and the settled token is tier 1's.",
        'any(word.fate == "rejected" and word.judge == 1 for word in step.words) is the first of '
        "them.",
    ),
    "e4": Exercise(
        f"the least budget that captures {MASS:.0%}",
        check_budget,
        "More budget never captures less, so there is one place where 90 % is passed. Look for it "
        "from below, or by halving.",
        "probe.report(Speculation(budget=budget)).captured.mean() is the share; go through "
        "range(48, len(prompt), 8).",
    ),
}
