"""A finished run, token by token: who said what about each, and what it cost. No widget in here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mspeckv import Event, Round, RunSummary
from mspeckv.settings import check_kind, refuse

Fate = Literal["kept", "rejected", "dropped", "said"]


@dataclass(frozen=True)
class Word:
    """What one tier said about one place of the text.

    Attributes:
        place: tokens of the round before this one.
        tier: who said it.
        token: the token id it said.
        fate: ``kept`` or ``rejected`` by the tier ``judge``; ``dropped``, untested, since it was
            built on a rejected token; ``said`` of a verifier's own token, until a judge has it.
        judge: the tier that tested it; None of a verifier's own token.
    """

    place: int
    tier: int
    token: int
    fate: Fate
    judge: int | None


@dataclass(frozen=True)
class Step:
    """One settled token.

    Attributes:
        index: 0, 1, ... in the run.
        token: its id.
        settled_by: the tier whose guess, or own token, it is.
        round: the round that settled it.
        words: what was said about its place, in time's order.
    """

    index: int
    token: int
    settled_by: int
    round: Round
    words: tuple[Word, ...]

    @property
    def corrected(self) -> bool:
        """Whether the top tier had to say it itself, against a guess."""
        return any(word.fate == "rejected" and word.judge == 2 for word in self.words)


@dataclass(frozen=True)
class Replay:
    """A run to be walked through.

    Attributes:
        steps: one per settled token.
        emulated: whether a throttled copy stood in for the link; None where no summary says.
    """

    steps: tuple[Step, ...]
    emulated: bool | None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Replay:
        """What `mspeckv.stream` yielded, or its rounds alone.

        Raises:
            ValueError: there is no settled token among the events.
        """
        check_kind("events", events, Iterable, "what mspeckv.stream yields in a run")
        seen = list(events)
        rounds = [event for event in seen if isinstance(event, Round)]
        steps = [step for one in rounds for step in _steps(one)]
        if not steps:
            raise refuse("events", f"{len(seen)} events", "use what mspeckv.stream yields in a run")
        kinds = [event.link.kind for event in seen if isinstance(event, RunSummary)]
        numbered = tuple(
            Step(index, step.token, step.settled_by, step.round, step.words)
            for index, step in enumerate(steps)
        )
        return cls(numbered, kinds[-1] == "emulated" if kinds else None)

    @property
    def tokens(self) -> list[int]:
        """Every settled token."""
        return [step.token for step in self.steps]

    @property
    def settled_by(self) -> list[int]:
        """For each of them, the tier whose guess it was."""
        return [step.settled_by for step in self.steps]

    def next_correction(self, index: int) -> int | None:
        """The first token after ``index`` that the top tier put right."""
        later = self.steps[index + 1 :]
        return next((step.index for step in later if step.corrected), None)


def words_of(one: Round) -> list[Word]:
    """Everything that was said in a round, in time's order.

    Guesses between lower tiers hand on ``accepted + 1`` tokens each, one guess after the other;
    the last guess of a round is the top tier's test of all of these.
    """
    words: list[Word] = []
    start = 0
    top = max((guess.verifier for guess in one.guesses), default=None)
    for guess in one.guesses:
        first = 0 if guess.verifier == top else start
        for offset, token in enumerate(guess.tokens):
            fate: Fate = "kept" if offset < guess.accepted else "dropped"
            if offset == guess.accepted:
                fate = "rejected"
            words.append(Word(first + offset, guess.tier, token, fate, guess.verifier))
        end = first + guess.accepted
        words.append(Word(end, guess.verifier, guess.reply, "said", None))
        start = end + 1
    if not one.guesses:
        words += [
            Word(place, one.settled_by[place], token, "said", None)
            for place, token in enumerate(one.tokens)
        ]
    return words


def _steps(one: Round) -> Iterator[Step]:
    """The round's tokens; their places count from the round's own start."""
    words: Sequence[Word] = words_of(one)
    for place, token in enumerate(one.tokens):
        own = tuple(word for word in words if word.place == place)
        yield Step(place, token, one.settled_by[place], one, own)
