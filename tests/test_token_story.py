"""The replay of a run says what its events say, token by token."""

from __future__ import annotations

import pytest

from mspeckv import (
    Event,
    Guess,
    KVPolicy,
    Pair,
    Plan,
    Round,
    RunConfig,
    Sampling,
    Speculation,
    stream,
)
from mspeckv_widgets import TokenStory
from mspeckv_widgets.panels.token_story import fate_text
from mspeckv_widgets.replay import Replay, words_of
from tests.random_models import random_pair, random_prompt

PAIR = random_pair()


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """A random pair, whose tiers often disagree, over a link that is emulated."""
    return list(
        stream(
            PAIR,
            random_prompt(200),
            RunConfig.build(
                new_tokens=40,
                link=1.0,
                policy=KVPolicy(8, block=16),
                sampling=Sampling(0, stop_at_eos=False),
                speculation=Speculation(
                    gamma=5, draft_gamma=2, budget=48, chunk=4, recent=8, window=8
                ),
            ),
        )
    )


def rounds_of(events: list[Event]) -> list[Round]:
    return [event for event in events if isinstance(event, Round)]


def made(guesses: tuple[Guess, ...], tokens: tuple[int, ...], tiers: tuple[int, ...]) -> Round:
    plan = Plan((0, 1, 2), 3, 2)
    return Round(0, 0.0, 5.0, tokens, "", tiers, 3, 1, plan, guesses, (), (), ())


def test_every_guess_and_reply_is_said_once_at_its_place() -> None:
    one = made(
        (
            Guess(0, 1, (7, 8), 1, 9),  # 7 stands, 8 does not: tier 1 says 9
            Guess(0, 1, (5,), 1, 4),  # place 2, and a bonus at place 3
            Guess(1, 2, (7, 9, 5, 4), 1, 3),  # 7 stands, 9 does not, 5 and 4 were built on it
        ),
        (7, 3),
        (0, 2),
    )
    said = [(w.place, w.tier, w.token, w.fate, w.judge) for w in words_of(one)]
    assert said == [
        (0, 0, 7, "kept", 1), (1, 0, 8, "rejected", 1), (1, 1, 9, "said", None),
        (2, 0, 5, "kept", 1), (3, 1, 4, "said", None),
        (0, 1, 7, "kept", 2), (1, 1, 9, "rejected", 2), (2, 1, 5, "dropped", 2),
        (3, 1, 4, "dropped", 2), (1, 2, 3, "said", None),
    ]  # fmt: skip
    first, second = Replay.of([one]).steps
    assert [w.token for w in first.words] == [7, 7]
    assert not first.corrected
    assert [w.token for w in second.words] == [8, 9, 9, 3]
    assert second.corrected
    assert [fate_text(w) for w in second.words] == [
        "rejected by tier 1", "its own choice", "rejected by tier 2", "its own choice",
    ]  # fmt: skip


def test_each_step_ends_with_the_token_that_was_settled(events: list[Event]) -> None:
    replay = Replay.of(events)
    assert replay.emulated is True
    assert replay.tokens == [token for one in rounds_of(events) for token in one.tokens]
    for step in replay.steps:
        word = step.words[-1]
        assert word.token == step.token
        assert word.fate == ("kept" if step.settled_by < 2 else "said")
        assert step.token in step.round.tokens
    assert {step.settled_by for step in replay.steps} == {0, 1, 2}


def test_controls_move_through_the_run(events: list[Event]) -> None:
    story = TokenStory(PAIR, events)
    assert story.step.index == 0
    story.buttons["back"].click()
    assert story.step.index == 0
    story.buttons["step"].click()
    assert (story.step.index, story.player.value) == (1, 2)
    story.player.value = 5  # as the replay does
    assert story.step.index == 4
    wrong = story.replay.next_correction(4)
    assert wrong is not None
    story.buttons["correction"].click()
    assert story.step.index == wrong
    assert "rejected" in story._said.value
    story.slider.value = story.slider.max
    story.buttons["step"].click()
    assert story.step.index == len(story.replay.steps) - 1
    story.buttons["correction"].click()
    assert "No later guess" in story._said.value


def test_what_is_shown_is_the_rounds(events: list[Event]) -> None:
    story = TokenStory(PAIR, events)
    story.slider.value = 12
    one = story.step.round
    assert story._words.value.count("<tr>") == 1 + len(story.step.words)
    assert (
        f"Round {one.index + 1}: {len(one.tokens)} tokens in {one.ms:.0f} ms" in story._cost.value
    )
    assert "emulated" in story._cost.value
    assert "verify" in story._cost.value


def test_text_so_far_is_marked_by_tier(pair: Pair) -> None:
    assert pair.tokenizer is not None
    tokens = tuple(pair.tokenizer("Lists are mutable <b>")["input_ids"])
    tiers = tuple(index % 3 for index in range(len(tokens)))
    story = TokenStory(pair, [made((), tokens, tiers)])
    story.slider.value = 2
    assert story._text.value.count("data-tier=") == 2
    assert story._text.value.count("aria-current") == 1
    story.slider.value = len(tokens)
    assert story._text.value.count("data-tier=") == len(tokens)
    assert "<b>" not in story._text.value


def test_controls_have_names(events: list[Event]) -> None:
    story = TokenStory(PAIR, events)
    for control in (story.slider, *story.buttons.values()):
        assert control.description
        assert len(control.tooltip) > 10
    assert story.player.hint
    assert (story.player.min, story.player.max) == (1, len(story.replay.steps))
    assert "application/vnd.jupyter.widget-view+json" in story._repr_mimebundle_()


def test_events_without_a_token_are_refused(events: list[Event]) -> None:
    with pytest.raises(ValueError, match="events: '0 events' is not allowed; use what"):
        TokenStory(PAIR, [])
    with pytest.raises(ValueError, match="events"):
        TokenStory(PAIR, events[:1])
