"""Badges go into every lab and leave it clean; their set-up cell works in an empty environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tools import badges

from .labs import LABS, NOTEBOOKS, load
from .test_notebooks import test_is_kept_clean as check_is_kept_clean
from .test_packaging import build

NAME = "someone/something"


@pytest.fixture
def labs(tmp_path: Path) -> Path:
    """A copy of the labs."""
    for path in NOTEBOOKS:
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


def test_every_lab_gets_both_and_stays_clean(labs: Path) -> None:
    assert badges.write(labs, NAME) == len(NOTEBOOKS)
    for path in sorted(labs.glob("*.ipynb")):
        check_is_kept_clean(path)
        lab, before = load(path), load(LABS / path.name)
        title, shown, code, *rest = lab.cells
        assert [title, *rest] == [
            cell for cell in before.cells if cell.id not in (badges.BADGES, badges.SETUP)
        ]
        assert f"/github/{NAME}/blob/main/labs/{path.name})" in shown.source
        assert f"/gh/{NAME}/main?labpath=labs/{path.name})" in shown.source
        assert f'"mspeckv[lab] @ git+https://github.com/{NAME}"' in code.source
        assert code.metadata.jupyter.source_hidden
    strip = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id"]
    assert subprocess.call([*strip, *map(str, labs.glob("*.ipynb"))]) == 0
    lint = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "labs/setup.py", "-"]
    assert not subprocess.run(
        lint, input=code.source + "\n", text=True, cwd=LABS.parent, check=False
    ).returncode


def test_once_more_changes_nothing_and_another_name_all(labs: Path) -> None:
    badges.write(labs, NAME)
    assert badges.write(labs, NAME) == 0
    assert badges.write(labs, "another/one") == len(NOTEBOOKS)
    assert NAME not in "".join(path.read_text() for path in labs.glob("*.ipynb"))


@pytest.mark.parametrize("name", ["nothing", "a/b/c", 'a/b"'])
def test_what_is_no_repository_is_refused(name: str, labs: Path) -> None:
    with pytest.raises(ValueError, match="use OWNER/NAME"):
        badges.write(labs, name)


COLAB = """\
import sys, types
def hear(): print("widgets on")
output = types.SimpleNamespace(enable_custom_widget_manager=hear)
sys.modules["google"] = types.ModuleType("google")
sys.modules["google.colab"] = types.ModuleType("google.colab")
sys.modules["google.colab"].output = output
"""
FOUND = "\nimport mspeckv_widgets; print(mspeckv_widgets.__file__)"


@pytest.mark.slow
def test_the_set_up_cell_installs_in_an_empty_environment(tmp_path: Path) -> None:
    """From a wheel here, without what it depends on: `make test-wheel` installs that too."""
    (wheel,) = build(tmp_path).glob("*.whl")
    venv.create(tmp_path / "empty", with_pip=True)
    code = badges.setup(f"mspeckv[lab] @ {wheel.as_uri()}")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_NO_DEPS": "1"}
    said = []
    for source in (code + FOUND, COLAB + code + FOUND):
        done = subprocess.run(
            [tmp_path / "empty/bin/python", "-c", source], env=environment, cwd=tmp_path,
            text=True, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
        wheel.unlink(missing_ok=True)  # the second time nothing is installed
    assert Path(said[0][-1]).is_relative_to(tmp_path / "empty")
    assert said[1] == ["widgets on", said[0][-1]]


def test_binder_builds_what_a_reader_needs() -> None:
    """repo2docker takes its files from `binder` where there is such a folder."""
    binder = LABS.parent / "binder"
    text = (binder / "environment.yml").read_text(encoding="utf-8")
    requirement = text.split("- -e ")[1].strip()
    report = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*report, "--quiet", "--dry-run", "--report", "-", "-e", requirement],
        cwd=binder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (found,) = json.loads(done.stdout)["install"]
    assert found["metadata"]["name"] == "mspeckv"
    assert found["requested_extras"] == ["lab"]
    assert os.access(binder / "postBuild", os.X_OK)
