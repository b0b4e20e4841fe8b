"""Words around the library: each command reads arguments, makes one call, and prints text or JSON.

Exit codes: 0 done, 1 failed, 2 refused (bad input or a damaged file, before any model is loaded
where possible), 130 interrupted, 143 terminated, 141 where nobody reads on. What goes wrong is one
line on standard error.

`arguments` says what may be typed, `runs` holds the commands that decode; `doctor`, `verify`,
`labs`, `launch` and `system` are subjects of their own. A command imports what it needs when it is
called, so that help and a refusal come at once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NoReturn

from mspeckv.settings import refuse
from mspeckv_study.cli.arguments import build_parser, run_config, what_if_settings
from mspeckv_study.cli.system import check_writable

if TYPE_CHECKING:
    from mspeckv.parallel import Ranks

NO_PAGE = "the HTML page needs the lab's libraries: pip install 'mspeckv[lab]'"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    ranks = _ranks()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # what a terminal cannot show is no reason to lose a result
            stream.reconfigure(errors="replace")
    try:
        if ranks is not None:
            _run_together(arguments, ranks)
        return _run(_read(arguments, None))
    except BrokenPipeError:
        # whoever read has seen enough; nothing is left to be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except ValueError as error:
        return _say(error, 2)
    except FloatingPointError as error:
        return _say(error, 1)
    except OSError as error:
        where = f": {error.filename}" if error.filename is not None else ""
        return _say(f"{error.strerror or error}{where}", 2)
    except RuntimeError as error:
        from mspeckv.models.download import ModelMissing

        # of `~nobody/x` pathlib raises the other kind, where a user has no home
        if not isinstance(error, ModelMissing) and "home directory" not in str(error):
            raise
        return _say(error, 2)
    except KeyboardInterrupt:
        return _say("interrupted", 130)


def _say(complaint: object, code: int) -> int:
    # what a file of the user's raised may have several lines
    print(f"mspeckv: {' '.join(str(complaint).split())}", file=sys.stderr)
    return code


def _ranks() -> Ranks | None:
    """The processes that ``torchrun`` started; None, without loading torch, where it did not."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    from mspeckv.parallel import join

    return join()


def _read(arguments: Sequence[str] | None, ranks: Ranks | None) -> argparse.Namespace:
    """What was typed; ``config`` is the run that it describes, for commands with one run."""
    options = build_parser().parse_args(arguments)
    options.ranks = ranks
    if ranks is not None and options.command != "generate":
        raise refuse("torchrun", ranks.size, "several processes: use it with generate")
    if options.command in ("generate", "profile"):
        options.config = run_config(options)
    return options


def _run(options: argparse.Namespace) -> int:
    code = COMMANDS[options.command](options)
    sys.stdout.flush()
    return code


def _run_together(arguments: Sequence[str] | None, ranks: Ranks) -> NoReturn:
    """Run as one process of several: what all have heard of, the first one says."""
    from mspeckv.parallel import AgreedError, end, together

    try:
        with together(ranks):
            options = _read(arguments, ranks)
        code = _run(options)
    except AgreedError as error:
        code = _say(error, 2) if ranks.first else 2
    end(ranks, code)


def _fetch(options: argparse.Namespace) -> int:
    from mspeckv.models.download import FORMS, fetch

    folder, *_ = [fetch(options.quiet, form) for form in FORMS]
    if not options.quiet:
        print("every file is as it should be, by sha256", file=sys.stderr)
    print(folder)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from mspeckv_study.cli.doctor import examine, is_damaged, report
    from mspeckv_study.profiling import calibrate

    if options.again:
        calibrate(options.device, again=True)
    found = examine(options.target, options.draft, options.device, options.dtype)
    print(json.dumps(found, indent=2) if options.json else report(found))
    if is_damaged(found):
        return 2
    return 0 if found["self_test"].get("passed") else 1


