"""What `mspeckv doctor` says of files on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mspeckv.api import usual_weights
from mspeckv.cli import doctor, main
from mspeckv.models import checksums, download


def test_every_file_of_the_package_is_whole_and_listed() -> None:
    """After a change: ``cd mspeckv/data && sha256sum *.safetensors published/* > SHA256SUMS``."""
    assert doctor.damaged_package() == []
    found = [*doctor.DATA.glob("*.safetensors"), *(doctor.DATA / "published").iterdir()]
    listed = checksums.read_list(doctor.DATA)
    assert listed.keys() == {path.relative_to(doctor.DATA).as_posix() for path in found}


@pytest.mark.parametrize(
    "name", ["draft-smollm2-2layer.safetensors", "published/A1_accepted.csv", "SHA256SUMS"]
)
def test_damaged_files_of_the_package_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(doctor.DATA, data)
    (data / name).write_bytes(b"x")
    monkeypatch.setattr(doctor, "DATA", data)
    assert main(["doctor"]) == 2
    said = capsys.readouterr().out
    assert f"package    DAMAGED: {name} in {data}; run: pip install --force-reinstall" in said
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
