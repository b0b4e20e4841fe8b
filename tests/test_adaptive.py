"""The planner: right answers for costs and rates that are known."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mspeckv import RunConfig, Sampling, Speculation, stream
from mspeckv.adaptive.estimates import PassCost
from mspeckv.adaptive.lengths import Planner, expected_tokens, marginal
from mspeckv.api import engine_of
from mspeckv.events import Guess, Pass, Plan, Round
from tests.random_models import random_pair, random_prompt

AUTO = Speculation(gamma="auto", draft_gamma="auto")


def planner_of(
    costs: dict[int, tuple[float, float]],
    rates: dict[tuple[int, int], float],
    speculation: Speculation = AUTO,
) -> Planner:
    """A planner that has seen many rounds with these costs ``a + b n`` and these rates."""
    planner = Planner(speculation, 0 in costs, 1 in costs, free_draft=False)
    for _ in range(60):
        passes = [
            Pass(tier, "verify", n, 0, 0.0, a + b * n)
            for tier, (a, b) in costs.items()
            for n in (1, 5, 9)
        ]
        guesses = [Guess(*edge, (0,) * 10, round(10 * rate), 0) for edge, rate in rates.items()]
        planner.learn(passes, guesses)
    return planner


def test_expected_tokens_is_the_geometric_sum() -> None:
    assert expected_tokens([0.5], 3) == pytest.approx([1, 1.5, 1.75, 1.875])
    assert expected_tokens([1.0], 3) == [1, 2, 3, 4]
    assert expected_tokens([0.0], 3) == [1, 1, 1, 1]
    assert expected_tokens([0.5, 0.9], 3) == pytest.approx([1, 1.5, 1.95, 2.355])


def test_pass_costs_converge_to_the_line_seen() -> None:
    cost = PassCost()
    for _ in range(40):
        for tokens in (1, 4, 9):
            cost.see(tokens, 30 + 5 * tokens)
    assert cost(1) == pytest.approx(35, rel=0.05)
    assert cost(16) == pytest.approx(110, rel=0.05)


def test_a_bad_measurement_of_a_length_is_forgotten_though_it_does_not_come_again() -> None:
    cost = PassCost()
    cost.see(9, 180)
    for _ in range(60):
        for tokens in (1, 5, 17):
            cost.see(tokens, 30 + 2 * tokens)
    assert cost(9) == pytest.approx(48, rel=0.1)


def test_a_pass_costs_what_passes_until_the_next_one_begins() -> None:
    planner = Planner(AUTO, has_draft=True, has_middle=False, free_draft=False)
    draft = [Pass(0, "draft", 1, 0, 0.001 + 0.003 * place, 2.0) for place in range(4)]
    passes = [*draft, Pass(2, "verify", 5, 0, 0.013, 10.0)]
    assert marginal(passes, 0.0, 0.025) == pytest.approx([3, 3, 3, 3, 12 + 1])
    for _ in range(60):
        planner.learn(passes, [], 0.0, 0.025)
    assert planner.cost(0, 1) == pytest.approx(3, rel=0.02), "nothing of the others' is shared out"
    assert planner.cost(2, 5) == pytest.approx(13, rel=0.02)


def test_every_tier_is_measured_before_one_is_left_out() -> None:
    """Tier 2 streams; tier 0's graphs are captured for three rounds, and cost nothing known yet."""
    planner = Planner(AUTO, has_draft=True, has_middle=True, free_draft=False)
    for turn in range(4):
        plan = planner.choose(room=64)
        assert plan.path == (0, 1, 2)
        passes = [Pass(0, "draft", 1, 0, 0.0, 0.4, builds=turn < 3)]
        passes += [Pass(1, "verify", 3, 0, 0.0, 9.0), Pass(2, "verify", 3, 0, 0.0, 80.0)]
        planner.learn(passes, [Guess(0, 1, (0,) * 2, 2, 0), Guess(1, 2, (0,) * 2, 2, 0)])
    assert planner.choose(room=64).path == (0, 1, 2)


