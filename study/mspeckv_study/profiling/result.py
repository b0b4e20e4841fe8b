"""A profile: tables by tier and step, operators, memory, exports."""

from __future__ import annotations

import csv
import gzip
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from mspeckv.events import Round, RunSummary
from mspeckv.settings import refuse
from mspeckv_study.profiling.spans import Span, tier_totals
from mspeckv_study.text_table import aligned

REST = "not attributed"
RANGES = "profiler"
"""Entering and leaving ranges, which only a profile does."""
TRACE = "trace.json"


@dataclass(frozen=True)
class StepRow:
    """What one kind of work took over all profiled rounds.

    Attributes:
        tier: 0, 1, 2; None for what lies between passes.
        step: a range's name, `RANGES` or `REST`.
        calls: how often it was entered.
        total_ms: from entering to leaving (measured).
        self_ms: without the ranges inside it; these add up to the wall time.
        share: ``self_ms`` of the wall time.
        device_ms: on a GPU, from the first to the last kernel of each range (measured); else 0.
        gflop: 1e9 floating-point operations, as far as the profiler counts them.
        bytes: for a pass, weights and KV that it read; for ``kv/fetch`` and ``kv/flush``, what
            crossed the link, from the ledger (counted).
        gbps: ``bytes`` per second, in 1e9: of a pass's time, or of the time the link was busy.
    """

    tier: int | None
    step: str
    calls: int
    total_ms: float
    self_ms: float
    share: float
    device_ms: float = 0.0
    gflop: float = 0.0
    bytes: int = 0
    gbps: float = 0.0


_COLUMNS: tuple[tuple[str, int, Callable[[StepRow], str]], ...] = (
    ("tier", 5, lambda row: "" if row.tier is None else str(row.tier)),
    ("step", 20, lambda row: row.step),
    ("calls", 6, lambda row: str(row.calls)),
    ("total ms", 10, lambda row: f"{row.total_ms:.1f}"),
    ("self ms", 10, lambda row: f"{row.self_ms:.1f}"),
    ("share", 8, lambda row: f"{row.share:.1%}"),
    ("device ms", 11, lambda row: f"{row.device_ms:.1f}"),
    ("GFLOP", 8, lambda row: f"{row.gflop:.2f}"),
    ("MB", 9, lambda row: f"{row.bytes / 1e6:.1f}"),
    ("GB/s", 7, lambda row: f"{row.gbps:.2f}"),
)
"""Of `Profile.table`: head, least width, and what stands there of a row."""


@dataclass(frozen=True)
class OpRow:
    """One operator within a tier.

    Attributes:
        tier: 0, 1, 2; None between passes.
        op: such as ``aten::mm``.
        self_ms: on the host, without operators inside it.
        device_ms: on the GPU; 0 on a CPU.
    """

    tier: int | None
    op: str
    calls: int
    self_ms: float
    device_ms: float


@dataclass(frozen=True)
class Bar:
    """Something that took a while on one lane of a round's timeline.

    Attributes:
        lane: ``compute`` or ``link``.
        name: a range's name, or a transfer's purpose and layer.
        start_ms: since the round began.
        ms: how long.
        depth: bars of the same lane that it lies in.
        tier: whose work; see `Span`.
        bytes: over the link.
    """

    lane: Literal["compute", "link"]
    name: str
    start_ms: float
    ms: float
    depth: int
    tier: int | None
    bytes: int = 0