def _later(place: str) -> Callable[[argparse.Namespace], int]:
    """A function of a module of `mspeckv_study.cli` that loads the engine."""
    return lambda options: int(resolve_name(f"mspeckv_study.cli.{place}")(options))


def _report(options: argparse.Namespace) -> int:
    from mspeckv_study.experiments import write_report

    out = options.out or options.results
    check_writable("out", out, folder=True)
    page = _of_the_lab("panels.report_page:page")
    print(write_report(options.results, out, page).describe())
    if page is None:
        print(f"mspeckv: {NO_PAGE}", file=sys.stderr)
    return 1 if page is None else 0


def _of_the_lab(place: str) -> Any:
    """What stands there in `mspeckv_widgets`; None where the lab's libraries are not installed."""
    try:
        return resolve_name(f"mspeckv_widgets.{place}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("mspeckv.", "mspeckv_study.")):
            raise
        return None


def _in_the_lab(place: str) -> Callable[[argparse.Namespace], int]:
    """A command of `mspeckv_widgets`, which reads the words after its name itself."""

    def run(options: argparse.Namespace) -> int:
        found = _of_the_lab(place)
        if found is None:
            raise refuse(options.command, "mspeckv_widgets", "pip install 'mspeckv[lab]' first")
        return int(found(options.words))

    return run


def _modelled(options: argparse.Namespace) -> dict[str, Any]:
    """What `whatif` and `plan` are both told."""
    from mspeckv_study.whatif import Acceptance

    typed = {part: getattr(options, part) for part in Acceptance.__dataclass_fields__}
    rates = {part: rate for part, rate in typed.items() if rate is not None}
    names = ("draft", "prefill", "new_tokens", "link_gbps", "graphs", "weights")
    return {
        **{name: getattr(options, name) for name in names},
        "acceptance": Acceptance(**rates) if rates else None,
    }


def _what_if(options: argparse.Namespace) -> int:
    settings = what_if_settings(options)
    from mspeckv_study.whatif import what_if
    from mspeckv_study.whatif.answers import what_if_json, what_if_text

    found = what_if(options.target, options.hardware, **_modelled(options), **settings)
    print(json.dumps(what_if_json(found), indent=2) if options.json else what_if_text(found))
    return 0


def _plan(options: argparse.Namespace) -> int:
    from mspeckv_study.whatif import plan
    from mspeckv_study.whatif.answers import plan_json, plan_text

    found = plan(
        options.target, options.hardware, gpu_gb=options.gpu_gb,
        min_acceptance=options.min_acceptance, **_modelled(options),
    )  # fmt: skip
    print(json.dumps(plan_json(found), indent=2) if options.json else plan_text(found))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from mspeckv_study.cli import launch
    from mspeckv_study.cli.labs import put_labs

    labs: str | Path = options.labs or launch.HERE
    server = options.port, not options.no_browser
    fill = launch.folder_to_fill(options.labs, options.folder)
    if fill is not None:
        # refused before anything is written
        launch.server_command(options.command, *server)
        print(put_labs(fill), file=sys.stderr)
        labs = fill / launch.HERE
    command = (
        launch.demo_command(labs, *server, options.dark)
        if options.command == "demo"
        else launch.lab_command(labs, *server)
    )
    launch.fetch_model()
    # the pages that labs lead to, beside them
    put = None if fill is None else _of_the_lab("site.build:put_pages")
    said = None if put is None else put(fill)
    if said is not None:
        print(said, file=sys.stderr)
    return 0 if options.prepare_only else launch.launch(command)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "fetch": _fetch,
    "doctor": _doctor,
    "generate": _later("runs:generate"),
    "profile": _later("runs:profile"),
    "run": _later("runs:sweep"),
    "report": _report,
    "whatif": _what_if,
    "plan": _plan,
    "verify": _later("verify:verify"),
    "lab": _serve,
    "demo": _serve,
    "course": _in_the_lab("course.teaching.command:run"),
    "site": _in_the_lab("site.build:run"),
}