def test_a_tier_left_out_is_tried_again() -> None:
    """The draft was dear when it was measured; later it is not, and that is noticed."""
    planner = Planner(AUTO, has_draft=True, has_middle=True, free_draft=False)
    now = {0: 60.0, 1: 9.0, 2: 80.0}
    paths = []
    for turn in range(120):
        now[0] = 60.0 if turn < 20 else 0.4
        plan = planner.choose(room=64)
        paths.append(plan.path)
        read = [tier for tier in plan.path for _ in range(6 if tier == 0 else 1)]
        passes = [Pass(tier, "verify", 1 + 2 * tier, 0, 0.0, now[tier]) for tier in read]
        sizes = {0: plan.draft_gamma or plan.gamma, 1: plan.gamma}
        guesses = [
            Guess(one, other, (0,) * sizes[one], round(0.8 * sizes[one]), 0)
            for one, other in pairwise(plan.path)
        ]
        planner.learn(passes, guesses)
    assert (1, 2) in paths[:20], "left out while it is dear"
    assert sum(0 in path for path in paths[-20:]) > 15


def test_what_building_a_pass_takes_is_no_cost_of_others() -> None:
    planner = Planner(AUTO, has_draft=True, has_middle=False, free_draft=False)
    planner.learn([Pass(0, "draft", 1, 0, 0.0, 900.0, builds=True)], [])
    assert not planner.costs[0].known
    planner.learn([Pass(0, "draft", 1, 0, 0.0, 2.0)], [])
    assert planner.cost(0, 1) == pytest.approx(2.0, rel=0.05)


def test_a_slow_link_is_worth_every_tier() -> None:
    planner = planner_of(
        {0: (5, 0), 1: (40, 2), 2: (800, 2)}, {(0, 1): 0.6, (1, 2): 0.9, (0, 2): 0.5}
    )
    plan = planner.choose(room=64)
    assert plan.path == (0, 1, 2)
    assert plan.gamma >= 8


def test_a_middle_tier_as_dear_as_the_top_is_left_out() -> None:
    planner = planner_of(
        {0: (3, 0), 1: (40, 2), 2: (42, 2)}, {(0, 1): 0.7, (1, 2): 0.9, (0, 2): 0.7}
    )
    assert planner.choose(room=64).path == (0, 2)


def test_guesses_that_hold_in_runs_are_worth_long_rounds() -> None:
    """Half of the guesses fail at once, the others go on: on average as good as 0.75 everywhere."""
    planner = Planner(AUTO, has_draft=True, has_middle=False, free_draft=True)
    held = (0.6,) + (0.8,) * 30
    for turn in range(200):
        passes = [Pass(2, "verify", n, 0, 0.0, 40 + 6 * n) for n in (1, 9)]
        planner.learn(passes, [Guess(0, 2, (0,) * 8, 8 * (turn % 2), 0, held[:8])])
    assert planner.confidence.kept(2, held[0]) == pytest.approx(0.5, abs=0.1)
    assert planner.confidence.kept(2, held[1]) > 0.9
    assert planner.choose(room=64, held=held).gamma >= 10


def test_guesses_that_never_hold_are_not_made() -> None:
    planner = planner_of(
        {0: (10, 0), 1: (40, 2), 2: (42, 2)}, {(0, 1): 0.0, (1, 2): 0.1, (0, 2): 0.0}
    )
    assert planner.choose(room=64) == Plan((2,), 0, 0)


def test_the_choice_is_the_least_expected_time() -> None:
    planner = planner_of(
        {0: (4, 0), 1: (30, 1), 2: (90, 3)}, {(0, 1): 0.6, (1, 2): 0.8, (0, 2): 0.4}
    )
    best = planner.time_per_token(planner.best(room=16))
    others = [Plan((0, 2), g, 0) for g in range(1, 17)] + [Plan((2,), 0, 0)]
    others += [Plan((0, 1, 2), g, d) for g in range(1, 17) for d in range(1, 7)]
    assert best <= min(planner.time_per_token(plan) for plan in others)


def test_what_is_fixed_stays_and_room_is_kept() -> None:
    costs, rates = {0: (4.0, 0.0), 1: (30.0, 1.0), 2: (300.0, 3.0)}, {(0, 1): 0.6, (1, 2): 0.9}
    fixed = planner_of(costs, rates, Speculation(gamma=5, draft_gamma="auto"))
    assert fixed.choose(room=64).gamma == 5
    assert fixed.choose(room=3).gamma == 3
    inner = planner_of(costs, rates, Speculation(gamma="auto", draft_gamma=2))
    assert inner.choose(room=64).draft_gamma in (0, 2)
    assert inner.choose(room=0) == Plan((2,), 0, 0)


