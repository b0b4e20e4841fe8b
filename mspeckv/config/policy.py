"""How tier 2 keeps the target's full KV cache."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Literal

from mspeckv.config.checks import check_choice, check_count, check_flag, refuse

Width = int | Literal["full"]
Placement = Literal["on-chip", "resident", "offloaded"]

WIDTHS: tuple[Width, ...] = (8, 4, 2, "full")
RESIDENT_FORMATS = ("packed", "float")
RESIDENCIES = ("static", "lru")


@dataclass(frozen=True)
class KVPolicy:
    """How tier 2 keeps the target's full KV cache.

    Attributes:
        bits: width of stored KV: 8, 4, 2 or ``"full"`` (compute dtype, unquantized).
        on_chip: layers kept unquantized on the device.
        resident: layers kept *quantized* on the device. At width ``"full"`` there is nothing
            quantized to keep, so these layers are offloaded like the rest: see `placement`.
        block: tokens per quantization block, at fixed absolute positions. One K scale per channel
            and block (KIVI, arXiv 2402.02750).
        group: channels that share one V scale within a token; a head dim that it does not divide
            uses its largest divisor under it.
        tail: newest tokens that stay unquantized on the device: a block is packed once this many
            settled tokens follow it (the residual of KIVI, section 3.2).
        k_bits: width of keys alone; None follows ``bits``.
        v_bits: width of values alone; None follows ``bits``.
        nibble: store int8 as two int4 planes (idea: QuantSpec, arXiv 2502.10424). The upper plane
            of offloaded layers stays on the device, only the lower one crosses the link.
        resident_format: ``"packed"`` keeps a resident layer's codes; ``"float"`` the same values
            unpacked: more memory, and no unpacking where a pass cannot read codes themselves.
        residency: ``"static"`` gives the ``resident`` places to fixed layers for the whole run;
            ``"lru"`` to the layers used last, which a decoder's cyclic scan defeats.
        ahead: offloaded layers whose blocks may be on the device at once. Two let one layer cross
            the link while another is computed; more let the link work on while lower tiers guess.

    Raises:
        ValueError: a field is out of range, or two do not go together.
    """

    bits: Width = 8
    on_chip: int = 0
    resident: int = 0
    block: int = 64
    group: int = 64
    tail: int = 32
    k_bits: Width | None = None
    v_bits: Width | None = None
    nibble: bool = False
    resident_format: str = "packed"
    residency: str = "static"
    ahead: int = 2

    def __post_init__(self) -> None:
        for field in ("bits", "k_bits", "v_bits"):
            width = getattr(self, field)
            if isinstance(width, Real) and not isinstance(width, int) and float(width).is_integer():
                # one that was read or computed, such as 8.0
                width = int(float(width))
                object.__setattr__(self, field, width)
            inherits = width is None and field != "bits"
            if not inherits and (isinstance(width, bool) or width not in WIDTHS):
                raise refuse(field, width, "use 8, 4, 2 or 'full'")
        check_count("on_chip", self.on_chip, 0)
        check_count("resident", self.resident, 0)
        check_count("block", self.block, 8, 4096)
        check_count("group", self.group, 8, 1024)
        check_count("tail", self.tail, 0, 4096)
        check_count("ahead", self.ahead, 2, 1024)
        for field in ("block", "group"):
            if getattr(self, field) % 8:
                raise refuse(field, getattr(self, field), "use a multiple of 8")
        check_choice("resident_format", self.resident_format, RESIDENT_FORMATS)
        check_choice("residency", self.residency, RESIDENCIES)
        check_flag("nibble", self.nibble)
        if self.nibble and self.widths != (8, 8):
            raise refuse("nibble", self.nibble, "its two int4 planes make int8: use bits=8")
        if self.residency == "lru":
            for field, usual in (("nibble", False), ("resident_format", "packed")):
                if getattr(self, field) != usual:
                    raise refuse(field, getattr(self, field), "use residency='static' with it")

    @property
    def widths(self) -> tuple[Width, Width]:
        """Widths of keys and of values."""
        return self.k_bits or self.bits, self.v_bits or self.bits

    @property
    def lossless(self) -> bool:
        """Whether stored KV is what was computed, bit for bit."""
        return self.widths == ("full", "full")

    def check_layers(self, layers: int) -> None:
        """Refuse a policy that places more layers than the target has.

        Raises:
            ValueError: ``on_chip + resident`` is more than ``layers``.
        """
        if self.on_chip + self.resident > layers:
            raise refuse(
                "on_chip + resident",
                self.on_chip + self.resident,
                f"the target has {layers} layers, so their sum is at most {layers}",
            )

    def placement(self, layers: int) -> tuple[Placement, ...]:
        """Where each layer's KV lives: on-chip first, then resident, the rest offloaded.

        Under ``residency="lru"`` no layer has a place of its own on the device, so those that are
        not on-chip count as offloaded; `cached_layers` of them are also held on the device.
        """
        self.check_layers(layers)
        fixed = not self.lossless and self.residency == "static"
        resident = self.resident if fixed else 0
        offloaded = layers - self.on_chip - resident
        kinds: tuple[tuple[Placement, int], ...] = (
            ("on-chip", self.on_chip),
            ("resident", resident),
            ("offloaded", offloaded),
        )
        return tuple(kind for kind, count in kinds for _ in range(count))

    @property
    def cached_layers(self) -> int:
        """Layers that an LRU cache on the device can hold."""
        return self.resident if self.residency == "lru" and not self.lossless else 0
