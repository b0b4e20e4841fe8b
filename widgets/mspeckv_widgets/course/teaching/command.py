"""What may be typed after ``mspeckv course``; each command is one call of a neighbouring module."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help)")


def run(words: Sequence[str]) -> int:
    """Do what the words say; returns the exit code.

    Raises:
        ValueError: words that are not allowed, or a file or folder that cannot be used.
    """
    options = _parser().parse_args(list(words))
    command: Callable[[argparse.Namespace], int] = options.run
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mspeckv course", description="For students and teachers of the labs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def add(name: str, call: Callable[[argparse.Namespace], int], words: str) -> _Parser:
        one = commands.add_parser(name, help=words, description=words)
        one.set_defaults(run=call)
        return one

    one = add("build", _build, "copy the engine with functions blanked, for you to write anew")
    one.add_argument("folder", metavar="DIR", help="a new folder")
    one.add_argument("--blank", nargs="+", default=[], metavar="NAME", help="instead of all five")

    one = add("judge", _judge, "run the project's own tests against what you wrote")
    one.add_argument("folder", metavar="DIR", help="a folder that `build` made")
    one.add_argument("names", nargs="*", metavar="NAME", help="functions to judge; all")

    one = add("export", _export, "assignments for nbgrader or otter-grader, solutions apart")
    form = one.add_mutually_exclusive_group(required=True)
    form.add_argument("--nbgrader", metavar="DIR", help="a new folder: an nbgrader course")
    form.add_argument("--otter", metavar="DIR", help="a new folder: notebooks for `otter assign`")
    one.add_argument("--labs", nargs="+", default=[], metavar="NN", help="such as 02 03; all")
    one.add_argument("--source", metavar="DIR", help="folder of the labs (default: the checkout's)")

    one = add("result", _result, "write your progress and scores into a file to hand in")
    one.add_argument("--student", metavar="NAME", help="default: the name you are logged in under")
    one.add_argument(
        "--folder", metavar="DIR", help="of the progress file (default: labs, or here)"
    )
    one.add_argument("--out", metavar="FILE", help="default: mspeckv-result-NAME.json")
    one.add_argument("--key", metavar="FILE", help="the teacher's key, to sign with")

    one = add("merge", _merge, "a table of students by exercises, and the leaderboard")
    one.add_argument("files", nargs="+", metavar="FILE", help="that `result` wrote")
    one.add_argument("--out", required=True, metavar="TABLE.csv", help="where the table goes")
    one.add_argument("--key", metavar="FILE", help="the key that students signed with")
    one.add_argument("--recompute", action="store_true", help="judge leaderboard answers anew")

    one = add("notes", _notes, "execute the solved labs, and write what is to be expected of each")
    one.add_argument("--labs", nargs="+", default=[], metavar="NN", help="execute these alone")
    one.add_argument("--out", metavar="FILE", help="default: docs/instructor-notes.md")
    one.add_argument("--render", action="store_true", help="execute nothing: write pages anew")
    return parser


def _build(options: argparse.Namespace) -> int:
    from mspeckv_widgets.course.teaching.build import build

    folder = build(options.folder, options.blank)
    print(f"{folder}: read README.md there, then: mspeckv course judge {folder}")
    return 0


def _judge(options: argparse.Namespace) -> int:
    from mspeckv_widgets.course.teaching.judge import judge

    found = judge(options.folder, options.names)
    for one in found:
        print(one.describe())
    return 0 if all(one.holds for one in found) else 1


def _export(options: argparse.Namespace) -> int:
    from mspeckv_widgets.course.teaching import export_nbgrader, export_otter
    from mspeckv_widgets.course.teaching.assignments import read_labs

    labs = read_labs(options.source, options.labs)
    if options.nbgrader is not None:
        print(export_nbgrader.export(labs, options.nbgrader))
    else:
        print(export_otter.export(labs, options.otter))
    return 0


def _result(options: argparse.Namespace) -> int:
    from mspeckv_widgets.course.teaching.result import write_result

    path, signed = write_result(options.student, options.folder, options.out, options.key)
    print(path)
    if not signed:
        print("mspeckv: not signed: there is no key", file=sys.stderr)
    return 0


def _merge(options: argparse.Namespace) -> int:
    from mspeckv_widgets.course.teaching.merge import merge

    merged = merge(options.files, options.out, options.key, options.recompute)
    print(merged.describe())
    for line in merged.complaints:
        print(f"mspeckv: {line}", file=sys.stderr)
    return 1 if merged.complaints else 0


def _notes(options: argparse.Namespace) -> int:
    from mspeckv_widgets.course.teaching import notes

    for path in notes.write(options.labs, options.out, execute=not options.render):
        print(path)
    return 0
