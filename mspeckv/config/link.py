"""The path between host and device."""

from __future__ import annotations

from dataclasses import dataclass

from mspeckv.config.checks import check_number, refuse

LINK_PRESETS = ("off", "live", "origin")


@dataclass(frozen=True)
class Link:
    """The path between host and device.

    On CPU both ends are RAM: a copy thread really copies, then holds the buffer until
    ``bytes / bandwidth`` have passed, so copies overlap compute as they do on a GPU. Such a link
    is labelled *emulated*. On CUDA the link is the real PCIe bus and the setting is ignored.

    Attributes:
        preset: ``"off"`` (copies at RAM speed), ``"live"`` (a naive 32-token run stays under 20 s
            on two cores), ``"origin"`` (bandwidth scaled to this machine's measured step so that
            transfer : compute per layer equals the published machine's) or ``"custom"``.
        gbps: bandwidth in 1e9 bytes/s; only for ``"custom"``, required there.

    Raises:
        ValueError: an unknown preset, or a bandwidth where none belongs.
    """

    preset: str = "off"
    gbps: float | None = None

    def __post_init__(self) -> None:
        if self.preset not in (*LINK_PRESETS, "custom"):
            raise refuse(
                "link", self.preset, "use off, live, origin or a bandwidth in GB/s such as 0.05"
            )
        if self.preset == "custom":
            check_number("gbps", self.gbps, 0.0, 1e5, open_low=True)
        elif self.gbps is not None:
            raise refuse("gbps", self.gbps, f"preset {self.preset!r} sets its own bandwidth")

    @classmethod
    def parse(cls, text: str | float | Link) -> Link:
        """A link from ``"live"``, ``"0.05"``, ``0.05`` or another `Link`."""
        if isinstance(text, Link):
            return text
        if isinstance(text, str) and text in LINK_PRESETS:
            return cls(text)
        try:
            return cls("custom", float(text))
        except (TypeError, ValueError):
            raise refuse(
                "link", text, "use off, live, origin or a bandwidth in GB/s such as 0.05"
            ) from None
