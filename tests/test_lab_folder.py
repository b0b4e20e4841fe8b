"""`mspeckv lab` puts the labs into a folder, and never over what somebody has made there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mspeckv.models.checksums import LIST
from mspeckv_study.cli import labs, launch, main
from mspeckv_study.cli.labs import put_labs
from mspeckv_widgets.site import build as site
from mspeckv_widgets.site.build import put_pages

from .labs import LABS, NOTEBOOKS

FIRST = Path("labs") / launch.FIRST_LAB


def test_a_new_folder_gets_every_lab_with_what_it_links_to(tmp_path: Path) -> None:
    said = put_labs(tmp_path / "new")
    results = [path for path in (LABS / "results").rglob("*") if path.is_file()]
    for path in (*NOTEBOOKS, *(LABS / "solutions").glob("*.ipynb"), *results):
        copy = tmp_path / "new" / "labs" / path.relative_to(LABS)
        assert copy.read_bytes() == path.read_bytes()
    for path in (LABS.parent / "docs").glob("*.md"):
        assert (tmp_path / "new" / "docs" / path.name).read_bytes() == path.read_bytes()
    assert said.startswith(f"labs in {tmp_path / 'new'}: ")
    assert said.endswith(" files added")
    assert not list((tmp_path / "new").rglob(".*"))


def test_changed_notebooks_are_kept_and_new_ones_added(tmp_path: Path) -> None:
    put_labs(tmp_path)
    (tmp_path / FIRST).write_text("mine")
    (tmp_path / "labs" / "my_own.ipynb").write_text("mine too")
    (tmp_path / "labs" / "02_quantize.ipynb").unlink()
    said = put_labs(tmp_path)
    assert (tmp_path / FIRST).read_text() == "mine"
    assert (tmp_path / "labs" / "my_own.ipynb").read_text() == "mine too"
    assert (tmp_path / "labs" / "02_quantize.ipynb").is_file()
    assert f"1 files added, 1 files kept as you changed them: {FIRST} " in said
    # and so they stay, however often it is started
    put_labs(tmp_path)
    assert (tmp_path / FIRST).read_text() == "mine"


def test_an_untouched_notebook_of_an_earlier_release_is_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, folder = tmp_path / "release", tmp_path / "folder"
    monkeypatch.setattr(labs, "COURSE", release)
    (release / "labs").mkdir(parents=True)
    for name in ("a", "b"):
        (release / "labs" / name).write_text("old")
    put_labs(folder)
    (folder / "labs" / "b").write_text("mine")
    for name in ("a", "b", "c"):
        (release / "labs" / name).write_text("new")
    said = put_labs(folder)
    assert [(folder / "labs" / name).read_text() for name in "abc"] == ["new", "mine", "new"]
    assert "1 files added, 1 files renewed, 1 files kept as you changed them: labs/b " in said
    # what was kept never counts as this release's own
    (release / "labs" / "b").write_text("newer")
    put_labs(folder)
    assert (folder / "labs" / "b").read_text() == "mine"
    assert "labs/b" not in (folder / LIST).read_text()


def test_without_labs_here_a_folder_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "fetch_model", lambda: None)
    assert main(["lab", "--prepare-only"]) == 0
    assert (tmp_path / "mspeckv-labs" / FIRST).is_file()
    assert "Without installation, as a page: [A round, moving](../site/index.html)" in (
        tmp_path / "mspeckv-labs" / FIRST
    ).read_text("utf-8")
    assert (tmp_path / "mspeckv-labs" / "site" / "index.html").is_file()
    # inside of it they are served as they are
    monkeypatch.chdir(tmp_path / "mspeckv-labs")
    FIRST.write_text("mine")
    capsys.readouterr()
    assert main(["lab", "--prepare-only"]) == 0
    assert capsys.readouterr().err == ""
    assert FIRST.read_text() == "mine"


def test_pages_are_made_once_for_a_release_and_never_over_somebody_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(site, "build", made.append)
    assert put_pages(tmp_path) == f"pages in {tmp_path / 'site'}"
    assert put_pages(tmp_path) is None
    monkeypatch.setattr(site, "__version__", "0.0.9")
    assert put_pages(tmp_path) is not None
    # what an interrupted start left is made anew
    (tmp_path / "site" / site.STAMP).write_text("")
    put_pages(tmp_path)
    assert made == [tmp_path / "site"] * 3
    (tmp_path / "site" / site.STAMP).unlink()
    assert put_pages(tmp_path) is None, "a folder of that name that is not ours"
    assert len(made) == 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--folder", "one", "--labs", "two"], "folder: 'one' is not allowed; give --labs, "),
        (["--folder", "taken"], "folder: "),
        (["--folder", "one", "--port", "0"], "port: 0 is not allowed"),
    ],
)
def test_what_is_refused_leaves_nothing(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    assert main(["lab", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"mspeckv: {complaint}")
    assert [path.name for path in Path().iterdir()] == ["taken"]


def test_without_a_model_and_a_network_labs_open_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert main(["lab", "--folder", str(tmp_path / "labs"), "--prepare-only"]) == 0
    assert "the default model is not on this machine" in capsys.readouterr().err
