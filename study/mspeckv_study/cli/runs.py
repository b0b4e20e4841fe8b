"""``mspeckv generate``, ``profile`` and ``run`` on a terminal: progress on standard error, results
on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from mspeckv.api import load_pair, stream
from mspeckv.events import Prefill, Round, RunSummary
from mspeckv.models.load import parse_device, parse_dtype, parse_weights
from mspeckv.models.pair import Pair
from mspeckv.parallel import Ranks, together
from mspeckv.settings import RunConfig, check_count, refuse
from mspeckv_study.cli.system import check_writable, on_interrupt
from mspeckv_study.documents import load_document, read_source, text_tokens
from mspeckv_study.profiling import Profile
from mspeckv_study.profiling import profile as take
from mspeckv_study.profiling.session import NothingProfiled

if TYPE_CHECKING:
    from mspeckv_study.experiments.ablations import Cell
    from mspeckv_study.experiments.rows import Row

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
    cancel = threading.Event()
    # torchrun's SIGTERM must end a rank that hangs
    with on_interrupt(cancel, terminate=ranks is None) as signals:
        summary = _decode(pair, options.config, prompt, options.quiet or not speaks, cancel)
    if speaks:
        print(json.dumps(summary.to_json(), indent=2) if options.json else describe(summary))
    return 128 + signals[0] if signals else 0


def profile(options: argparse.Namespace) -> int:
    """Load, profile, export what was asked for and print; refuses input as `generate` does."""
    if options.rounds is not None:
        check_count("rounds", options.rounds, 1)
    for field in ("trace", "csv", "tensorboard"):
        if (path := getattr(options, field)) is not None:
            check_writable(field, path, folder=field == "tensorboard")
    if options.csv is not None and options.csv == options.trace:
        raise refuse("csv", options.csv, "use another file than trace's")
    pair, prompt = _load(options)
    cancel = threading.Event()
    with on_interrupt(cancel) as signals:
        try:
            found = take(
                pair, prompt, options.config,
                rounds=options.rounds, stacks=options.stacks, cancel=cancel,
            )  # fmt: skip
        except NothingProfiled as error:
            print(f"mspeckv: {error}", file=sys.stderr)
            return 128 + signals[0]
    # first: to write may fail, on a full disk
    print(_told(found, options.json), flush=True)
    if options.trace:
        found.export_trace(options.trace)
    if options.csv:
        found.export_csv(options.csv)
    if options.tensorboard:
        found.export_tensorboard(options.tensorboard)
    return 128 + signals[0] if signals else 0


def _told(found: Profile, as_json: bool) -> str:
    """A profile as JSON, or as a table."""
    if as_json:
        rows = [asdict(row) for row in found.rows]
        figures = {"wall_ms": found.wall_ms, "overhead": found.overhead, "rows": rows}
        return json.dumps({**figures, "summary": found.summary.to_json()}, indent=2)
    return found.table()


def _load(options: argparse.Namespace) -> tuple[Pair, list[int]]:
    """The pair and the prompt; bad input is refused first."""
    check_count("prefill", options.prefill, 1)
    device, dtype = parse_device(options.device), parse_dtype(options.dtype)
    parse_weights(options.weights, device, dtype, options.ranks is not None)
    if options.prompt is None:
        read_source(options.document)
    else:
        _check_text(options.prompt)
    draft = "none" if options.config.speculation.tier0 == "lookup" else options.draft
    pair = load_pair(
        options.target, draft, device=options.device, dtype=options.dtype, ranks=options.ranks,
        weights=options.weights,
    )  # fmt: skip
    return pair, _prompt(pair, options)


def _check_text(prompt: str) -> None:
    """Bytes that are no text come from a command line as lone surrogates."""
    if not prompt:
        raise refuse("prompt", prompt, "use text of at least one character")
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise refuse("prompt", prompt[:40], f"it is not UTF-8 (character {error.start})") from None


def _prompt(pair: Pair, options: argparse.Namespace) -> list[int]:
    assert pair.tokenizer is not None
    if options.prompt is not None:
        return text_tokens(options.prompt, pair.tokenizer)
    return load_document(options.document, pair.tokenizer, options.prefill)


def _decode(
    pair: Pair, config: RunConfig, prompt: list[int], quiet: bool, cancel: threading.Event
) -> RunSummary:
    """Run to the end, or until ``cancel`` is set: then the summary holds what there is."""
    bar: tqdm[None] | None = None

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal bar
        if stage == "prefill":
            if bar is None:
                bar = tqdm(total=total, desc="prefill", unit="layer", disable=quiet)
            bar.update(done - bar.n)

    try:
        for event in stream(pair, prompt, config, cancel=cancel, on_progress=progress):
            if isinstance(event, RunSummary):
                return event
            if isinstance(event, Prefill):
                if bar is not None:
                    bar.close()
                bar = tqdm(total=config.new_tokens, desc="decode", unit="token", disable=quiet)
            elif isinstance(event, Round):
                assert bar is not None
                bar.set_postfix(accepted=f"{event.accepted}/{event.proposed}")
                bar.update(len(event.tokens))
    finally:
        if bar is not None:
            bar.close()
    raise AssertionError("a run ends with its summary")


def describe(summary: RunSummary) -> str:
    """A run's result for people, each figure labelled by what stands behind it."""
    link, memory, residency = summary.link, summary.memory, summary.residency
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
    if residency.hit_rate is not None:
        lines.append(
            f"residency {residency.hits} packed layers found on the device, {residency.misses} "
            f"fetched: hit rate {residency.hit_rate:.2f} (counted)"
        )
    for tier in summary.tiers:
        line = f"tier {tier.tier}    {tier.passes} passes, {tier.ms:.0f} ms (measured)"
        if (rate := tier.acceptance_rate) is not None:
            line += f", {tier.accepted}/{tier.proposed} accepted ({rate:.0%})"
        lines.append(line)
    return "\n".join(lines)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def sweep(options: argparse.Namespace) -> int:
    """Run what is missing of one experiment, or of all; returns the exit code.

    Raises:
        ValueError: a setting that is not allowed; found before a model is loaded if possible.
    """
    from mspeckv_study.experiments import IDS, Models, experiment, missing, run

    names = IDS if options.experiment.lower() == "all" else (options.experiment,)
    if options.values and len(names) > 1:
        raise refuse("values", options.values, "use it with one experiment")
    chosen = [experiment(name, options.preset) for name in names]
    seeds = each("seeds", options.seeds, int)
    values = each("values", options.values, int) if options.values else None
    variants = each("variants", options.variants, str) if options.variants else None
    plan = [(one, one.cells(values, variants)) for one in chosen]
    trials = sum(len(missing(one, seeds, options.out, cells)) for one, cells in plan)
    own = chosen[0].preset
    device, dtype = options.device or own.device, options.dtype or own.dtype
    models = Models(options.target, options.draft, device, dtype)
    if options.scheduler is None:
        parse_device(device)
    parse_dtype(dtype)
    check_writable("out", options.out, folder=True)
    pair = models.load() if trials and options.scheduler is None else None
    if pair is not None:
        check_lengths([cell for _, cells in plan for cell in cells], pair.max_positions)
    cancel = threading.Event()
    failed = 0
    bar = tqdm(total=trials, unit="trial", smoothing=0.0, disable=options.quiet)

    def show(row: Row) -> None:
        nonlocal failed
        failed += not row.ok
        tqdm.write(row_line(row))
        bar.update()

    with on_interrupt(cancel) as signals, bar:
        for one, cells in plan:
            bar.set_description(one.id)
            run(
                one, seeds=seeds, out=options.out, scheduler=options.scheduler, cells=cells,
                models=models, pair=pair, on_row=show, cancel=cancel,
            )  # fmt: skip
    if cancel.is_set():
        return 128 + signals[0]
    return 1 if failed else 0


def check_lengths(cells: Sequence[Cell], most: int) -> None:
    """Refuse cells whose prompt and new tokens are more than a target's positions."""
    for cell in cells:
        asked = cell.preset.prefill + cell.preset.new_tokens
        if asked > most:
            allowed = f"it asks for {asked} tokens in all: the target has {most} positions"
            raise refuse("values", cell.value, allowed)


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


def each(field: str, text: str, kind: Callable[[str], T]) -> list[T]:
    """The parts of ``text`` between commas; refuses one that is not of its kind."""
    try:
        return [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        raise refuse(field, text, "use whole numbers with commas between them") from None
