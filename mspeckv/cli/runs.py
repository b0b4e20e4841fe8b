"""``mspeckv generate``, ``profile`` and ``run`` on a terminal: progress on standard error, results
on standard output.
"""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from mspeckv.api import load_pair, stream
from mspeckv.cli.arguments import check_file, check_folder
from mspeckv.cli.signals import on_interrupt
from mspeckv.events import Prefill, Round, RunSummary
from mspeckv.models import Pair, parse_device, parse_dtype
from mspeckv.models.documents import check_source, load_document, text_tokens
from mspeckv.parallel import Ranks, together
from mspeckv.profiling import profile as take
from mspeckv.settings import RunConfig, check_count, refuse

if TYPE_CHECKING:
    from mspeckv.experiments.rows import Row

T = TypeVar("T")


def generate(options: argparse.Namespace) -> int:
    """Load, run and print; returns the exit code.

    Raises:
        ValueError: bad input; found before a model is loaded where that is possible.
    """
    ranks: Ranks | None = options.ranks
    speaks = ranks is None or ranks.first
    with together(ranks):
        pair, prompt = _load(options)
    signals: list[int] = []
    quiet = options.quiet or not speaks
    summary = _run(pair, options.config, prompt, quiet, signals, ranks is None)
    if speaks:
        print(json.dumps(summary.to_json(), indent=2) if options.json else describe(summary))
    return 128 + signals[0] if signals else 0


def profile(options: argparse.Namespace) -> int:
    """Load, profile, export what was asked for and print; returns the exit code.

    Raises:
        ValueError: bad input, as for `generate`.
    """
    if options.rounds is not None:
        check_count("rounds", options.rounds, 1)
    for field, check in (("trace", check_file), ("csv", check_file), ("tensorboard", check_folder)):
        if (path := getattr(options, field)) is not None:
            check(field, path)
    pair, prompt = _load(options)
    found = take(pair, prompt, options.config, rounds=options.rounds, stacks=options.stacks)
    if options.trace:
        found.export_trace(options.trace)
    if options.csv:
        found.export_csv(options.csv)
    if options.tensorboard:
        found.export_tensorboard(options.tensorboard)
    if options.json:
        rows = [asdict(row) for row in found.rows]
        figures = {"wall_ms": found.wall_ms, "overhead": found.overhead, "rows": rows}
        print(json.dumps({**figures, "summary": found.summary.to_json()}, indent=2))
    else:
        print(found.table())
    return 0


def _load(options: argparse.Namespace) -> tuple[Pair, list[int]]:
    """The pair and the prompt; bad input is refused first."""
    check_count("prefill", options.prefill, 1)
    parse_device(options.device)
    parse_dtype(options.dtype)
    if options.prompt is None:
        check_source(options.document)
    elif not options.prompt:
        raise refuse("prompt", options.prompt, "use text of at least one character")
    else:
        _check_text(options.prompt)
    draft = "none" if options.config.speculation.tier0 == "lookup" else options.draft
    pair = load_pair(
        options.target, draft, device=options.device, dtype=options.dtype, ranks=options.ranks
    )
    return pair, _prompt(pair, options)


