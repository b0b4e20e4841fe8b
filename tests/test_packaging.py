"""The three packages install, from this checkout and from a built wheel, with their data."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import mspeckv

ROOT = Path(__file__).resolve().parents[1]
IMPORT_ALL = """
import sys
from importlib.resources import files
from pathlib import Path
import mspeckv, mspeckv_study, mspeckv_widgets
home = Path(sys.argv[1])
for package in (mspeckv, mspeckv_study, mspeckv_widgets):
    assert Path(package.__file__).is_relative_to(home), package.__file__
data = files("mspeckv") / "data"
assert (data / "draft-smollm2-2layer.safetensors").is_file()
assert (data / "draft-smollm2-2layer.md").is_file()
published = files("mspeckv_study") / "data" / "published"
assert sum(name.name.endswith(".csv") for name in published.iterdir()) == 6
assert hasattr(mspeckv_widgets, "LiveLab")
scripts = {str(path.relative_to(home)) for path in (home / "mspeckv_widgets").rglob("*.js")}
assert scripts == set(sys.argv[2:]), scripts
"""


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    environment = {"PYTHONPATH": str(path)} if path else {}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_folder_with_code_is_packaged() -> None:
    """setuptools finds packages by their ``__init__.py``, and passes over a folder without one."""
    for home in ("mspeckv", "study/mspeckv_study", "widgets/mspeckv_widgets"):
        for path in (ROOT / home).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_the_engine_imports_no_widgets_and_no_charts() -> None:
    for path in [*(ROOT / "mspeckv").rglob("*.py"), *(ROOT / "study").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & {"ipywidgets", "plotly"}, path


def test_checkout_is_installed() -> None:
    import mspeckv_study
    import mspeckv_widgets

    assert Path(mspeckv.__file__ or "").parent == ROOT / "mspeckv"
    assert Path(mspeckv_study.__file__ or "").parent == ROOT / "study" / "mspeckv_study"
    assert Path(mspeckv_widgets.__file__ or "").parent == ROOT / "widgets" / "mspeckv_widgets"


LAZY = """
import sys
import mspeckv_widgets
heavy = {"torch", "ipywidgets", "plotly", "mspeckv"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert set(mspeckv_widgets.__all__) <= set(dir(mspeckv_widgets))
for name in mspeckv_widgets.__all__:
    assert getattr(mspeckv_widgets, name).__name__ == name
# a grammar that takes seconds to compile, for a format that no schema here has
assert "jsonschema" in sys.modules and "lark" not in sys.modules
import rfc3987_syntax
"""


def test_panels_load_when_they_are_asked_for() -> None:
    run(sys.executable, "-c", LAZY, cwd=ROOT)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution, and the wheel made of it, from a copy of what is kept."""
    return build(tmp_path_factory.mktemp("built"))


def build(home: Path) -> Path:
    """Build in a copy of the checkout under ``home``; returns the folder of what comes of it."""
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("mspeckv", "study", "widgets", "labs", "docs"):
        shutil.copytree(ROOT / name, home / "source" / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore"):
        shutil.copyfile(ROOT / name, home / "source" / name)
    # what work leaves behind is not packaged
    (home / "source" / "labs" / ".mspeckv-progress.json").write_text("{}")
    (home / "source" / "mspeckv" / "__pycache__").mkdir()
    (home / "source" / "mspeckv" / "__pycache__" / "api.pyc").write_bytes(b"")
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", home / "dist")
    run(*command, home / "source", cwd=home)
    return home / "dist"


@pytest.mark.slow
def test_two_builds_are_the_same_bytes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files with other times, under another mask, at another time, in another folder."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    mask = os.umask(0o077)
    try:
        first, second = build(tmp_path / "one"), build(tmp_path / "another")
    finally:
        os.umask(mask)
    for path in built.iterdir():
        assert (first / path.name).read_bytes() == (second / path.name).read_bytes(), path.name
    assert len(list(built.iterdir())) == 2


@pytest.mark.slow
def test_the_wheel_holds_what_it_should_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        stated = archive.read(f"mspeckv-{mspeckv.__version__}.dist-info/METADATA").decode()
    homes = {
        "mspeckv": ROOT / "mspeckv",
        "mspeckv_study": ROOT / "study" / "mspeckv_study",
        "mspeckv_widgets": ROOT / "widgets" / "mspeckv_widgets",
        "mspeckv_study/data/course/labs": ROOT / "labs",
        "mspeckv_study/data/course/docs": ROOT / "docs",
    }
    left = ("__pycache__", ".ipynb_checkpoints")
    wanted = {
        f"{home}/{path.relative_to(folder).as_posix()}"
        for home, folder in homes.items()
        for path in folder.rglob("*")
        if path.is_file() and not set(left) & set(path.parts) and not path.name.startswith(".")
    }
    assert names == wanted
    assert f"\nVersion: {mspeckv.__version__}\n" in stated
    assert "\nProvides-Extra: lab\n" in stated


AWAY = "import sys; from mspeckv_study.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.slow
def test_the_wheel_works_without_a_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    target, work = tmp_path / "target", tmp_path / "work"
    work.mkdir()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=work)
    scripts = [path.relative_to(ROOT / "widgets") for path in (ROOT / "widgets").rglob("*.js")]
    assert scripts
    run(sys.executable, "-c", IMPORT_ALL, target, *scripts, cwd=work, path=target)
    said = run(sys.executable, "-c", AWAY, "--version", cwd=work, path=target)
    assert said == f"mspeckv {mspeckv.__version__}\n"
    run(sys.executable, "-c", AWAY, "lab", "--prepare-only", cwd=work, path=target)
    for name in ("labs", "docs"):
        for path in (ROOT / name).rglob("*.??*"):
            if path.is_file() and not any(part.startswith(".") for part in path.parts):
                copy = work / "mspeckv-labs" / path.relative_to(ROOT)
                assert copy.read_bytes() == path.read_bytes()


def test_the_version_is_said_in_one_way() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" in settings["project"]["dynamic"]
    assert f"\nversion: {mspeckv.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    newest = re.search(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == mspeckv.__version__


WORK, SET_UP = ("lab", "demo"), ("lab", "demo", "profile", "cluster", "test")
"""Extras that `make lab` and the conda environment install, and that `make setup` does."""


def test_every_way_to_set_up_installs_the_same_extras() -> None:
    made = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    assert f"LAB := {','.join(WORK)}" in made
    assert f"EXTRAS := {','.join(SET_UP)}" in made
    assert f"-e .[{','.join(WORK)}]\n" in (ROOT / "environment.yml").read_text(encoding="utf-8")


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
