"""How the tiers guess for one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mspeckv.config.checks import check_choice, check_count, check_number, refuse

Gamma = int | Literal["auto"]

GUESSERS = ("draft", "lookup", "none")
MIDDLES = ("retrieval", "nibble")
DEFAULT_POLICY = "attention"
AUTO_GAMMA = 31
"""Longest guess that ``"auto"`` considers: with the verifier's own token, 32."""
AUTO_DRAFT_GAMMA = 6
"""Longest inner guess that ``"auto"`` considers."""


@dataclass(frozen=True)
class Speculation:
    """How the tiers guess for one another.

    Attributes:
        gamma: tokens proposed to tier 2 per round; ``"auto"`` chooses round by round what the
            measured costs and acceptance favour (`mspeckv.adaptive.lengths`), up to
            `AUTO_GAMMA`, which may be to leave out a tier, or not to guess at all. The
            distribution of the text stays the same; a sampled text depends on timing, since
            lengths decide which random numbers are used for what.
        draft_gamma: tokens tier 0 proposes to tier 1 per inner round, or ``"auto"``.
        budget: prompt tokens in tier 1's retrieval cache.
        chunk: tokens per retrieval chunk.
        refresh: generated tokens between two rebuilds of the retrieval cache; 0 keeps the
            first choice.
        recent: prompt tokens at its end that tier 1 always keeps (part of ``budget``).
        sinks: first tokens that tier 0 always sees (StreamingLLM, arXiv 2309.17453).
        window: recent tokens that tier 0 sees.
        tier1: what tier 1 reads: ``"retrieval"``, or ``"nibble"``, the whole context from the
            upper int4 planes of ``KVPolicy(nibble=True)``.
        retrieval: by what tier 1's chunks are chosen: a name of `mspeckv.retrieval`.
        tier0: who guesses first: ``"draft"``, the pair's draft where it has one; ``"lookup"``,
            what followed the last tokens when they stood in the text before; or ``"none"``.
        draft_vocab: tokens that the draft's head scores, the prompt's own first; 0 for all. What
            it cannot say it never proposes, so only acceptance is at stake.
        draft_threshold: a chain of draft guesses ends with a token that the draft held less
            likely than this; 0 never ends it early.

    Raises:
        ValueError: a field is out of range.
    """

    gamma: Gamma = 8
    draft_gamma: Gamma = 3
    budget: int = 256
    chunk: int = 8
    refresh: int = 8
    recent: int = 32
    sinks: int = 4
    window: int = 252
    tier1: str = "retrieval"
    tier0: str = "draft"
    draft_vocab: int = 0
    draft_threshold: float = 0.0
    retrieval: str = "attention"

    def __post_init__(self) -> None:
        for field in ("gamma", "draft_gamma"):
            value = getattr(self, field)
            if isinstance(value, str) and value != "auto":
                raise refuse(field, value, "use 'auto' or a whole number from 1 to 64")
            if value != "auto":
                check_count(field, value, 1, 64)
        check_count("chunk", self.chunk, 1, 1024)
        check_count("recent", self.recent, 0)
        check_count("budget", self.budget, 1)
        check_count("refresh", self.refresh, 0)
        check_count("sinks", self.sinks, 0, 1024)
        check_count("window", self.window, 8)
        check_choice("tier1", self.tier1, MIDDLES)
        check_choice("tier0", self.tier0, GUESSERS)
        check_count("draft_vocab", self.draft_vocab, 0)
        check_number("draft_threshold", self.draft_threshold, 0.0, 1.0)
        if not isinstance(self.retrieval, str):
            raise refuse("retrieval", self.retrieval, "use a policy's name")
        if self.tier1 != "retrieval" and self.retrieval != DEFAULT_POLICY:
            raise refuse("retrieval", self.retrieval, f"tier1={self.tier1!r} chooses no chunks")
        if self.budget < self.recent + 2 * self.chunk:
            raise refuse(
                "budget",
                self.budget,
                f"use at least recent + 2 * chunk = {self.recent + 2 * self.chunk} tokens",
            )

    @property
    def adaptive(self) -> bool:
        """Whether any length is left to be chosen round by round."""
        return "auto" in (self.gamma, self.draft_gamma)

    @property
    def longest_gamma(self) -> int:
        """Most tokens proposed to tier 2 in one round."""
        return AUTO_GAMMA if isinstance(self.gamma, str) else self.gamma

    @property
    def longest_draft_gamma(self) -> int:
        """Most tokens tier 0 proposes to tier 1 in one inner round."""
        return AUTO_DRAFT_GAMMA if isinstance(self.draft_gamma, str) else self.draft_gamma
