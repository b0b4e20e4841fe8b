"""Settings of a run, as frozen dataclasses that check themselves.

Rules that need no model stand here, others in `mspeckv.decoding.fits`, so that Python, the command
line and the widgets refuse alike: a ``ValueError`` naming the field, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from math import inf
from numbers import Real
from typing import Any, Literal, Self, TypedDict, Unpack, cast


def refuse(field: str, value: object, allowed: str) -> ValueError:
    """The one form of a complaint about a setting."""
    shown = repr(value) if len(repr(value)) <= 300 else f"a {type(value).__name__}"
    return ValueError(f"{field}: {shown} is not allowed; {allowed}")


def check_count(field: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse ``value`` unless it is a whole number in ``[least, most]``."""
    top, allowed = inf, f"use a whole number of at least {least}"
    if most is not None:
        top, allowed = most, f"use a whole number from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= top:
        raise refuse(field, value, allowed)


def check_number(field: str, value: Any, least: float, most: float, open_low: bool = False) -> None:
    """Refuse ``value`` unless it is a number in ``[least, most]`` (``(least, most]``)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (least < value <= most if open_low else least <= value <= most):
        allowed = f"use a number {'above' if open_low else 'from'} {least:g} to {most:g}"
        raise refuse(field, value, allowed)


def check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse ``value`` unless it is one of ``choices``."""
    if value not in choices:
        raise refuse(field, value, f"use one of {', '.join(choices)}")


def check_name(field: str, value: object) -> None:
    """Refuse ``value`` unless it is a name; whether it is known is asked before a run."""
    if not isinstance(value, str) or not value:
        raise refuse(field, value, "use a name")


def check_kind(field: str, value: object, kind: Any, allowed: str = "") -> None:
    """Refuse ``value`` unless it is a ``kind``."""
    if not isinstance(value, kind):
        raise refuse(field, value, f"use {allowed or 'a ' + kind.__name__}")


def check_flag(field: str, value: object) -> None:
    """Refuse ``value`` unless it is True or False."""
    if not isinstance(value, bool):
        raise refuse(field, value, "use True or False")


def _setting(default: Any, check: Callable[..., None], *limits: Any, **more: Any) -> Any:
    """A field of a `_Checked` class, and the function that refuses what it may not be."""
    return field(default=default, metadata={"check": lambda *at: check(*at, *limits, **more)})


class _Checked:
    """A dataclass that checks its fields, first each by itself."""

    def __post_init__(self) -> None:
        for part in fields(self):  # type: ignore[arg-type]  # a dataclass, below
            if "check" in part.metadata:
                part.metadata["check"](part.name, getattr(self, part.name))


LINK_PRESETS = ("off", "live", "origin")
_ALLOWED_LINKS = "use off, live, origin or a bandwidth in GB/s such as 0.05"


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
            raise refuse("link", self.preset, _ALLOWED_LINKS)
        if self.preset == "custom":
            check_number("gbps", self.gbps, 1e-6, 1e5)
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
        except (TypeError, ValueError, OverflowError):
            raise refuse("link", text, _ALLOWED_LINKS) from None


Width = int | Literal["full"]
Placement = Literal["on-chip", "resident", "offloaded"]

WIDTHS: tuple[Width, ...] = (8, 4, 3, 2, "full")
RESIDENCIES = ("static", "lru")


def _check_eights(field: str, value: object, most: int) -> None:
    check_count(field, value, 8, most)
    if cast("int", value) % 8:
        raise refuse(field, value, "use a multiple of 8")