@dataclass(frozen=True)
class Profile:
    """What `mspeckv.profile` found; every time is measured.

    Attributes:
        spans: the engine's named ranges, in order.
        range_us: microseconds that entering and leaving a range takes outside of its own time,
            measured on empty ranges under the same profiler.
        rounds: those that were profiled.
        summary: of the whole run.
        wall_ms: from the first profiled round's start to the last one's end, by the host's clock.
        overhead: profiled time per token over unprofiled, less 1; None where not measured.
        memory: (milliseconds since the first round, bytes allocated since then).
        gflop: 1e9 floating-point operations by tier and step.
        weights: bytes of weights that a pass of the draft, and one of the target, reads.
        trace_folder: holds the exported trace, since torch exports one only once; it goes with
            the profile.
    """

    spans: tuple[Span, ...]
    range_us: float
    rounds: tuple[Round, ...]
    summary: RunSummary
    wall_ms: float
    overhead: float | None
    ops: tuple[OpRow, ...]
    memory: tuple[tuple[float, int], ...]
    gflop: dict[tuple[int | None, str], float]
    weights: tuple[int, int]
    trace_folder: TemporaryDirectory[str]

    @property
    def rows(self) -> tuple[StepRow, ...]:
        """One row per tier and step, then what no range covers; ``self_ms`` sums to the wall.

        What no range covers is in part the profiler's own: its row is the number of ranges times
        what an empty one was measured to take.
        """
        groups: dict[tuple[int | None, str], list[Span]] = defaultdict(list)
        for span in self.spans:
            if span.name != "round":
                groups[span.tier, span.name].append(span)
        rows = [self._row(*key, spans) for key, spans in groups.items()]
        rows.sort(key=lambda row: (3 if row.tier is None else row.tier, row.step))
        rest = self.wall_ms - sum(row.self_ms for row in rows)
        # of a range within another, entering and leaving are in the other's own time
        outer = sum(span.depth <= 1 for span in self.spans)
        ranges = min(outer * self.range_us / 1e3, max(rest, 0.0))
        for step, calls, ms in ((RANGES, outer, ranges), (REST, len(self.rounds), rest - ranges)):
            rows.append(StepRow(None, step, calls, ms, ms, ms / self.wall_ms))
        return tuple(rows)

    def _row(self, tier: int | None, step: str, spans: Sequence[Span]) -> StepRow:
        total = sum(span.total_us for span in spans) / 1e3
        own = sum(span.self_us for span in spans) / 1e3
        size, busy = self._bytes(tier, step, total)
        return StepRow(
            tier, step, len(spans), total, own, own / self.wall_ms,
            sum(span.device_us for span in spans) / 1e3, self.gflop.get((tier, step), 0.0),
            size, size / busy / 1e6 if busy else 0.0,
        )  # fmt: skip

    def _bytes(self, tier: int | None, step: str, total_ms: float) -> tuple[int, float]:
        """Bytes of a step, and the milliseconds in which they moved."""
        if step.startswith("tier"):
            passes = [p for one in self.rounds for p in one.passes if p.tier == tier]
            weights = self.weights[0 if tier == 0 else 1]
            return sum(weights + p.kv_bytes for p in passes if p.step == step[6:]), total_ms
        moved = [
            t for one in self.rounds for t in one.transfers
            if (step == "kv/fetch" and t.direction == "to_device")
            or (step == "kv/flush" and t.purpose == "flush")
        ]  # fmt: skip
        return sum(t.bytes for t in moved), sum(t.ms for t in moved)

    @property
    def tier_ms(self) -> dict[int, float]:
        """Milliseconds in each tier's passes, by the profiler, a GPU's own work included."""
        return tier_totals(self.spans)

    @property
    def bottleneck(self) -> StepRow:
        """The step with most time of its own."""
        return max(self.rows, key=lambda row: row.self_ms)

    def timeline(self, index: int) -> tuple[Bar, ...]:
        """One profiled round: what the host computed, and what crossed the link meanwhile.

        Raises:
            ValueError: no such round.
        """
        if not 0 <= index < len(self.rounds):
            raise refuse("round", index, f"rounds 0 to {len(self.rounds) - 1} were profiled")
        one = self.rounds[index]
        begun = [span for span in self.spans if span.name == "round"][index]
        inside = [s for s in self.spans if begun.start <= s.start < begun.end and s is not begun]
        compute = [
            Bar("compute", s.name, (s.start - begun.start) / 1e3, s.total_us / 1e3,
                s.depth - 1, s.tier)
            for s in inside
        ]  # fmt: skip
        # The ledger and the profiler have clocks of their own; both saw this round begin.
        link = [
            Bar("link", f"{t.purpose}, layer {t.layer}", (t.start - one.start) * 1e3, t.ms, 0,
                t.tier, t.bytes)
            for t in one.transfers
        ]  # fmt: skip
        return (*compute, *link)

    def table(self) -> str:
        """The rows as aligned text, and what profiling itself cost."""
        rows = self.rows
        on_device = any(row.device_ms for row in rows)
        shown = [one for one in _COLUMNS if on_device or one[0] != "device ms"]
        cells = [[text(row) for _, _, text in shown] for row in rows]
        lines = aligned(
            [[head for head, _, _ in shown], *cells],
            left=range(2), gap="", least=[width for _, width, _ in shown],
        )  # fmt: skip
        tokens = sum(len(one.tokens) for one in self.rounds)
        lines.append(
            f"{len(self.rounds)} rounds, {tokens} tokens, {self.wall_ms:.0f} ms (measured); "
            "bytes are counted"
        )
        if self.overhead is not None:
            lines.append(
                f"profiling changed the time of a token by {self.overhead:+.0%} (measured)"
            )
        return "\n".join(lines)

    def export_trace(self, path: str | Path) -> Path:
        """Write a Chrome trace, which Perfetto opens, compressed if its name ends in ``.gz``."""
        where = Path(path)
        where.parent.mkdir(parents=True, exist_ok=True)
        taken = Path(self.trace_folder.name) / TRACE
        if where.suffix == ".gz":
            with taken.open("rb") as source, gzip.open(where, "wb", 3) as sink:
                shutil.copyfileobj(source, sink)
        else:
            shutil.copyfile(taken, where)
        return where

    def export_tensorboard(self, folder: str | Path) -> Path:
        """Write a folder for TensorBoard with torch-tb-profiler (extra ``profile``)."""
        where = Path(folder)
        # the name that torch's own handler for TensorBoard gives: worker, time, ending
        self.export_trace(where / f"mspeckv.{time.time_ns()}.pt.trace.json")
        return where

    def export_csv(self, path: str | Path) -> Path:
        """Write the rows as CSV; returns its path."""
        where = Path(path)
        where.parent.mkdir(parents=True, exist_ok=True)
        with where.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(StepRow)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in self.rows)
        return where
