"""One run's settings, checked together."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Self, TypedDict, Unpack

from mspeckv.config.checks import check_count, check_flag, check_number, refuse
from mspeckv.config.link import Link
from mspeckv.config.policy import KVPolicy, Width
from mspeckv.config.sampling import Sampling
from mspeckv.config.speculation import Speculation

METHODS = ("autoregressive", "vanilla", "triforce", "mspeckv")


class Settings(TypedDict, total=False):
    """A run's settings as keyword arguments; what is left out, or None, has its default."""

    method: str
    new_tokens: int
    policy: KVPolicy | None
    speculation: Speculation | None
    sampling: Sampling | None
    link: Link | str | float | None
    device_gb: float | None
    graphs: bool


@dataclass(frozen=True)
class RunConfig:
    """One run's settings, checked together.

    Attributes:
        method: one of `METHODS`.
        new_tokens: tokens to produce at most.
        policy: tier 2's KV.
        speculation: the tiers below.
        sampling: how tokens are drawn.
        link: the emulated link on CPU.
        device_gb: device memory that a run may take, in 1e9 bytes; None for what is free.
        graphs: on CUDA, replay passes as graphs instead of launching every kernel; elsewhere
            without effect.

    Raises:
        ValueError: an unknown method, or settings that do not go together.
    """

    method: str = "mspeckv"
    new_tokens: int = 32
    policy: KVPolicy = field(default_factory=KVPolicy)
    speculation: Speculation = field(default_factory=Speculation)
    sampling: Sampling = field(default_factory=Sampling)
    link: Link = field(default_factory=Link)
    device_gb: float | None = None
    graphs: bool = True

    def __post_init__(self) -> None:
        check_flag("graphs", self.graphs)
        if self.device_gb is not None:
            check_number("device_gb", self.device_gb, 0.0, 1e5, open_low=True)
        if self.method not in METHODS:
            raise refuse("method", self.method, f"use one of {', '.join(METHODS)}")
        check_count("new_tokens", self.new_tokens, 1)
        if self.speculation.tier1 == "nibble" and not self.policy.nibble:
            raise refuse("tier1", "nibble", "it reads the planes of KVPolicy(nibble=True)")
        if self.method == "triforce" and not self.policy.lossless:
            raise refuse(
                "bits",
                self.policy.bits,
                "triforce keeps KV unquantized: use bits='full', or method='mspeckv'",
            )

    @classmethod
    def build(cls, **settings: Unpack[Settings]) -> Self:
        """Fill in defaults; the width defaults to 8 for ``mspeckv`` and to full for the rest."""
        given: dict[str, Any] = {k: v for k, v in settings.items() if v is not None}
        width = default_width(given.get("method", cls.method))
        given.setdefault("policy", KVPolicy(bits=width))
        given["link"] = Link.parse(given.get("link", Link()))
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, for JSON."""
        out: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            is_part = part.name in ("policy", "speculation", "sampling", "link")
            out[part.name] = (
                {f.name: getattr(value, f.name) for f in fields(value)} if is_part else value
            )
        return out


def default_width(method: str) -> Width:
    """8 for ``mspeckv``; ``"full"`` for the methods that do not quantize."""
    return 8 if method == "mspeckv" else "full"
