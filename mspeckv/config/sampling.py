"""How tokens are drawn, and when a run ends."""

from __future__ import annotations

from dataclasses import dataclass

from mspeckv.config.checks import check_count, check_flag, check_number, refuse

LEAST_DIVISOR = 1e-6
"""Least temperature above 0 and least repetition penalty: divided by both, logits up to 1e26 stay
within float32, where infinity less infinity would be no number."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; applied alike at every tier, in the order of transformers.

    Attributes:
        temperature: 0 for greedy, else the softmax temperature, from 1e-6 to 100; logits of half
            precision are widened to float32 before they are divided by it.
        top_p: smallest set of tokens with at least this mass is kept (nucleus sampling).
        seed: seed of the run's one random generator.
        stop_at_eos: end after the tokenizer's end-of-sequence token.
        top_k: this many most likely tokens are kept; 0 keeps all.
        min_p: tokens with less than this share of the likeliest token's probability are dropped.
        repetition_penalty: divides positive and multiplies negative logits of tokens that prompt
            or output already hold (CTRL, arXiv 1909.05858, section 4.1), from 1e-6 to 100; 1 leaves
            them alone.
        stop_tokens: token ids that end the run, like the end of sequence.
        stop_strings: the run ends with the token that completes the first of these; the text is
            cut right after the string, the tokens keep that last one whole.

    Raises:
        ValueError: a field is out of range.
    """

    temperature: float = 0.6
    top_p: float = 0.9
    seed: int = 1
    stop_at_eos: bool = True
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop_tokens: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 0.0, 100.0)
        if 0 < self.temperature < LEAST_DIVISOR:
            raise refuse("temperature", self.temperature, f"use 0, or {LEAST_DIVISOR:g} to 100")
        check_number("top_p", self.top_p, 0.0, 1.0, open_low=True)
        check_count("seed", self.seed, 0, 2**63 - 1)
        check_flag("stop_at_eos", self.stop_at_eos)
        check_count("top_k", self.top_k, 0)
        check_number("min_p", self.min_p, 0.0, 1.0)
        check_number("repetition_penalty", self.repetition_penalty, LEAST_DIVISOR, 100.0)
        for field, kind in (("stop_tokens", int), ("stop_strings", str)):
            given = getattr(self, field)
            if not isinstance(given, (tuple, list)) or not all(type(x) is kind for x in given):
                raise refuse(field, given, f"use a tuple of {kind.__name__}")
            # A list is forgiven; a frozen record keeps a tuple.
            object.__setattr__(self, field, tuple(given))
        if "" in self.stop_strings:
            raise refuse("stop_strings", "", "use strings of at least one character")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0
