"""Both packages install, from this checkout and from a built wheel, with their data."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IMPORT_BOTH = """
import sys
from importlib.resources import files
from pathlib import Path
import mspeckv, mspeckv_widgets
home = Path(sys.argv[1])
for package in (mspeckv, mspeckv_widgets):
    assert Path(package.__file__).is_relative_to(home), package.__file__
data = files("mspeckv") / "data"
assert (data / "draft-smollm2-2layer.safetensors").is_file()
assert (data / "draft-smollm2-2layer.md").is_file()
assert sum(name.name.endswith(".csv") for name in (data / "published").iterdir()) == 6
assert hasattr(mspeckv_widgets, "LiveLab")
scripts = {str(path.relative_to(home)) for path in (home / "mspeckv_widgets").rglob("*.js")}
assert scripts == set(sys.argv[2:]), scripts
"""


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> None:
    environment = {"PYTHONPATH": str(path)} if path else {}
    import os

    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_with_code_is_packaged() -> None:
    """setuptools finds packages by their ``__init__.py``, and passes over a folder without one."""
    for home in ("mspeckv", "widgets/mspeckv_widgets"):
        for path in (ROOT / home).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_the_engine_imports_no_widgets_and_no_charts() -> None:
    for path in (ROOT / "mspeckv").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & {"ipywidgets", "plotly"}, path


def test_checkout_is_installed() -> None:
    import mspeckv
    import mspeckv_widgets

    assert Path(mspeckv.__file__ or "").parent == ROOT / "mspeckv"
    assert Path(mspeckv_widgets.__file__ or "").parent == ROOT / "widgets" / "mspeckv_widgets"


LAZY = """
import sys
import mspeckv_widgets
heavy = {"torch", "ipywidgets", "plotly", "mspeckv"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert set(mspeckv_widgets.__all__) <= set(dir(mspeckv_widgets))
for name in mspeckv_widgets.__all__:
    assert getattr(mspeckv_widgets, name).__name__ == name
"""


def test_panels_load_when_they_are_asked_for() -> None:
    run(sys.executable, "-c", LAZY, cwd=ROOT)


@pytest.mark.slow
def test_built_wheel_holds_everything(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    # A copy, so that building leaves nothing in the checkout.
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("mspeckv", "widgets"):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("mspeckv-*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=tmp_path)
    scripts = [path.relative_to(ROOT / "widgets") for path in (ROOT / "widgets").rglob("*.js")]
    assert scripts
    run(sys.executable, "-c", IMPORT_BOTH, target, *scripts, cwd=tmp_path, path=target)


SET_UP = ("lab", "demo", "profile", "cluster", "test")
"""Extras that `make setup` and the conda environment install."""


def test_every_way_to_set_up_installs_the_same_extras() -> None:
    for name in ("Makefile", "environment.yml"):
        assert ",".join(SET_UP) in (ROOT / name).read_text(encoding="utf-8"), name


def test_constraints_pin_every_direct_dependency() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = settings["optional-dependencies"]
    # the graders' environment is made from the same pins
    installed = [part for name in (*SET_UP, "teach") for part in extras[name]]
    wanted = [*settings["dependencies"], *installed]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    names = {part.split(">")[0].split("<")[0].strip().lower() for part in wanted}
    assert names <= pinned
    assert "torch==2.13.0" in lines
