"""The four ablations as data: what is varied, what is fixed, what is compared.

A preset (`mspeckv.experiments.presets`) holds the fixed settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mspeckv.config import KVPolicy, RunConfig, check_count, default_width, refuse
from mspeckv.experiments.presets import CLASSROOM, ORIGIN, SHORT_LIST, Preset

Axis = Literal["prefill", "resident", "on_chip", "new_tokens"]


@dataclass(frozen=True)
class Variant:
    """One of the things compared.

    Attributes:
        method: as in `mspeckv.generate`.
        residency: who gets the ``resident`` places.
        whole: every layer on-chip, unquantized: the equal-memory control, which needs no link.
        adaptive: ``"auto"`` lengths and a short list for the draft's head, instead of the
            preset's lengths.
    """

    method: str
    residency: str = "static"
    whole: bool = False
    adaptive: bool = False

    def policy(self, preset: Preset) -> KVPolicy:
        """Tier 2's KV: widths are the methods' own."""
        bits = default_width(self.method)
        if self.whole:
            return KVPolicy(bits, on_chip=preset.layers)
        if bits == "full":
            return KVPolicy(bits, on_chip=preset.on_chip)
        resident = min(preset.resident, preset.layers - preset.on_chip)
        return KVPolicy(bits, preset.on_chip, resident, residency=self.residency)

    def config(self, preset: Preset) -> RunConfig:
        """The run, still with the preset's seed."""
        speculation = preset.speculation
        if self.adaptive:
            speculation = replace(
                speculation, gamma="auto", draft_gamma="auto", draft_vocab=SHORT_LIST,
                draft_threshold=0.0,
            )  # fmt: skip
        return RunConfig(
            self.method, preset.new_tokens, self.policy(preset), speculation,
            preset.sampling, preset.link,
        )  # fmt: skip


VARIANTS: dict[str, Variant] = {
    "autoregressive": Variant("autoregressive"),
    "vanilla": Variant("vanilla"),
    "triforce": Variant("triforce"),
    "mspeckv": Variant("mspeckv"),
    "mspeckv-lru": Variant("mspeckv", residency="lru"),
    "mspeckv-auto": Variant("mspeckv", adaptive=True),
    "control": Variant("autoregressive", whole=True),
}


@dataclass(frozen=True)
class Cell:
    """One value of the axis, one variant.

    Attributes:
        experiment: its experiment's id.
        preset: the settings, with the axis' value put in.
        axis: which setting is varied.
        value: to what.
        variant: a key of `VARIANTS`.
    """

    experiment: str
    preset: Preset
    axis: Axis
    value: int
    variant: str

    @property
    def key(self) -> str:
        """Such as ``A1/classroom/prefill=512/mspeckv``."""
        return f"{self.experiment}/{self.preset.name}/{self.axis}={self.value}/{self.variant}"

    @property
    def config(self) -> RunConfig:
        """The run, still with the preset's seed.

        Raises:
            ValueError: the value is not allowed.
        """
        return VARIANTS[self.variant].config(self.preset)


@dataclass(frozen=True)
class Trial:
    """A cell and a seed: what is run, and becomes one row."""

    cell: Cell
    seed: int

    @property
    def key(self) -> str:
        """Such as ``A1/classroom/prefill=512/mspeckv/seed=1``."""
        return f"{self.cell.key}/seed={self.seed}"

    @property
    def config(self) -> RunConfig:
        """The run.

        Raises:
            ValueError: the value or the seed is not allowed.
        """
        config = self.cell.config
        return replace(config, sampling=replace(config.sampling, seed=self.seed))


