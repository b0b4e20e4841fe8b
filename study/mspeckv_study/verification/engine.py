"""What is judged: anything that continues a prompt, and what it may tell beside the tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mspeckv.settings import Sampling, refuse


class NotOffered(Exception):
    """The engine has no such setting, so there is nothing to judge."""


@dataclass(frozen=True)
class Said:
    """A continuation.

    Attributes:
        tokens: what came after the prompt; ids, or any whole numbers that stand for pieces of text.
        rounds: tokens of each round, where the engine tells: all but the last of a round were
            guesses that were kept.
        logprobs: natural logarithms of the tokens' probabilities before temperature and cuts.
    """

    tokens: tuple[int, ...]
    rounds: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    def kept(self, place: int) -> bool | None:
        """Whether the token at ``place`` was a guess that was kept; None where that is not told."""
        end = 0
        for count in self.rounds:
            end += count
            if place < end:
                return place < end - 1
        return None


class Engine:
    """An engine; one of your own derives from this, or is a function for `Function`.

    Attributes:
        name: what it is called in reports.
        setting: what else its answers depend on; those that are kept go by both.
        tokenizer: turns its tokens into text, where stop strings are to be judged.
        dtype: that it computes in; a near-tie is judged by its rounding.
        ignores_unknown: it answers as ever when asked for a setting that it does not have.
    """

    name: str
    setting: str = ""
    tokenizer: Any = None
    dtype: torch.dtype = torch.float32
    ignores_unknown: bool = False

    def greet(self) -> None:
        """Find out, before any work, whether it can be asked; ``ValueError`` if not."""

    def say(self, prompt: list[int], sampling: Sampling, n: int, logprobs: bool = False) -> Said:
        """Continue ``prompt`` by at most ``n`` tokens, with ``logprobs`` if asked.

        Raises:
            NotOffered: it has no such setting.
        """
        raise NotImplementedError

    def rows(self, prompt: list[int], sampling: Sampling, n: int, count: int) -> list[Said]:
        """The same prompt ``count`` times in one batch.

        Raises:
            NotOffered: it takes no batches.
        """
        raise NotOffered

    def logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor | None:
        """``[V]``: plain decoding's own after ``prompt`` and ``text``; None where it has none."""
        return None

    def draft_logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor | None:
        """``[V]``: those of who guesses; None where nobody does or nobody can be asked."""
        return None


class Function(Engine):
    """An engine that is a function.

    Args:
        function: takes prompt ids, a `Sampling` and the most tokens; returns token ids or a `Said`.
            Its attributes ``logits`` and ``draft_logits``, if any, are functions as `Engine`'s.
    """

    def __init__(self, function: Callable[[list[int], Sampling, int], Any], name: str) -> None:
        self.function, self.name = function, name

    def say(self, prompt: list[int], sampling: Sampling, n: int, logprobs: bool = False) -> Said:
        """As of `Engine`.

        Raises:
            ValueError: it failed, or what came back are no tokens, or too many.
        """
        try:
            gave = self.function(list(prompt), sampling, n)
        except NotOffered:
            raise
        except Exception as error:  # a stranger's function may raise anything
            raise ValueError(f"{self.name}: it raised {type(error).__name__}: {error}") from error
        try:
            said = gave if isinstance(gave, Said) else Said(tuple(int(token) for token in gave))
        except (TypeError, ValueError):
            raise refuse(self.name, gave, f"return a list of at most {n} token ids") from None
        if len(said.tokens) > n:
            raise refuse(self.name, f"{len(said.tokens)} tokens", f"return at most {n}")
        return said

    def logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor | None:
        """As of `Engine`."""
        return self._asked("logits", prompt, text)

    def draft_logits(self, prompt: list[int], text: Sequence[int]) -> torch.Tensor | None:
        """As of `Engine`."""
        return self._asked("draft_logits", prompt, text)

    def _asked(self, what: str, prompt: list[int], text: Sequence[int]) -> torch.Tensor | None:
        found = getattr(self.function, what, None)
        return None if found is None else torch.as_tensor(found(list(prompt), list(text)))
