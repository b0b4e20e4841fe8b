"""What a judge asks, and how sure it is to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mspeckv.settings import Sampling, check_choice, check_count, check_kind, check_number, refuse

CHECKS = ("greedy", "promises", "sampled", "long")


@dataclass(frozen=True)
class Trial:
    """What is asked.

    Attributes:
        checks: of `CHECKS`.
        new_tokens: of a greedy or long text.
        sampling: of the sampled and the long texts.
        depth: tokens of a sampled text that are judged.
        short: prompt tokens of sampled texts.
        samples: most sampled texts.
        texts: long texts, of each engine.
        alpha: chance that an honest engine is called faulty by the sampled checks, at most; and by
            those of long texts.
        power: chance that a planted fault is to be caught with.
        minutes: that all of it may take; None for any.
    """

    checks: tuple[str, ...] = CHECKS
    new_tokens: int = 48
    sampling: Sampling = field(default_factory=lambda: Sampling(1.0, 1.0, stop_at_eos=False))
    depth: int = 2
    short: int = 32
    samples: int = 4000
    texts: int = 16
    alpha: float = 0.01
    power: float = 0.9
    minutes: float | None = None

    def __post_init__(self) -> None:
        check_kind("checks", self.checks, tuple | list, f"a tuple of {', '.join(CHECKS)}")
        check_kind("sampling", self.sampling, Sampling)
        for name in self.checks:
            check_choice("checks", name, CHECKS)
        for name, least in (("new_tokens", 2), ("short", 2), ("samples", 1), ("texts", 2)):
            check_count(name, getattr(self, name), least)
        check_count("depth", self.depth, 1, 8)
        check_number("alpha", self.alpha, 0.0, 0.5, open_low=True)
        check_number("power", self.power, 0.0, 1.0, open_low=True)
        if self.minutes is not None:
            check_number("minutes", self.minutes, 0.0, 1e6, open_low=True)
        if self.sampling.greedy:
            raise refuse("temperature", 0, "use one above 0: greedy text has a check of its own")

    def to_json(self) -> dict[str, Any]:
        """As a report names it."""
        drawn = self.sampling
        return {
            "checks": " ".join(self.checks), "temperature": drawn.temperature,
            "top_p": drawn.top_p, "alpha": self.alpha, "power": self.power,
            "samples": f"at most {self.samples}", "texts": self.texts,
            "new_tokens": self.new_tokens, "seed": drawn.seed,
        }  # fmt: skip
