"""``mspeckv verify``: an engine by name, what it is judged against, and where the report goes."""

from __future__ import annotations

import argparse
import json
import threading
from pathlib import Path

from tqdm import tqdm

from mspeckv.api import load_pair
from mspeckv.models.load import parse_device, parse_dtype, parse_weights
from mspeckv.models.pair import Pair
from mspeckv.settings import METHODS, check_count, refuse
from mspeckv_study.cli.arguments import run_config
from mspeckv_study.cli.runs import each
from mspeckv_study.cli.system import check_writable, on_interrupt
from mspeckv_study.documents import load_document, read_source
from mspeckv_study.verification import Report, Trial
from mspeckv_study.verification import verify as judge
from mspeckv_study.verification.adapters import engine_named, needs_pair


def verify(options: argparse.Namespace) -> int:
    """Ask, judge, print and write; returns the exit code: 0 where the engine is lossless, else 1.

    Raises:
        ValueError: bad input, found before a model is loaded where that is possible; an engine
            that is not there or answers wrongly.
    """
    trial, sources = _trial(options), options.document or ["python-reference"]
    lengths = list(dict.fromkeys(each("lengths", options.lengths, int)))
    for length in lengths:
        check_count("lengths", length, 2)
    for source in sources:
        if not source.endswith(".json"):
            read_source(source)
    against = options.against
    if against == "plain":
        against = "autoregressive" if options.engine in METHODS else "transformers"
    if options.out is not None:
        check_writable("out", options.out, folder=True)
    config = run_config(options)
    parse_weights(options.weights, parse_device(options.device), parse_dtype(options.dtype))
    names = (options.engine, against)
    # names without a pair are asked first, so that a wrong one costs no loading
    ready = {name: engine_named(name) for name in names if not needs_pair(name)}
    for one in ready.values():
        one.greet()
    pair = None
    if len(ready) < len(set(names)) or not all(source.endswith(".json") for source in sources):
        pair = load_pair(
            options.target, options.draft, device=options.device, dtype=options.dtype,
            weights=options.weights,
        )  # fmt: skip
        check_count("lengths", max(lengths), 2, pair.max_positions - trial.new_tokens)
    engine, plain = (ready.get(name) or engine_named(name, pair, config) for name in names)
    documents = {
        f"{name} {length}": _tokens(source, length, pair)
        for source, name in _names(sources).items()
        for length in lengths
    }
    cancel = threading.Event()
    with on_interrupt(cancel) as signals, tqdm(unit="answer", disable=options.quiet) as bar:

        def begin(stage: str, count: int) -> None:
            if not options.quiet:
                tqdm.write(stage, file=bar.fp)
            bar.reset(total=count)

        report = judge(
            engine, plain, documents, trial,
            out=options.out, cancel=cancel, on_ask=bar.update, on_stage=begin,
        )  # fmt: skip
    print(json.dumps(report.to_json(), indent=2) if options.json else report.to_text())
    if options.out is not None:
        _write(report, Path(options.out).expanduser())
    return 128 + signals[0] if signals else report.exit_code


def _trial(options: argparse.Namespace) -> Trial:
    names = Trial.__dataclass_fields__.keys() & vars(options).keys() - {"checks", "sampling"}
    settings = {name: getattr(options, name) for name in names}
    if options.checks:
        settings["checks"] = tuple(each("checks", options.checks, str))
    return Trial(**settings, sampling=run_config(options).sampling)


def _names(sources: list[str]) -> dict[str, str]:
    """What each document is called: its file's name, or all of the path where two have that."""
    short = [Path(source).name for source in sources]
    return {
        source: name if short.count(name) == 1 else source
        for source, name in zip(sources, short, strict=True)
    }


def _tokens(source: str, length: int, pair: Pair | None) -> list[int]:
    """The first tokens of a document, or of a list of ids in a JSON file."""
    if not source.endswith(".json"):
        assert pair is not None
        assert pair.tokenizer is not None
        return load_document(source, pair.tokenizer, length)
    try:
        found = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(type(one) is int for one in found):
        raise refuse("document", source, "use a JSON file that holds a list of token ids")
    if len(found) < length:
        raise refuse("lengths", length, f"{source} has {len(found)} tokens; use at most that")
    return found[:length]


def _write(report: Report, folder: Path) -> None:
    files = {
        "report.txt": report.to_text(),
        "report.json": json.dumps(report.to_json(), indent=1),
        "report.html": report.to_html(),
    }
    for name, text in files.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
