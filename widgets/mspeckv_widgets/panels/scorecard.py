"""The score card of a run, and the table that compares the last runs."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from mspeckv import Plan, TierCount
from mspeckv_widgets.charts.table import readable_bytes, table_html
from mspeckv_widgets.charts.theme import PURPOSES, TIERS, known
from mspeckv_widgets.charts.words import explained
from mspeckv_widgets.compared import link_bytes, names_of, split_of
from mspeckv_widgets.record import RunRecord


@dataclass(frozen=True)
class Score:
    """One line of the card.

    Attributes:
        source: ``measured`` (a clock), ``counted`` (tokens and bytes), ``emulated`` (a clock that
            the throttled link slowed) or ``modelled`` (sizes known before the run).
        better: ``lower``, ``higher`` or empty where neither is better in itself.
    """

    name: str
    value: str
    unit: str
    source: str
    better: str = ""


def kv_read_per_token(record: RunRecord, tier: int) -> float:
    """Bytes of KV that ``tier``'s attention read in decode, per settled token."""
    read = sum(p.kv_bytes for one in record.rounds for p in one.passes if p.tier == tier)
    return read / max(1, len(record.tokens))


def _bytes_score(name: str, count: float, per: str, source: str, better: str) -> Score:
    value, unit = readable_bytes(count)
    return Score(name, value, unit + per, source, better)


def _tier_score(count: TierCount) -> Score | None:
    rate = count.acceptance_rate
    if rate is None:
        return None
    return Score(
        f"Kept of {TIERS[count.tier].name}'s guesses", f"{100 * rate:.0f}", "%", "counted",
        "higher",
    )  # fmt: skip


def scores(record: RunRecord) -> list[Score]:
    """The lines of a finished run's card; none before its summary is there."""
    summary = record.summary
    if summary is None:
        return []
    clock = "emulated" if record.waits_are_emulated else "measured"
    lines = [
        Score("Time per token", f"{summary.ms_per_token:.1f}", "ms", clock, "lower"),
        Score("Speed", f"{summary.tokens_per_second:.2f}", "tokens/s", clock, "higher"),
        Score(_prefill_name(record), f"{summary.prefill_seconds:.2f}", "s", clock, "lower"),
        Score("Kept per round", f"{summary.accepted_per_round:.2f}", "tokens", "counted", "higher"),
    ]
    if record.setting.config.speculation.adaptive:
        gamma = mean(one.plan.gamma for one in record.rounds) if record.rounds else 0.0
        lines.append(Score("Gamma chosen, mean", f"{gamma:.1f}", "tokens", "counted", ""))
    lines += [line for count in summary.tiers if (line := _tier_score(count))]
    lines.append(
        _bytes_score("KV over the link", link_bytes(record), " per token", "counted", "lower")
    )
    for count in summary.tiers:
        name = f"KV read by {TIERS[count.tier].name}"
        read = kv_read_per_token(record, count.tier)
        lines.append(_bytes_score(name, read, " per token", "counted", "lower"))
    memory = summary.memory
    for name, size, better in (
        ("KV on the device", memory.kv_device_bytes, "lower"),
        ("of it on-chip layers", memory.on_chip_bytes, ""),
        ("of it resident layers", memory.resident_bytes, ""),
        ("KV on the host", memory.offloaded_bytes, ""),
        ("Device memory, weights included", memory.peak_device_bytes, ""),
    ):
        if size is not None:
            lines.append(_bytes_score(name, size, "", "modelled", better))
    return lines


def _prefill_name(record: RunRecord) -> str:
    """A prompt that was kept is placed, not read: two different times."""
    read = record.prefill is None or any(one.tier == 2 for one in record.prefill.passes)
    return "Prefill" if read else "Prefill, placing a kept prompt"