@dataclass(frozen=True)
class KVPolicy(_Checked):
    """How tier 2 keeps the target's full KV cache.

    Attributes:
        bits: width of stored KV: 8, 4, 3, 2 or ``"full"`` (compute dtype, unquantized).
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
        residency: ``"static"`` gives the ``resident`` places to fixed layers for the whole run;
            ``"lru"`` to the layers used last, which a decoder's cyclic scan defeats.
        ahead: offloaded layers that may be on their way at once. Two let one layer cross the link
            while another is computed; more let the link work on while lower tiers guess.
        codec: how a block becomes bytes: a name of `mspeckv.doors.codecs`. ``"kivi"`` is the
            engine's own; others pack all widths but ``"full"``.
        elsewhere: where layers lie that are neither on-chip nor resident: a name of
            `mspeckv.doors.placements`.

    Raises:
        ValueError: a field is out of range, or two do not go together.
    """

    bits: Width = 8
    on_chip: int = _setting(0, check_count, 0)
    resident: int = _setting(0, check_count, 0)
    block: int = _setting(64, _check_eights, 4096)
    group: int = _setting(64, _check_eights, 1024)
    tail: int = _setting(32, check_count, 0, 4096)
    k_bits: Width | None = None
    v_bits: Width | None = None
    nibble: bool = _setting(default=False, check=check_flag)
    residency: str = _setting("static", check_choice, RESIDENCIES)
    ahead: int = _setting(2, check_count, 2, 1024)
    codec: str = _setting("kivi", check_name)
    elsewhere: str = _setting("offloaded", check_name)

    def __post_init__(self) -> None:
        for name in ("bits", "k_bits", "v_bits"):
            width = getattr(self, name)
            if isinstance(width, Real) and not isinstance(width, int) and float(width).is_integer():
                # one that was read or computed, such as 8.0
                width = int(float(width))
                object.__setattr__(self, name, width)
            inherits = width is None and name != "bits"
            if not inherits and (isinstance(width, bool) or width not in WIDTHS):
                raise refuse(name, width, "use 8, 4, 3, 2 or 'full'")
        super().__post_init__()
        if self.codec != "kivi" and "full" in self.widths:
            raise refuse("codec", self.codec, "it packs 8, 4, 3 or 2 bits: 'full' has no codes")
        if self.nibble and self.widths != (8, 8):
            raise refuse("nibble", self.nibble, "its two int4 planes make int8: use bits=8")
        for name, own in (("codec", "kivi"), ("elsewhere", "offloaded"), ("residency", "static")):
            if self.nibble and getattr(self, name) != own:
                raise refuse(name, getattr(self, name), f"nibble planes want {name}={own!r}")

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
            allowed = f"the target has {layers} layers, so their sum is at most {layers}"
            raise refuse("on_chip + resident", self.on_chip + self.resident, allowed)

    def placement(self, layers: int) -> tuple[Placement, ...]:
        """Where each layer's KV lives: on-chip first, then resident, the rest offloaded.

        Under ``residency="lru"`` no layer has a place of its own on the device, so those that are
        not on-chip count as offloaded; `cached_layers` of them are also held on the device.
        """
        self.check_layers(layers)
        fixed = not self.lossless and self.residency == "static"
        on_device = self.on_chip + (self.resident if fixed else 0)
        return tuple(
            "on-chip" if layer < self.on_chip else "resident" if layer < on_device else "offloaded"
            for layer in range(layers)
        )

    @property
    def cached_layers(self) -> int:
        """Layers that an LRU cache on the device can hold."""
        return self.resident if self.residency == "lru" and not self.lossless else 0


LEAST_DIVISOR = 1e-6
"""Least temperature above 0 and least repetition penalty: divided by both, logits up to 1e26 stay
within float32, where infinity less infinity would be no number."""


@dataclass(frozen=True)
class Sampling(_Checked):
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

    temperature: float = _setting(0.6, check_number, 0.0, 100.0)
    top_p: float = _setting(0.9, check_number, 0.0, 1.0, open_low=True)
    seed: int = _setting(1, check_count, 0, 2**63 - 1)
    stop_at_eos: bool = _setting(default=True, check=check_flag)
    top_k: int = _setting(0, check_count, 0)
    min_p: float = _setting(0.0, check_number, 0.0, 1.0)
    repetition_penalty: float = _setting(1.0, check_number, LEAST_DIVISOR, 100.0)
    stop_tokens: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.temperature < LEAST_DIVISOR:
            raise refuse("temperature", self.temperature, f"use 0, or {LEAST_DIVISOR:g} to 100")
        for name, kind in (("stop_tokens", int), ("stop_strings", str)):
            given = getattr(self, name)
            if not isinstance(given, (tuple, list)) or not all(type(x) is kind for x in given):
                raise refuse(name, given, f"use a tuple of {kind.__name__}")
            # A list is forgiven; a frozen record keeps a tuple.
            object.__setattr__(self, name, tuple(given))
        if "" in self.stop_strings:
            raise refuse("stop_strings", "", "use strings of at least one character")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


Gamma = int | Literal["auto"]

DEFAULT_POLICY = "attention"
AUTO_GAMMA = 31
"""Longest guess that ``"auto"`` considers: with the verifier's own token, 32."""
AUTO_DRAFT_GAMMA = 6
"""Longest inner guess that ``"auto"`` considers."""


def _check_gamma(field: str, value: object) -> None:
    if isinstance(value, str) and value != "auto":
        raise refuse(field, value, "use 'auto' or a whole number from 1 to 64")
    if value != "auto":
        check_count(field, value, 1, 64)


