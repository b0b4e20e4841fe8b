"""Guesses of a round as token chips: put, tested, sorted, and settled in the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mspeckv import Guess, Round
from mspeckv_widgets.panels.moving import sentences as say
from mspeckv_widgets.panels.moving.parts import FALL, STEP, TAIL, Kind, Slots, Span
from mspeckv_widgets.replay import Word, words_of

Early = tuple[Kind, float, float, int, int]
"""A `Move` whose beat has its number from `Draft`."""


@dataclass
class Draft:
    """Chips and beats as they are found; beats are numbered once all are known."""

    beats: list[tuple[float, str]] = field(default_factory=list)
    chips: list[tuple[Word, list[Early]]] = field(default_factory=list)
    slots: list[Slots] = field(default_factory=list)

    def beat(self, at: float, words: str) -> int:
        """A happening; returns its number for now."""
        self.beats.append((at, words))
        return len(self.beats) - 1

    def chip(self, word: Word, move: Early) -> int:
        """A chip that appears; returns its number."""
        self.chips.append((word, [move]))
        return len(self.chips) - 1


def tests_of(
    guesses: Sequence[Guess], passes: Sequence[tuple[int, float, float]], ms: float
) -> list[Span]:
    """From when to when each guess was tested: its verifier's next pass.

    A pass before a verifier's first test only catches up. Where passes were not recorded, tests are
    spread evenly over what is left of the round.
    """
    left = {tier: [(at, until) for who, at, until in passes if who == tier] for tier in range(3)}
    open_tests, floor = Counter(guess.verifier for guess in guesses), 0.0
    times: list[Span] = []
    for place, guess in enumerate(guesses):
        own = left[guess.verifier]
        extra = len(own) - open_tests[guess.verifier]
        open_tests[guess.verifier] -= 1
        if extra >= 0:
            begin, end = own[extra]
            del own[: extra + 1]
        else:
            end = floor + (ms - floor) / (len(guesses) - place)
            begin = (floor + end) / 2
        begin = max(begin, floor)
        floor = max(begin, end)
        times.append((begin, floor))
    return times


def _moments(ends: Sequence[float], count: int, floor: float, begin: float) -> list[float]:
    """When each of ``count`` tokens was guessed: as its pass ended.

    A guesser's first passes only catch up where it has more passes than tokens. Without passes, as
    in a lookup, tokens are there when the test begins.
    """
    if not ends:
        return [begin] * count
    if len(ends) >= count:
        found = list(ends[len(ends) - count :])
    else:
        found = [ends[place * len(ends) // count] for place in range(count)]
    return [min(max(at, floor), begin) for at in found]


def sort_guesses(
    one: Round,
    draft: Draft,
    passes: Sequence[tuple[int, float, float]],
    ms: float,
    name: Callable[[int], str],
) -> dict[int, int]:
    """Every guess is put, tested and sorted; returns the chips that stand, by place."""
    words, standing, floor = words_of(one), dict[int, int](), 0.0
    if not one.guesses:
        at = max((until for _, _, until in passes), default=ms)
        for word in words:
            beat = draft.beat(at, say.decodes(word.tier, name(word.token)))
            move: Early = ("said", at, at + STEP * ms, one.plan.path[-1], beat)
            standing[word.place] = draft.chip(word, move)
    for guess, (begin, end) in zip(one.guesses, tests_of(one.guesses, passes, ms), strict=True):
        put, said = words[: len(guess.tokens)], words[len(guess.tokens)]
        del words[: len(guess.tokens) + 1]
        fresh = [word for word in put if not _stands(draft, standing, word)]
        ends = [p[2] for p in passes if p[0] == guess.tier and floor <= p[2] <= begin]
        for word, at in zip(fresh, _moments(ends, len(fresh), floor, begin), strict=True):
            beat = draft.beat(at, say.guesses(word.tier, name(word.token)))
            appears: Early = ("guessed", at, at + STEP * ms, word.tier, beat)
            standing[word.place] = draft.chip(word, appears)
        draft.beat(begin, say.tests(guess))
        draft.slots.append(
            Slots(guess.verifier, said.place - guess.accepted, len(put) + 1, begin, end)
        )
        verdict = draft.beat(end, say.verdict(guess, name))
        for word in put:
            kept = word.fate == "kept"
            lane, share = (guess.verifier, STEP) if kept else (word.tier, FALL)
            _, moves = draft.chips[standing[word.place]]
            fate: Kind = word.fate
            moves.append((fate, end, end + share * ms, lane, verdict))
            if not kept:
                del standing[word.place]
        reply: Early = ("said", end, end + STEP * ms, guess.verifier, verdict)
        standing[said.place] = draft.chip(said, reply)
        floor = end
    return standing


def _stands(draft: Draft, standing: dict[int, int], word: Word) -> bool:
    """Whether a guess's token is there already, since a lower tier said it or handed it up."""
    number = standing.get(word.place)
    return number is not None and draft.chips[number][0].token == word.token


def settle(
    one: Round, draft: Draft, standing: dict[int, int], ms: float, name: Callable[[int], str]
) -> None:
    """The round's tokens join the text, one after the other, once they have come to rest."""
    rest = max([ms, *(draft.chips[n][1][-1][2] for n in standing.values())])
    room = ms * (1 + TAIL) - rest
    beat = draft.beat(ms, say.settles(one, name))
    late = 0.4 * room / max(len(one.tokens), 1)
    for place, number in sorted(standing.items()):
        _, moves = draft.chips[number]
        settles = place < len(one.tokens)
        at = rest + late * place if settles else rest
        kind: Kind = "settles" if settles else "unused"
        moves.append((kind, at, at + 0.6 * room, moves[-1][3], beat))
