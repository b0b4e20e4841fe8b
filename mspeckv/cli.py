"""The ``mspeckv`` command: arguments in, one library call, text or JSON out.

Exit codes: 0 done, 1 failed, 2 refused (bad input, before any model is loaded where possible),
130 interrupted. What goes wrong is one line on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import NoReturn

from mspeckv import retrieval
from mspeckv.config import (
    METHODS,
    KVPolicy,
    Link,
    RunConfig,
    Sampling,
    Speculation,
    Width,
    default_width,
    refuse,
)
from mspeckv.cost.command import add_machine, add_plan, add_what_if, run_plan, run_what_if
from mspeckv.fetch import ModelMissing, fetch
from mspeckv.parallel import AgreedError, Ranks, join, leave, together


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    ranks = join()
    try:
        code = _run_command(arguments, ranks)
    except AgreedError as error:
        code = 2
        if ranks is None or ranks.first:
            print(f"mspeckv: {error}", file=sys.stderr)
    except ValueError as error:
        print(f"mspeckv: {error}", file=sys.stderr)
        return 2
    except ModelMissing as error:
        print(f"mspeckv: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mspeckv: interrupted", file=sys.stderr)
        return 130
    leave(ranks)
    return code


def _run_command(arguments: Sequence[str] | None, ranks: Ranks | None) -> int:
    with together(ranks):
        options = build_parser().parse_args(arguments)
        options.ranks = ranks
        if ranks is not None and options.command is not _generate:
            raise refuse("torchrun", ranks.size, "several processes: use it with generate")
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


class _Parser(argparse.ArgumentParser):
    """Complains in one line, like the rest of the command."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments; defaults are those of the settings' dataclasses."""
    parser = _Parser(
        prog="mspeckv", description="Multilevel speculative decoding over a placed KV cache."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("fetch", help="download, check and convert the default model")
    one.add_argument("--quiet", action="store_true", help="no progress")
    one.set_defaults(command=_fetch)

    one = commands.add_parser("doctor", help="what this machine has, and a 16-token self-test")
    _add_models(one)
    one.add_argument("--json", action="store_true", help="print JSON")
    one.set_defaults(command=_doctor)

    one = commands.add_parser("generate", help="continue a document, and count what moved")
    _add_models(one)
    _add_generate(one)
    one.set_defaults(command=_generate)

    one = commands.add_parser("profile", help="where the time of such a run goes, by tier and step")
    _add_models(one)
    _add_generate(one)
    one.add_argument("--rounds", type=int, metavar="N", help="profile so many (default: all)")
    one.add_argument("--stacks", action="store_true", help="keep Python stacks in the trace")
    one.add_argument("--trace", metavar="FILE", help="write a Chrome trace, for Perfetto")
    one.add_argument("--csv", metavar="FILE", help="write the table")
    one.add_argument("--tensorboard", metavar="DIR", help="write a folder for torch-tb-profiler")
    one.set_defaults(command=_profile)

    one = commands.add_parser("run", help="run an ablation, or what is missing of it")
    _add_run(one)
    one.set_defaults(command=_run)

    one = commands.add_parser(
        "report", help="what the rows of `run` say, beside what was published"
    )
    one.add_argument("results", metavar="DIR", help="folder that `run` wrote")
    one.add_argument(
        "--out", metavar="DIR", help="where the report goes (default: beside the rows)"
    )
    one.set_defaults(command=_report)

    one = commands.add_parser("whatif", help="what a run would cost on another machine (modelled)")
    add_machine(one)
    add_what_if(one)
    one.set_defaults(command=run_what_if)

    one = commands.add_parser("plan", help="the fastest setting that fits a device (modelled)")
    add_machine(one)
    add_plan(one)
    one.set_defaults(command=run_plan)

    one = commands.add_parser("lab", help="open JupyterLab on the first lab")
    _add_server(one)
    one.set_defaults(command=_lab)

    one = commands.add_parser("demo", help="open the panels alone, code hidden, for a projector")
    _add_server(one)
    one.add_argument("--dark", action="store_true", help="light on dark")
    one.set_defaults(command=_demo)
    return parser


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, help="first port to try (default: the server's)")
    parser.add_argument("--labs", default="labs", metavar="DIR", help="folder of the notebooks")
    parser.add_argument("--no-browser", action="store_true", help="print the address only")


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="default", metavar="ID", help="model id or folder")
    parser.add_argument(
        "--draft", default="default", metavar="ID|none|lookup", help="model id, folder; or tier 0"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16")


def _add_generate(parser: argparse.ArgumentParser) -> None:
    policy, guess, draw = KVPolicy(), Speculation(), Sampling()
    add = parser.add_argument
    add("--method", default="mspeckv", help=", ".join(METHODS))
    add("--document", default="python-reference", metavar="NAME|FILE", help="what to continue")
    add("--prompt", metavar="TEXT", help="this text instead of a document")
    add("--prefill", type=int, default=1024, help="prompt tokens of the document")
    add("--new-tokens", type=int, default=32, help="tokens to produce")
    add(
        "--kv-bits",
        type=_number,
        metavar="8|4|2|full",
        help="default: 8 for mspeckv, else full",
    )
    add("--on-chip", type=int, default=policy.on_chip, help="layers unquantized on the device")
    add("--resident", type=int, default=policy.resident, help="layers quantized on the device")
    add("--block", type=int, default=policy.block, help="tokens per quantization block")
    add("--group", type=int, default=policy.group, help="channels that share a V scale")
    add(
        "--k-bits",
        type=_number,
        metavar="8|4|2|full",
        help="width of keys, if not --kv-bits",
    )
    add(
        "--v-bits",
        type=_number,
        metavar="8|4|2|full",
        help="width of values, if not --kv-bits",
    )
    add("--nibble", action="store_true", help="int8 as two int4 planes, the upper on the device")
    add("--resident-format", default=policy.resident_format, metavar="packed|float")
    add("--residency", default=policy.residency, metavar="static|lru")
    add("--ahead", type=int, default=policy.ahead, metavar="N", help="layers in flight")
    add("--tail", type=int, default=policy.tail, help="newest tokens kept unquantized")
    add("--gamma", type=_number, default=guess.gamma, metavar="N|auto", help="guesses per round")
    add("--draft-gamma", type=_number, default=guess.draft_gamma, metavar="N|auto", help="tier 0's")
    add("--draft-vocab", type=int, default=guess.draft_vocab, help="tokens it scores; 0 is all")
    add("--draft-threshold", type=float, default=guess.draft_threshold, help="when it stops")
    add("--budget", type=int, default=guess.budget, help="prompt tokens tier 1 reads")
    add("--chunk", type=int, default=guess.chunk, help="tokens per retrieval chunk")
    add("--refresh", type=int, default=guess.refresh, help="tokens between retrievals; 0 never")
    add("--recent", type=int, default=guess.recent, help="last prompt tokens tier 1 keeps")
    add("--sinks", type=int, default=guess.sinks, help="first tokens tier 0 always sees")
    add("--window", type=int, default=guess.window, help="recent tokens tier 0 sees")
    add("--tier1", default=guess.tier1, metavar="retrieval|nibble", help="what tier 1 reads")
    add(
        "--retrieval",
        default=guess.retrieval,
        metavar="NAME|FILE.py:NAME",
        help=f"what chooses tier 1's chunks: {', '.join(retrieval.names())}, or a file's",
    )
    add("--graphs", action=argparse.BooleanOptionalAction, default=True, help="on CUDA")
    add("--device-gb", type=float, metavar="GB", help="device memory the run may take")
    add("--link", default="off", metavar="off|live|origin|GB/S", help="emulated link on CPU")
    add("--temperature", type=float, default=draw.temperature, help="0 is greedy")
    add("--top-p", type=float, default=draw.top_p, help="nucleus sampling")
    add("--top-k", type=int, default=draw.top_k, help="likeliest tokens kept; 0 keeps all")
    add("--min-p", type=float, default=draw.min_p, help="least share of the likeliest token")
    add("--repetition-penalty", type=float, default=draw.repetition_penalty, help="1 is none")
    add("--stop", action="append", default=[], metavar="TEXT", help="end after it; repeatable")
    add("--seed", type=int, default=draw.seed, help="seed of the run")
    add("--ignore-eos", action="store_true", help="go on after the end-of-sequence token")
    add("--json", action="store_true", help="print JSON")
    add("--quiet", action="store_true", help="no progress bars")


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("experiment", metavar="A1|A2|B1|B2|all", help="context, resident, on-chip, output length")
    add("--preset", default="classroom", help="classroom (two cores) or origin (as published)")
    add("--seeds", default="1,2,3", metavar="N,N", help="a trial per cell and seed")
    add("--out", required=True, metavar="DIR", help="folder of the rows; run again to go on")
    add("--values", metavar="N,N", help="of the axis, instead of the preset's")
    add("--variants", metavar="NAME,NAME", help="what is compared, instead of the preset's")
    add("--scheduler", metavar="tcp://...", help="run on the workers of this Dask scheduler")
    _add_models(parser)
    parser.set_defaults(device=None, dtype=None)
    add("--quiet", action="store_true", help="no progress bar")


def _number(text: str) -> Width | str:
    """``full``, ``auto`` and unknown words stay text, for the settings themselves to judge."""
    return int(text) if text.lstrip("-").isdigit() else text


def run_config(options: argparse.Namespace) -> RunConfig:
    """The run that ``generate``'s arguments describe.

    Raises:
        ValueError: a setting that is not allowed.
    """
    given = vars(options)
    if options.method not in METHODS:
        raise refuse("method", options.method, f"use one of {', '.join(METHODS)}")
    bits = default_width(options.method) if options.kv_bits is None else options.kv_bits
    policy = {field.name: given[field.name] for field in fields(KVPolicy) if field.name != "bits"}
    guess = {part.name: given[part.name] for part in fields(Speculation) if part.name != "tier0"}
    guess["retrieval"] = retrieval.load(options.retrieval)
    tier0 = options.draft if options.draft in ("none", "lookup") else "draft"
    return RunConfig.build(
        options.method,
        options.new_tokens,
        KVPolicy(bits=bits, **policy),
        Speculation(**guess, tier0=tier0),
        Sampling(
            options.temperature,
            options.top_p,
            options.seed,
            not options.ignore_eos,
            options.top_k,
            options.min_p,
            options.repetition_penalty,
            stop_strings=tuple(options.stop),
        ),
        Link.parse(options.link),
        options.device_gb,
        options.graphs,
    )


def _fetch(options: argparse.Namespace) -> int:
    print(fetch(quiet=options.quiet))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from mspeckv.doctor import examine, report

    found = examine(options.target, options.draft, options.device, options.dtype)
    print(json.dumps(found, indent=2) if options.json else report(found))
    return 0 if found["self_test"].get("passed") else 1


def _generate(options: argparse.Namespace) -> int:
    from mspeckv.console import generate

    with together(options.ranks):
        config = run_config(options)
    return generate(config, options)


def _profile(options: argparse.Namespace) -> int:
    from mspeckv.console import profile

    return profile(run_config(options), options)


def _run(options: argparse.Namespace) -> int:
    from mspeckv.experiments.command import sweep

    return sweep(options)


def _report(options: argparse.Namespace) -> int:
    from mspeckv.experiments.report import write_report

    report = write_report(options.results, options.out or options.results)
    print(report.describe())
    if report.missing:
        print(f"mspeckv: {report.missing}", file=sys.stderr)
    return 1 if report.missing else 0


def _lab(options: argparse.Namespace) -> int:
    from mspeckv.launch import lab_command, launch

    return launch(lab_command(options.labs, options.port, not options.no_browser))


def _demo(options: argparse.Namespace) -> int:
    from mspeckv.launch import demo_command, launch

    browser = not options.no_browser
    return launch(demo_command(options.labs, options.port, browser, options.dark))