@dataclass(frozen=True)
class Experiment:
    """An ablation under one preset.

    Attributes:
        id: ``A1``, ``A2``, ``B1`` or ``B2``.
        title: a few words.
        question: what it asks.
        axis: the setting that is varied.
        values: to what.
        variants: what is compared.
        reference: the variant that speed-ups are over.
        preset: everything else.
    """

    id: str
    title: str
    question: str
    axis: Axis
    values: tuple[int, ...]
    variants: tuple[str, ...]
    reference: str
    preset: Preset

    def cells(
        self, values: Iterable[int] | None = None, variants: Iterable[str] | None = None
    ) -> list[Cell]:
        """Its cells, or those of other values and variants.

        Raises:
            ValueError: an unknown variant, or a value that is not allowed.
        """
        chosen = self.variants if variants is None else tuple(variants)
        for variant in chosen:
            if variant not in VARIANTS:
                raise refuse("variants", variant, f"use some of {', '.join(VARIANTS)}")
        out = []
        for value in self.values if values is None else values:
            placed = self.axis in ("resident", "on_chip")
            check_count(
                self.axis, value, 0 if placed else 1, self.preset.layers if placed else None
            )
            setting: dict[str, Any] = {self.axis: value}
            preset = replace(self.preset, **setting)
            out += [Cell(self.id, preset, self.axis, value, variant) for variant in chosen]
        return out


def _experiments(
    preset: Preset, values: dict[str, Sequence[int]], fixed: dict[str, int]
) -> list[Experiment]:
    """The four under ``preset``; ``fixed`` overrides its prefill by experiment."""

    def preset_of(name: str) -> Preset:
        return replace(preset, prefill=fixed.get(name, preset.prefill))

    over_triforce = ("triforce", "mspeckv", "mspeckv-lru", "control")
    return [
        Experiment(
            "A1",
            "Context length",
            "How does the speed-up grow with the context?",
            "prefill",
            tuple(values["A1"]),
            ("autoregressive", "vanilla", "triforce", "mspeckv", "mspeckv-auto", "control"),
            "autoregressive",
            preset_of("A1"),
        ),
        Experiment(
            "A2",
            "Resident layers",
            "What do quantized layers on the device add to quantization itself?",
            "resident",
            tuple(values["A2"]),
            over_triforce,
            "triforce",
            preset_of("A2"),
        ),
        Experiment(
            "B1",
            "On-chip layers",
            "How many layers must be unquantized on the device?",
            "on_chip",
            tuple(values["B1"]),
            over_triforce,
            "triforce",
            preset_of("B1"),
        ),
        Experiment(
            "B2",
            "Output length",
            "Does the speed-up last while the output grows?",
            "new_tokens",
            tuple(values["B2"]),
            ("triforce", "mspeckv", "control"),
            "triforce",
            preset_of("B2"),
        ),
    ]


EXPERIMENTS: dict[tuple[str, str], Experiment] = {
    (one.id, one.preset.name): one
    for one in [
        *_experiments(
            CLASSROOM,
            {
                "A1": (512, 1024, 1536, 2048),
                "A2": (0, 8, 15),
                # The published cliff lies between 12 and 16: 16 residents hold what 16 on-chip
                # layers of 32 leave, not what 12 leave. Here 15 hold what 15 of 30 leave.
                "B1": (4, 8, 12, 15, 17),
                "B2": (16, 32, 48, 64, 96, 128),
            },
            {"B2": 512},
        ),
        *_experiments(
            ORIGIN,
            {
                "A1": (8192, 16384, 24576, 32768),
                "A2": (0, 8, 16),
                "B1": (4, 8, 12, 16, 18),
                "B2": (256, 512, 768, 1024, 1536, 2048),
            },
            {"B2": 8192},
        ),
    ]
}
"""By id and preset."""
IDS = ("A1", "A2", "B1", "B2")
PRESETS = ("classroom", "origin")


def experiment(id: str, preset: str = "classroom") -> Experiment:  # noqa: A002  # its name
    """An experiment by id (in any case) and preset.

    Raises:
        ValueError: no such experiment or preset.
    """
    if preset not in PRESETS:
        raise refuse("preset", preset, f"use one of {', '.join(PRESETS)}")
    if id.upper() not in IDS:
        raise refuse("experiment", id, f"use one of {', '.join(IDS)}")
    return EXPERIMENTS[id.upper(), preset]