def card_html(record: RunRecord | None) -> str:
    """The score card as a table."""
    lines = scores(record) if record else []
    if record is None or not lines:
        return '<em class="mskv-small">The score card comes with the end of a run.</em>'
    end = "stopped early" if record.summary and record.summary.cancelled else "finished"
    rows = "".join(
        f'<tr><td>{html.escape(line.name)}</td><td class="num"><b>{line.value}</b> '
        f'{html.escape(line.unit)}</td><td class="mskv-small">{explained(line.source)}'
        f"{f', {line.better} is better' if line.better else ''}</td></tr>"
        for line in lines
    )
    return (
        f'<table class="mskv-table mskv-card"><caption>{html.escape(record.label)}: {end} after '
        f"{len(record.tokens)} tokens, prompt of {record.setting.prefill}</caption>"
        f"<tbody>{rows}</tbody></table>"
    )


def comparison_html(records: Sequence[RunRecord]) -> str:
    """The last runs, one a row, newest first, named by what differs among them."""
    heads = (
        "run", "link", "tokens", "ms/token", "of it wait", "kept/round", "link KB/token",
        "KV on device, MB",
    )  # fmt: skip
    rows = []
    ended = [record for record in records if record.summary is not None]
    for record, name in zip(ended, names_of([one.setting for one in ended]), strict=True):
        summary = record.summary
        assert summary is not None
        link, held = summary.link, summary.memory.kv_device_bytes
        speed = f"{link.gbps:.3g} GB/s {link.kind}" if link.gbps is not None else link.kind
        rows.append(
            (
                f"#{record.number} {name}" + (" (stopped)" if summary.cancelled else ""),
                speed,
                f"{len(summary.tokens)}",
                f"{summary.ms_per_token:.1f}",
                f"{split_of(record).wait:.1f}",
                f"{summary.accepted_per_round:.2f}",
                f"{link_bytes(record) / 1e3:.1f}",
                "" if held is None else f"{held / 1e6:.1f}",
            )
        )
    if not rows:
        return '<em class="mskv-small">Finished runs are listed here.</em>'
    caption = (
        "Named by what differs among them. Times measured; tokens, guesses kept and bytes over the "
        "link counted; KV on the device modelled, from sizes."
    )
    return table_html(caption, heads, rows, 2)


def lengths_text(plan: Plan) -> str:
    """A round's tiers and lengths: ``0>1>2: 8/3`` is gamma 8, draft gamma 3."""
    path = ">".join(map(str, plan.path))
    lengths = "/".join(str(length) for length in (plan.gamma, plan.draft_gamma) if length)
    # where tier 0 is to end a chain that is hardly kept whole
    stop = f", stop {plan.stop:.0%}" if plan.stop else ""
    return f"{path}: {lengths}{stop}" if lengths else path


def rounds_html(record: RunRecord | None, last: int = 12) -> str:
    """The charts' numbers of the newest rounds, for reading instead of looking."""
    if record is None or not record.rounds:
        return '<em class="mskv-small">Rounds are listed here as they come.</em>'
    newest = record.rounds[-last:]
    there = {known(transfer.purpose) for one in newest for transfer in one.transfers}
    purposes = [
        purpose for purpose in PURPOSES
        if purpose != "prefill" and (purpose != "other" or purpose in there)
    ]  # fmt: skip
    heads = (
        "round", "lengths", "tokens", "kept/proposed", "ms",
        *(f"{s.name} ms" for s in TIERS.values()),
        *(f"{purpose} KB" for purpose in purposes),
    )  # fmt: skip
    rows = []
    for one in reversed(newest):
        times = {count.tier: count.ms for count in one.tiers}
        moved = dict.fromkeys(PURPOSES, 0)
        for transfer in one.transfers:
            moved[known(transfer.purpose)] += transfer.bytes
        rows.append(
            (
                f"{one.index + 1}",
                lengths_text(one.plan),
                f"{len(one.tokens)}",
                f"{one.accepted}/{one.proposed}",
                f"{one.ms:.0f}",
                *(f"{times[tier]:.0f}" if tier in times else "" for tier in TIERS),
                *(f"{moved[purpose] / 1e3:.0f}" for purpose in purposes),
            )
        )
    caption = f"{record.label}: newest rounds first. Times measured, tokens and bytes counted."
    return table_html(caption, heads, rows, 0)