def test_a_pass_that_was_held_up_does_not_spoil_its_length() -> None:
    cost = PassCost()
    for _ in range(20):
        cost.see(1, 50)
        cost.see(9, 60)
    cost.see(9, 600)
    assert cost(9) < 70
    for _ in range(40):
        cost.see(9, 120)
    assert cost(9) == pytest.approx(120, rel=0.1), "what lasts is believed"


def test_a_lookup_guesses_as_far_as_its_text_was_sure() -> None:
    planner = Planner(AUTO, has_draft=True, has_middle=False, free_draft=True)
    for _ in range(20):
        planner.learn([Pass(2, "verify", n, 0, 0.0, 40 + 3 * n) for n in (1, 9, 17)], [])
    lengths = [planner.choose(room=64, held=(sure,) * 31).gamma for sure in (0.2, 0.6, 0.9, 0.99)]
    assert lengths == sorted(lengths)
    assert lengths[0] < 3
    assert lengths[-1] == 31
    fork = (0.98,) * 5 + (0.3,) + (0.98,) * 25
    assert planner.choose(room=64, held=fork).gamma == 5, "the text went on in other ways too"
    assert planner.choose(room=3, held=fork).gamma == 3


def test_what_copies_do_says_nothing_of_chance_matches() -> None:
    planner = Planner(AUTO, has_draft=True, has_middle=False, free_draft=True)
    planner.learn([], [Guess(0, 2, (0,) * 8, 0, 0, (0.98,) * 8)] * 20)
    assert planner.confidence.kept(2, 0.5) == 0.5
    assert planner.confidence.kept(2, 0.98) < 0.6


def test_lookup_with_nothing_to_say_is_not_asked() -> None:
    planner = Planner(AUTO, has_draft=True, has_middle=False, free_draft=True)
    assert planner.choose(room=8).path == (2,)
    assert planner.choose(room=8, held=(0.9,) * 8).path == (0, 2)


def test_choices_are_in_the_events() -> None:
    rounds = [
        event
        for event in stream(
            random_pair(),
            random_prompt(80),
            RunConfig.build(
                new_tokens=40, speculation=AUTO, sampling=Sampling(0, stop_at_eos=False)
            ),
        )
        if isinstance(event, Round)
    ]
    assert rounds[0].plan.path == (0, 1, 2)
    for one in rounds:
        assert {count.tier for count in one.tiers if count.passes} <= {0, 1, 2}
        assert one.proposed <= max(1, one.plan.gamma)
        assert (one.plan.path == (2,)) == (one.plan.gamma == 0)


def test_a_run_with_the_same_settings_need_not_measure_again() -> None:
    """The first round of a first run is short; of a second one it is chosen."""
    pair, prompt = random_pair(), random_prompt(60)
    engine_of(pair).pass_costs.clear()

    def first_plan(tokens: int) -> Plan:
        speculation = Speculation(gamma="auto", draft_gamma="auto", budget=48, window=16)
        found = stream(
            pair,
            prompt[:tokens],
            RunConfig.build(
                method="mspeckv",
                new_tokens=12,
                speculation=speculation,
                sampling=Sampling(temperature=0, stop_at_eos=False),
            ),
        )
        return next(event.plan for event in found if isinstance(event, Round))

    assert first_plan(60) == Plan((0, 1, 2), 2, 2)
    (costs,) = engine_of(pair).pass_costs.values()
    assert all(costs[tier].known for tier in (0, 1, 2))
    for tier, ms in ((0, 100), (1, 100), (2, 1)):
        for tokens in 100 * (1, 5, 9):
            costs[tier].see(tokens, ms)
    assert first_plan(60) == Plan((2,), 0, 0), "tier 2 is known to be cheaper than guesses"
    assert first_plan(50) == Plan((0, 1, 2), 2, 2), "another length, other costs"


@pytest.mark.parametrize("field", ["gamma", "draft_gamma"])
def test_words_other_than_auto_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: 'often' is not allowed; use 'auto' or"):
        RunConfig(speculation=Speculation(**{field: "often"}))  # type: ignore[arg-type]
