"""What `mspeckv doctor` says of files on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mspeckv.api import usual_weights
from mspeckv.models import checksums, download
from mspeckv_study.cli import doctor, main


def test_every_file_of_the_package_is_whole_and_listed() -> None:
    """After a change: ``sha256sum *.safetensors`` or ``published/*`` in data, to SHA256SUMS."""
    assert doctor.damaged_package() == []
    engine, study = doctor.DATA
    for folder, found in ((engine, engine.glob("*.safetensors")), (study, study.glob("*/*.csv"))):
        listed = checksums.read_list(folder)
        assert listed
        assert listed.keys() == {path.relative_to(folder).as_posix() for path in found}


@pytest.mark.parametrize(
    ("place", "name"),
    [(0, "draft-smollm2-2layer.safetensors"), (1, "published/A1_accepted.csv"), (1, "SHA256SUMS")],
)
def test_damaged_files_of_the_package_are_named(
    place: int,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tuple(tmp_path / folder for folder in ("engine", "study"))
    for own, copy in zip(doctor.DATA, data, strict=True):
        shutil.copytree(own, copy)
    (data[place] / name).write_bytes(b"x")
    monkeypatch.setattr(doctor, "DATA", data)
    assert main(["doctor"]) == 2
    said = capsys.readouterr().out
    assert (
        f"package    DAMAGED: {name} in {data[0]}, {data[1]}; run: pip install --force-reinstall"
        in said
    )
    assert "self-test  FAILED: a damaged file (see above)" in said


def test_a_damaged_model_is_named_with_what_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = download.model_folder()
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path))
    folder = download.model_folder()
    folder.mkdir()
    for name in download.CONVERTED:
        (folder / name).symlink_to(whole / name)
    assert download.damaged_files() == []
    (folder / "tokenizer.json").unlink()
    assert main(["doctor"]) == 2
    said = capsys.readouterr().out
    assert f"model      DAMAGED: tokenizer.json in {folder}; run: mspeckv fetch" in said


def test_a_cuda_build_without_a_gpu_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for build, told in ((None, False), ("13.0", True)):
        monkeypatch.setattr("torch.version.cuda", build)
        assert main(["doctor"]) == 1  # without a model there is no self-test
        assert ("its CPU build saves gigabytes" in capsys.readouterr().out) == told


@pytest.mark.parametrize("form", download.FORMS)
def test_one_form_of_the_model_is_looked_over_as_it_is(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = download.ready(form=form)
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path))
    folder = download.model_folder(form)
    folder.symlink_to(whole)
    found = doctor.examine()
    assert found["model"] == {"present": True, "damaged": [], "folder": str(folder)}
    if form == usual_weights("default"):
        assert found["self_test"]["passed"]
    else:
        # which would be another 93 MB
        assert found["self_test"]["reason"] == "the default model is absent; run: mspeckv fetch"
