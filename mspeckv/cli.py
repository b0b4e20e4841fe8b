"""The ``mspeckv`` command: arguments in, one library call, text or JSON out.

Exit codes: 0 done, 1 failed, 2 refused (bad input or a damaged file, before any model is loaded
where possible), 130 interrupted, 143 terminated, 141 where nobody reads on. What goes wrong is one
line on standard error.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from mspeckv.arguments import add_generate, add_models, add_run, add_server, run_config
from mspeckv.config import refuse
from mspeckv.cost.command import add_machine, add_plan, add_what_if, run_plan, run_what_if
from mspeckv.models.download import ModelMissing, fetch
from mspeckv.outputs import check_folder
from mspeckv.parallel import AgreedError, Ranks, join, leave, together

if TYPE_CHECKING:
    from mspeckv.experiments.report import Page

NO_PAGE = "the HTML page needs the lab's libraries: pip install 'mspeckv[lab]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    ranks = join()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # what a terminal cannot show is no reason to lose a result
            stream.reconfigure(errors="replace")
    try:
        code = _run_command(arguments, ranks)
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read has seen enough; nothing is left to be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except AgreedError as error:
        code = 2
        if ranks is None or ranks.first:
            print(f"mspeckv: {error}", file=sys.stderr)
    except ValueError as error:
        print(f"mspeckv: {error}", file=sys.stderr)
        return 2
    except ModelMissing as error:
        print(f"mspeckv: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"mspeckv: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename is not None else ""
        print(f"mspeckv: {error.strerror or error}{where}", file=sys.stderr)
        return 2
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

    one = commands.add_parser("fetch", help="download, convert, check and mend the default model")
    one.add_argument("--quiet", action="store_true", help="no progress")
    one.set_defaults(command=_fetch)

    one = commands.add_parser("doctor", help="what this machine has, and a 16-token self-test")
    add_models(one)
    one.add_argument("--json", action="store_true", help="print JSON")
    one.set_defaults(command=_doctor)

    one = commands.add_parser("generate", help="continue a document, and count what moved")
    add_models(one)
    add_generate(one)
    one.set_defaults(command=_generate)

    one = commands.add_parser("profile", help="where the time of such a run goes, by tier and step")
    add_models(one)
    add_generate(one)
    one.add_argument("--rounds", type=int, metavar="N", help="profile so many (default: all)")
    one.add_argument("--stacks", action="store_true", help="keep Python stacks in the trace")
    one.add_argument("--trace", metavar="FILE", help="write a Chrome trace, for Perfetto")
    one.add_argument("--csv", metavar="FILE", help="write the table")
    one.add_argument("--tensorboard", metavar="DIR", help="write a folder for torch-tb-profiler")
    one.set_defaults(command=_profile)

    one = commands.add_parser("run", help="run an ablation, or what is missing of it")
    add_run(one)
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
    add_server(one)
    one.set_defaults(command=_lab)

    one = commands.add_parser("demo", help="open the panels alone, code hidden, for a projector")
    add_server(one)
    one.add_argument("--dark", action="store_true", help="light on dark")
    one.set_defaults(command=_demo)
    return parser


def _fetch(options: argparse.Namespace) -> int:
    folder = fetch(quiet=options.quiet)
    if not options.quiet:
        print("every file is as it should be, by sha256", file=sys.stderr)
    print(folder)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from mspeckv.doctor import examine, is_damaged, report

    found = examine(options.target, options.draft, options.device, options.dtype)
    print(json.dumps(found, indent=2) if options.json else report(found))
    if is_damaged(found):
        return 2
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

    check_folder("out", options.out or options.results)
    page = _page()
    report = write_report(options.results, options.out or options.results, page)
    print(report.describe())
    if page is None:
        print(f"mspeckv: {NO_PAGE}", file=sys.stderr)
    return 1 if page is None else 0


def _page() -> Page | None:
    """What draws a report's page, where the lab's libraries are installed."""
    try:
        from mspeckv_widgets.report_page import page
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mspeckv."):
            raise
        return None
    return page


def _lab(options: argparse.Namespace) -> int:
    from mspeckv.launch import lab_command, launch

    return launch(lab_command(options.labs, options.port, not options.no_browser))


def _demo(options: argparse.Namespace) -> int:
    from mspeckv.launch import demo_command, launch

    browser = not options.no_browser
    return launch(demo_command(options.labs, options.port, browser, options.dark))
