"""docs/reading.md leads through everything that a real round passes, and its links are right."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
MOST_FILES, MOST_LINES, MOST_FILES_OF_BYTES = 9, 1_700, 5

TRACE = """
import sys
from pathlib import Path
import mspeckv
from mspeckv import KVPolicy, RunConfig, Sampling, stream
from mspeckv.testing import SMALL, tiny_pair, tiny_prompt

root = Path(mspeckv.__file__).resolve().parents[1]
seen = {}

def note(frame, event, _):
    path = Path(frame.f_code.co_filename)
    if event == "call" and root in path.parents and "mspeckv" in path.parts[len(root.parts):]:
        seen.setdefault(str(path.relative_to(root)), set()).add(frame.f_code.co_name)

policy = KVPolicy(8, on_chip=WHERE[0], resident=WHERE[1], block=16, tail=8)
config = RunConfig(policy=policy, speculation=SMALL, sampling=Sampling(0.8), new_tokens=12)
run = stream(tiny_pair(), tiny_prompt(), config)
next(run)
sys.setprofile(note)
next(run)
sys.setprofile(None)
print(*sorted(seen))
print(*sorted({name for names in seen.values() for name in names}))
"""


def passed(on_chip: int, resident: int) -> tuple[set[str], set[str]]:
    """Files and functions of the package that one round passes, accelerations off."""
    done = subprocess.run(
        [sys.executable, "-c", f"WHERE = {on_chip, resident}\n{TRACE}"], cwd=ROOT, check=True,
        capture_output=True, text=True,
        env={"MSPECKV_ACCELERATE": "none", "PATH": "", "PYTHONPATH": str(ROOT), "HOME": "/tmp"},
    )  # fmt: skip
    files, names = done.stdout.splitlines()
    return set(files.split()), set(names.split())


def section(title: str) -> str:
    """The text under a heading."""
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def opened(title: str) -> list[str]:
    """The files that a walk opens, in order."""
    links = re.findall(r"\]\(\.\./(mspeckv/[\w/]+\.py)#L", section(title))
    return list(dict.fromkeys(links))


def named() -> set[str]:
    """The files that are passed without stopping."""
    return set(
        re.findall(r"\| `(mspeckv/[\w/]+\.py)` \|", section("What you pass without stopping"))
    )


def lines(path: str) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def test_a_round_is_read_in_few_files_and_lines() -> None:
    walk = opened("One round")
    assert len(walk) <= MOST_FILES
    assert sum(map(lines, walk)) <= MOST_LINES, {path: lines(path) for path in walk}
    assert len(opened("One offloaded layer's bytes")) <= MOST_FILES_OF_BYTES


def test_nothing_that_a_round_passes_is_missing() -> None:
    files, _ = passed(on_chip=1, resident=1)
    # the round begins inside the run: what comes before it is in the walk by name
    begun = {"mspeckv/api.py", "mspeckv/decoding/tiers.py"}
    assert files <= set(opened("One round")) | named()
    assert set(opened("One round")) - begun <= files
    assert named() <= files


def test_an_offloaded_layers_bytes_pass_the_files_of_their_walk() -> None:
    files, names = passed(on_chip=0, resident=0)
    walk = opened("One offloaded layer's bytes")
    assert set(walk) <= files
    assert set(re.findall(r"`\w+\.(\w+)`\]", section("One offloaded layer's bytes"))) - names <= {
        # on the link's own thread
        "_carry"
    }
    elsewhere = set(opened("One round")) | named()
    assert files <= elsewhere | set(walk)


def test_links_lead_to_their_lines() -> None:
    done = subprocess.run([sys.executable, ROOT / "tools" / "reading.py", "--check"], check=False)
    assert done.returncode == 0, "run python tools/reading.py"
