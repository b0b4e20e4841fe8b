"""Count the lines of the engine and of its study, and compare them with their budgets;
`make lint` fails beyond one.

A budget keeps the engine readable. Raising one is a commit of its own that says why; lowering one
comes with the lines that went.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, STUDY = ROOT / "mspeckv", ROOT / "study"
ROOT_MODULES = 7
"""Files in the package's own folder, beside `__init__`."""
BUDGETS = {
    "decoding": 1_500,
    "decoding, kv and root files": 6_010,
    "all of the engine": 14_000,
    "study": 10_285,
}


def lines(folder: Path, deep: bool = True) -> int:
    """Lines of Python in a folder, and below it if ``deep``."""
    files = folder.rglob("*.py") if deep else folder.glob("*.py")
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)


def counts() -> dict[str, int]:
    """Lines by the name of their budget."""
    decoding, kv = lines(PACKAGE / "decoding"), lines(PACKAGE / "kv")
    return {
        "decoding": decoding,
        "decoding, kv and root files": decoding + kv + lines(PACKAGE, deep=False),
        "all of the engine": lines(PACKAGE),
        "study": lines(STUDY),
    }


def main() -> int:
    """Print the counts; returns 1 where one is beyond its budget."""
    over = False
    for name, count in counts().items():
        over |= count > BUDGETS[name]
        print(f"{count:7,} of {BUDGETS[name]:6,} lines  {name}")
    modules = len(list(PACKAGE.glob("*.py"))) - 1
    print(f"{modules:7,} of {ROOT_MODULES:6,} files  beside __init__ in the package's own folder")
    return int(over or modules > ROOT_MODULES)


if __name__ == "__main__":
    sys.exit(main())
