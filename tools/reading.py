"""Line numbers of docs/reading.md, put right; ``--check`` says what is wrong instead.

A link such as ``[`Speculate.round`](../mspeckv/decoding/speculate.py#L105)`` is to lead to the line
on which that function or class is defined.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reading.md"
LINK = re.compile(r"\[`([\w.]+)`\]\(\.\./([\w/]+\.py)#L\d+\)")


def definitions(path: Path) -> dict[str, int]:
    """The line of every function and class of a file, by qualified name."""
    found: dict[str, int] = {}

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                # of overloads the last is the function itself
                found[prefix + node.name] = node.lineno
                look(node.body, f"{prefix}{node.name}.")

    look(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def corrected(text: str) -> str:
    """The page with every link's line as it is now.

    Raises:
        KeyError: a link to what there is not.
    """

    def place(link: re.Match[str]) -> str:
        name, path = link.groups()
        return f"[`{name}`](../{path}#L{definitions(ROOT / path)[name]})"

    return LINK.sub(place, text)


def main() -> int:
    """Rewrite the page, or return 1 if ``--check`` finds a wrong line."""
    text = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return int(corrected(text) != text)
    PAGE.write_text(corrected(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
