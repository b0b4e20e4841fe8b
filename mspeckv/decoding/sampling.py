"""Distributions, draws, and the accept/reject test, all from one random generator."""

from __future__ import annotations

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from mspeckv.record import all_to_host, to_device, to_host
from mspeckv.settings import Sampling

_LOOKS = 64, 1024
"""Most likely tokens looked at on a CPU before the whole vocabulary is sorted for top-p."""


class Sampler:
    """Turns logits into the distribution tokens are drawn from; the same at every tier.

    ``processors`` of transformers stand instead of those that ``sampling`` asks for; each depends
    on nothing but the tokens before and the logits.
    """

    def __init__(self, sampling: Sampling, processors: LogitsProcessorList | None = None) -> None:
        self.sampling = sampling
        self._processors = context_processors(sampling) if processors is None else processors
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def distribution(self, logits: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        """Probabilities ``[n, V]`` of logits ``[n, V]``; one-hot rows when greedy.

        Logits that are not finite give NaN where a token would be drawn, so that drawing finds out;
        the row of a guess that came to nothing harms nobody.

        Args:
            logits: what a tier says after each of the last n of ``tokens``; -inf rules a token out.
            tokens: the sequence so far, guesses included.
        """
        if self._processors:
            # each row with the tokens that stand before it
            ids, first = to_device([tokens], logits.device), len(tokens) - len(logits) + 1
            logits = torch.cat([
                self._processors(ids[:, : first + place], row[None])
                for place, row in enumerate(_wide(logits))
            ])  # fmt: skip
        if self.sampling.greedy:
            best, place = logits.max(-1, keepdim=True)
            # the best alone has probability 1, or NaN where it is not finite
            return torch.zeros_like(logits).scatter_(-1, place, best.softmax(-1))
        if self._processors:
            return _wide(logits).softmax(-1)
        probs = (_wide(logits) / self.sampling.temperature).softmax(-1)
        return keep_nucleus(probs, self.sampling.top_p) if self.sampling.top_p < 1 else probs

    def draw(self, probs: torch.Tensor) -> int:
        """One token from a distribution ``[V]``, not necessarily normalised; see `check_finite`."""
        if not self.sampling.greedy:
            return self.pick(probs)
        mass, token = all_to_host(*probs.max(0))
        check_finite(mass)
        return int(token)

    def draw_held(self, probs: torch.Tensor, logits: torch.Tensor) -> tuple[int, float]:
        """One token from ``probs`` ``[V]``, and its probability by unwarped ``logits`` ``[V]``."""
        if not self.sampling.greedy:
            token = self.draw(probs)
            return token, float(to_host(logits.softmax(-1)[token]))
        best, place = probs.max(0, keepdim=True)
        mass, drawn, held = all_to_host(best, place, logits.softmax(-1).gather(0, place))
        check_finite(mass)
        return int(drawn), float(held)

    def verify(
        self, target: torch.Tensor, proposal: torch.Tensor, tokens: list[int]
    ) -> tuple[int, int]:
        """Accept a prefix of ``tokens`` and draw the token after it.

        Token i is kept with probability ``min(1, p_i / q_i)``. At the first rejection the next
        token comes from ``norm(max(0, p - q))``, and after none from the bonus row, which makes
        every emitted token distributed exactly as ``target`` (Leviathan et al., arXiv 2211.17192,
        appendix A.1; Chen et al., arXiv 2302.01318, theorem 1).

        Args:
            target: ``[k + 1, V]``, rows p_0 .. p_k.
            proposal: ``[k, V]``, rows q_0 .. q_{k-1}, that ``tokens`` were really drawn from.
            tokens: k proposed tokens.

        Returns:
            How many were accepted, and the token that follows them.
        """
        if tokens:
            index = to_device(tokens, target.device)[:, None]
            likely = proposal.gather(1, index).to(target.dtype)
            both = torch.stack([target[:-1].gather(1, index), likely])
            kept, guessed = to_host(both)[..., 0].tolist()
            for place, (p, q) in enumerate(zip(kept, guessed, strict=True)):
                if not self.accepts(p, q):
                    return place, self.draw(residual(target[place], proposal[place]))
        return len(tokens), self.draw(target[-1])

    def pick(self, probs: torch.Tensor) -> int:
        """A random token from a distribution ``[V]``, not necessarily normalised."""
        mass = probs.double().cumsum(0)
        # right=True steps over tokens of no mass, whose running sum equals the one before
        found = torch.searchsorted(mass, (self._uniform() * mass[-1])[None], right=True)
        token = int(to_host(found))
        if token < len(mass):
            return token
        # by rounding, or because every sum is NaN
        here = to_host(probs)
        check_finite(here)
        return int(here.nonzero()[-1])

    def accepts(self, p: float, q: float) -> bool:
        """True with probability ``min(1, p / q)``."""
        return self._uniform() * q < p

    def _uniform(self) -> float:
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))


def _wide(logits: torch.Tensor) -> torch.Tensor:
    """In float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


def check_finite(probs: torch.Tensor) -> None:
    """Raise a `FloatingPointError` for probabilities, on the host, that are no numbers."""
    if not bool(probs.isfinite().all()):
        raise FloatingPointError(
            "the logits are not finite (NaN, +inf, or -inf for every token); look at the model's "
            "weights and dtype, and at logits processors"
        )


def context_processors(sampling: Sampling) -> LogitsProcessorList:
    """Transformers' own for ``sampling``; none for temperature and top-p, done faster here."""
    chosen = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chosen.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.greedy or not (chosen or sampling.top_k or sampling.min_p):
        return chosen
    if sampling.temperature != 1:
        chosen.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        chosen.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chosen.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        chosen.append(MinPLogitsWarper(sampling.min_p))
    return chosen


def residual(target: torch.Tensor, proposal: torch.Tensor) -> torch.Tensor:
    """``max(0, p - q)``, up to normalisation; p itself where rounding left nothing of it."""
    left = (target - proposal).clamp_min_(0)
    return torch.where(left.sum() > 0, left, target)


def keep_nucleus(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Of each row of ``[n, V]``, the most likely tokens up to a mass of ``top_p``, renormalised.

    Tokens as likely as the last one kept are kept too, so the result depends on the probabilities
    alone and not on how ties were sorted.
    """
    # a GPU sorts in less time than it takes to look
    for count in () if probs.is_cuda else _LOOKS:
        found = probs.topk(min(count, probs.shape[-1]), dim=-1)
        least, reached = _least_kept(found.values, top_p)
        # a last token as likely as the last one looked at may have its like among the others
        if bool((reached & (least > found.values[:, -1:])).all()):
            kept = found.values * (found.values >= least)
            shares = kept / kept.sum(-1, keepdim=True)
            return torch.zeros_like(probs).scatter_(-1, found.indices, shares)
    least, _ = _least_kept(probs.sort(-1, descending=True).values, top_p)
    kept = probs * (probs >= least)
    return kept / kept.sum(-1, keepdim=True)


def _least_kept(ranked: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Of falling ``ranked`` ``[n, k]``, the one ``[n, 1]`` that brings the mass to ``top_p``.

    And whether one does; else it is the last.
    """
    mass = ranked.cumsum(-1)
    last = (mass < top_p).sum(-1, keepdim=True).clamp_max_(ranked.shape[-1] - 1)
    return ranked.gather(-1, last), mass[:, -1:] >= top_p