def _check_text(prompt: str) -> None:
    """Bytes that are no text come from a command line as lone surrogates."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise refuse("prompt", prompt[:40], f"it is not UTF-8 (character {error.start})") from None


def _prompt(pair: Pair, options: argparse.Namespace) -> list[int]:
    assert pair.tokenizer is not None
    if options.prompt is not None:
        return text_tokens(options.prompt, pair.tokenizer)
    return load_document(options.document, pair.tokenizer, options.prefill)


def _run(
    pair: Pair, config: RunConfig, prompt: list[int], quiet: bool, signals: list[int], alone: bool
) -> RunSummary:
    """Run to the end, or to a signal, which goes to ``signals``: then the summary holds what is."""
    cancel = threading.Event()
    reading: tqdm[None] | None = None

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal reading
        if stage == "prefill":
            if reading is None:
                reading = tqdm(total=total, desc="prefill", unit="layer", disable=quiet)
            reading.update(done - reading.n)

    events = stream(pair, prompt, config, cancel=cancel, on_progress=progress)
    writing: tqdm[None] | None = None
    with on_interrupt(cancel, signals, alone):
        try:
            for event in events:
                if isinstance(event, Prefill):
                    if reading is not None:
                        reading.close()
                    writing = tqdm(
                        total=config.new_tokens, desc="decode", unit="token", disable=quiet
                    )
                elif isinstance(event, Round):
                    assert writing is not None
                    writing.set_postfix(accepted=f"{event.accepted}/{event.proposed}")
                    writing.update(len(event.tokens))
                elif isinstance(event, RunSummary):
                    return event
        finally:
            for bar in (reading, writing):
                if bar is not None:
                    bar.close()
    raise AssertionError("a run ends with its summary")


def describe(summary: RunSummary) -> str:
    """A run's result for people, each figure labelled by what stands behind it."""
    link, memory = summary.link, summary.memory
    speed = f" at {link.gbps:g} GB/s" if link.gbps is not None else ""
    label = "emulated" if link.kind == "emulated" else "measured"
    lines = [
        summary.text,
        "",
        f"{len(summary.tokens)} tokens in {summary.rounds} rounds"
        + (", cancelled" if summary.cancelled else ""),
        f"decode    {summary.ms_per_token:.1f} ms/token, {summary.tokens_per_second:.2f} tokens/s"
        " (measured)",
        f"prefill   {summary.prefill_seconds:.2f} s (measured)",
        f"link      {link.kind}{speed}: {_megabytes(link.to_device_bytes)} to the device, "
        f"{_megabytes(link.to_host_bytes)} to the host (counted), {link.ms:.0f} ms busy ({label})",
        f"memory    on-chip {_megabytes(memory.on_chip_bytes)}, "
        f"resident {_megabytes(memory.resident_bytes)}, "
        f"offloaded {_megabytes(memory.offloaded_bytes)} of KV (counted)",
    ]
    ranks = summary.config.get("ranks", 1)
    if ranks > 1:
        lines.append(f"ranks     {ranks}, by heads; link and memory are those of rank 0 alone")
    residency = summary.residency
    if residency.hit_rate is not None:
        lines.append(
            f"residency {residency.hits} packed layers found on the device, {residency.misses} "
            f"fetched: hit rate {residency.hit_rate:.2f} (counted)"
        )
    for tier in summary.tiers:
        rate = tier.acceptance_rate
        kept = (
            f", {tier.accepted}/{tier.proposed} accepted ({rate:.0%})" if rate is not None else ""
        )
        lines.append(f"tier {tier.tier}    {tier.passes} passes, {tier.ms:.0f} ms (measured){kept}")
    return "\n".join(lines)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def sweep(options: argparse.Namespace) -> int:
    """Run what is missing of one experiment, or of all; returns the exit code.

    Raises:
        ValueError: a setting that is not allowed; before anything is loaded where that is
            possible.
    """
    from mspeckv.experiments.ablations import IDS, experiment
    from mspeckv.experiments.bench import Models
    from mspeckv.experiments.runs import run
    from mspeckv.experiments.schedule import missing

    names = IDS if options.experiment.lower() == "all" else (options.experiment,)
    if options.values and len(names) > 1:
        raise refuse("values", options.values, "use it with one experiment")
    chosen = [experiment(name, options.preset) for name in names]
    seeds = _each("seeds", options.seeds, int)
    values = _each("values", options.values, int) if options.values else None
    variants = _each("variants", options.variants, str) if options.variants else None
    plan = [(one, one.cells(values, variants)) for one in chosen]
    trials = sum(len(missing(one, seeds, options.out, cells)) for one, cells in plan)
    preset = chosen[0].preset
    models = Models(
        options.target,
        options.draft,
        options.device or preset.device,
        options.dtype or preset.dtype,
    )
    if options.scheduler is None:
        parse_device(models.device)
    parse_dtype(models.dtype)
    check_folder("out", options.out)
    cancel = threading.Event()
    signals: list[int] = []
    failed = 0
    bar = tqdm(total=trials, unit="trial", smoothing=0.0, disable=options.quiet)

    def show(row: Row) -> None:
        nonlocal failed
        failed += not row.ok
        tqdm.write(row_line(row))
        bar.update()

    with on_interrupt(cancel, signals), bar:
        here = trials > 0 and options.scheduler is None
        pair = models.load() if here else None
        for one, cells in plan:
            bar.set_description(one.id)
            run(
                one, seeds=seeds, out=options.out, scheduler=options.scheduler, cells=cells,
                models=models, pair=pair, on_row=show, cancel=cancel,
            )  # fmt: skip
    if cancel.is_set():
        return 128 + signals[0]
    return 1 if failed else 0


def row_line(row: Row) -> str:
    """A row on one line; its figures are measured, over a link whose kind it names."""
    if row.result is None:
        return f"{row.key}  failed: {row.error}"
    link = row.result["link"]
    speed = f" {link['gbps']:.4g} GB/s" if link["gbps"] is not None else ""
    return (
        f"{row.key}  {row.result['ms_per_token']:.1f} ms/token (measured, link {link['kind']}"
        f"{speed}), {row.result['accepted_per_round']:.2f} accepted per round, "
        f"{row.seconds:.1f} s"
    )


def _each(field: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """The parts of ``text`` between commas.

    Raises:
        ValueError: one is not of its kind.
    """
    parts = [part.strip() for part in text.split(",")]
    try:
        return [kind(part) for part in parts]
    except ValueError:
        raise refuse(field, text, "use whole numbers with commas between them") from None