@dataclass(frozen=True)
class Speculation(_Checked):
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
            upper int4 planes of ``KVPolicy(nibble=True)``; or another of
            `mspeckv.doors.tier1_caches`.
        retrieval: by what tier 1's chunks are chosen: a name of `mspeckv.retrieval`.
        tier0: who guesses first: ``"draft"``, the pair's draft where it has one; ``"lookup"``,
            what followed the last tokens when they stood in the text before; ``"none"``; or
            another of `mspeckv.doors.guessers`.
        draft_vocab: tokens that the draft's head scores, the prompt's own first; 0 for all. What
            it cannot say it never proposes, so only acceptance is at stake.
        draft_threshold: a chain of draft guesses ends with a token that the draft held less
            likely than this; 0 never ends it early.

    Raises:
        ValueError: a field is out of range.
    """

    gamma: int | Literal["auto"] = _setting(8, _check_gamma)
    draft_gamma: int | Literal["auto"] = _setting(3, _check_gamma)
    budget: int = _setting(256, check_count, 1)
    chunk: int = _setting(8, check_count, 1, 1024)
    refresh: int = _setting(8, check_count, 0)
    recent: int = _setting(32, check_count, 0)
    sinks: int = _setting(4, check_count, 0, 1024)
    window: int = _setting(252, check_count, 8)
    tier1: str = _setting("retrieval", check_name)
    tier0: str = _setting("draft", check_name)
    draft_vocab: int = _setting(0, check_count, 0)
    draft_threshold: float = _setting(0.0, check_number, 0.0, 1.0)
    retrieval: str = _setting(DEFAULT_POLICY, check_name)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tier1 == "nibble" and self.retrieval != DEFAULT_POLICY:
            raise refuse("retrieval", self.retrieval, f"tier1={self.tier1!r} chooses no chunks")
        least = self.recent + 2 * self.chunk
        if self.budget < least:
            raise refuse("budget", self.budget, f"use at least recent + 2 * chunk = {least} tokens")

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


_PARTS = {"policy": KVPolicy, "speculation": Speculation, "sampling": Sampling, "link": Link}
METHODS = ("autoregressive", "vanilla", "triforce", "mspeckv")
EXACTNESS = ("tokens", "bitwise")


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
    exact: str


@dataclass(frozen=True)
class RunConfig(_Checked):
    """One run's settings, checked together.

    Attributes:
        method: one of `METHODS`.
        new_tokens: tokens to produce at most.
        policy: tier 2's KV. `build` keeps it unpacked for methods that do not quantize.
        speculation: the tiers below.
        sampling: how tokens are drawn.
        link: the emulated link on CPU.
        device_gb: device memory that a run may take, in 1e9 bytes; None for what is free.
        graphs: on CUDA, replay passes as graphs instead of launching every kernel; elsewhere
            without effect.
        exact: what is the same as in plain decoding: ``"tokens"``, up to rounding; or
            ``"bitwise"``, every bit of tier 2's logits (`mspeckv.accelerate.bitwise`).

    Raises:
        ValueError: an unknown method, or settings that do not go together.
    """

    method: str = _setting("mspeckv", check_choice, METHODS)
    new_tokens: int = _setting(32, check_count, 1)
    policy: KVPolicy = field(default_factory=KVPolicy)
    speculation: Speculation = field(default_factory=Speculation)
    sampling: Sampling = field(default_factory=Sampling)
    link: Link = field(default_factory=Link)
    device_gb: float | None = None
    graphs: bool = _setting(default=True, check=check_flag)
    exact: str = _setting("tokens", check_choice, EXACTNESS)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in _PARTS.items():
            check_kind(name, getattr(self, name), kind)
        if self.device_gb is not None:
            check_number("device_gb", self.device_gb, 0.0, 1e5, open_low=True)
        if self.speculation.tier1 == "nibble" and not self.policy.nibble:
            raise refuse("tier1", "nibble", "it reads the planes of KVPolicy(nibble=True)")
        if self.method == "triforce" and not self.policy.lossless:
            allowed = "triforce keeps KV unquantized: use bits='full', or method='mspeckv'"
            raise refuse("bits", self.policy.bits, allowed)

    @classmethod
    def build(cls, **settings: Unpack[Settings]) -> Self:
        """Fill in defaults; the width defaults to 8 for ``mspeckv`` and to full for the rest."""
        for name in sorted(settings.keys() - Settings.__annotations__.keys()):
            homes = (f"{at}={of.__name__}" for at, of in _PARTS.items() if hasattr(of, name))
            ways = [f"{home}({name}=...)" for home in homes] or Settings.__annotations__
            raise refuse("setting", name, f"use {', '.join(ways)}")
        given: dict[str, Any] = {k: v for k, v in settings.items() if v is not None}
        given.setdefault("policy", KVPolicy(bits=default_width(given.get("method", cls.method))))
        given["link"] = Link.parse(given.get("link", Link()))
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, for JSON."""
        return asdict(self)


def default_width(method: str) -> Width:
    """8 for ``mspeckv``; ``"full"`` for the methods that do not quantize."""
    return 8 if method == "mspeckv" else "full"
