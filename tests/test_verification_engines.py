"""The judge on engines as they come: transformers, this one, servers; and on what they promise."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import mspeckv.decoding.sampling
from mspeckv import KVPolicy, RunConfig, as_custom_generate
from mspeckv.settings import METHODS, Sampling
from mspeckv.testing import SMALL
from mspeckv_study.cli import main
from mspeckv_study.verification import Function, Report, Said, Trial, verify
from mspeckv_study.verification.adapters import Own, Transformers, engine_named
from mspeckv_study.verification.endpoint import Endpoint
from mspeckv_widgets.course.liars import P, Tables
from tests.random_models import random_pair, random_prompt

PAIR = random_pair("llama", layers=2, vocab=8, seed=3)
DROP_IN = as_custom_generate(PAIR.draft, speculation=SMALL)
PROMPT = random_prompt(40, vocab=8, seed=5)
TRIAL = Trial(checks=("greedy", "sampled"), samples=800, new_tokens=12, alpha=0.05, short=8)
IDS = [0, 1, 2, 3, 4, 5, 2, 0]


def outcome(report: Report, check: str) -> str:
    return next(one.outcome for one in report.findings if one.check.startswith(check))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "verdict"),
    [("plain", "lossless"), ("assisted", "lossless"), ("lookup", "lossless"),
     ("ensemble=0.5", "fault")],
)  # fmt: skip
def test_ways_of_transformers(way: str, verdict: str) -> None:
    engine = Transformers(PAIR.target, way, PAIR.draft)
    trial = replace(TRIAL, depth=1)
    report = verify(engine, Transformers(PAIR.target), {"random": PROMPT}, trial)
    assert report.verdict == verdict, report.to_text()


@pytest.mark.slow
def test_what_follows_kept_guesses_of_transformers() -> None:
    """Its rounds are told apart, and each kind of token is judged by itself."""
    engine = Transformers(PAIR.target, "assisted", PAIR.draft)
    trial = replace(TRIAL, checks=("sampled",), samples=250)
    report = verify(engine, Transformers(PAIR.target), {"random": PROMPT}, trial)
    assert report.verdict != "fault", report.to_text()
    after = [one for one in report.findings if "after" in one.check]
    assert len(after) == 2
    assert all(one.numbers["tokens"] > 20 for one in after)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_methods_of_this_engine(method: str) -> None:
    policy = KVPolicy(
        "full" if method == "triforce" else 4, on_chip=0, resident=1, block=16, group=16, tail=8
    )
    config = RunConfig(method, policy=policy, speculation=replace(SMALL, gamma=1))
    plain = Own(PAIR, replace(config, method="autoregressive"))
    report = verify(Own(PAIR, config), plain, {"random": PROMPT}, replace(TRIAL, depth=1))
    assert report.verdict == "lossless", report.to_text()


@pytest.mark.slow
def test_a_bug_that_is_planted_in_this_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The origin's flaw: after a rejection, draw from p instead of what q left of it."""
    monkeypatch.setattr(mspeckv.decoding.sampling, "residual", lambda target, proposal: target)
    config = RunConfig("vanilla", policy=KVPolicy("full"), speculation=SMALL)
    plain = Own(PAIR, replace(config, method="autoregressive"))
    report = verify(Own(PAIR, config), plain, {"random": PROMPT}, replace(TRIAL, depth=1))
    assert outcome(report, "greedy") == "lossless"
    assert outcome(report, "sampled: first tokens") == "fault"


def test_promises_of_transformers_and_of_its_drop_in() -> None:
    plain = Transformers(PAIR.target)
    trial = Trial(checks=("promises",), short=8)
    report = verify(plain, plain, {"random": PROMPT}, trial)
    assert outcome(report, "logprobs") == "lossless"
    assert outcome(report, "equal rows") == "lossless"
    assert outcome(report, "seeds") == "lossless"
    custom = Transformers(PAIR.target, f"custom={__name__}:DROP_IN")
    report = verify(custom, plain, {"random": PROMPT}, replace(trial, checks=("greedy",)))
    assert report.verdict == "lossless", report.to_text()


def test_logprobs_and_rounds_of_this_engine() -> None:
    engine = Own(PAIR, RunConfig("vanilla", policy=KVPolicy("full"), speculation=SMALL))
    said = engine.say(PROMPT, Sampling(0.0), 6, logprobs=True)
    assert len(said.logprobs) == len(said.tokens) == sum(said.rounds) == 6
    report = verify(engine, Transformers(PAIR.target), {"r": PROMPT}, Trial(checks=("promises",)))
    assert outcome(report, "logprobs") == "lossless", report.to_text()


@pytest.mark.parametrize(
    ("way", "check"),
    [("deaf", "end of sequence"), ("late", "end of sequence"), ("deaf", "repetition penalty"),
     ("one seed", "seeds"), ("off", "logprobs"), ("off", "equal rows")],
)  # fmt: skip
def test_broken_promises(way: str, check: str) -> None:
    trial = Trial(checks=("promises",))
    wrong = verify(Tables(way), Tables("plain"), {"ids": IDS}, trial)
    assert outcome(wrong, check) == "fault", wrong.to_text()
    right = verify(Tables(), Tables("plain"), {"ids": IDS}, trial)
    assert outcome(right, check) in ("lossless", "not enough samples")
    assert right.verdict != "fault"


def test_loops_in_every_other_text() -> None:
    trial = Trial(checks=("long",), texts=24)
    report = verify(Tables("loops"), Tables("plain"), {"ids": IDS}, trial)
    assert outcome(report, "long texts: repetition") == "fault", report.to_text()
    right = verify(Tables(), Tables("plain"), {"ids": IDS}, trial)
    assert outcome(right, "long texts: repetition") == "lossless", right.to_text()
    few = verify(Tables(), Tables("plain"), {"ids": IDS}, replace(trial, texts=4))
    assert outcome(few, "long texts: repetition") == "not enough samples"


def test_the_first_greedy_difference_and_near_ties(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(checks=("greedy",), new_tokens=20)
    report = verify(Tables("slip"), Tables("plain"), {"ids": IDS}, trial)
    assert report.verdict == "fault"
    assert report.findings[0].numbers["equal"] == 9
    assert "no near-tie" in report.findings[0].told
    tied = Tables("plain")
    monkeypatch.setattr(tied, "logits", lambda prompt, text: torch.zeros(6))
    near = verify(Tables("slip"), tied, {"ids": IDS}, trial)
    assert "a near-tie" in near.findings[0].told
    assert near.verdict == "not enough samples"
    blind = verify(Tables("slip"), Tables("plain", chances=False), {"ids": IDS}, trial)
    assert "no logits to say" in blind.findings[0].told


def test_time_and_cancelling_leave_a_report(tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    report = verify(Tables(), Tables("plain"), {"ids": IDS}, Trial(), out=tmp_path, cancel=cancel)
    assert not report.complete
    assert report.exit_code == 1


@pytest.mark.parametrize(
    ("gave", "message"),
    [([1] * 99, "99 tokens"), (["x"], "return a list"), (None, "return a list"),
     (ZeroDivisionError("oh"), "it raised ZeroDivisionError: oh")],
)  # fmt: skip
def test_a_function_that_answers_wrongly(gave: Any, message: str) -> None:
    def answer(prompt: list[int], sampling: Sampling, n: int) -> Any:
        if isinstance(gave, Exception):
            raise gave
        return gave

    with pytest.raises(ValueError, match=message):
        verify(answer, Tables("plain"), {"ids": IDS}, Trial(checks=("greedy",)))


class _Server(BaseHTTPRequestHandler):
    """Completions of `Tables`, in the mode that the server's address begins with."""

    engine: Any = Tables()
    body: bytes | None = None
    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(asked)
        if self.body is not None and self.body.isdigit():
            self.send_response(int(self.body))
            self.send_header("Location", "http://127.0.0.1:1/")
            self.end_headers()
            return
        rows = asked["prompt"] if isinstance(asked["prompt"][0], list) else [asked["prompt"]]
        sampling = Sampling(
            asked["temperature"], asked["top_p"], asked["seed"],
            stop_tokens=tuple(asked.get("stop_token_ids", ())),
            repetition_penalty=asked.get("repetition_penalty", 1.0),
        )  # fmt: skip
        said = [self.engine.say(row, sampling, asked["max_tokens"], True) for row in rows]
        choices = [self.choice(one) for one in said]
        found = self.body or json.dumps({"choices": choices}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(found)

    def choice(self, said: Said) -> dict[str, Any]:
        text = "".join("abcdef"[token] for token in said.tokens)
        held = {"token_logprobs": said.logprobs}
        return {"text": text, "token_ids": said.tokens, "logprobs": held}

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


class _Texts(_Server):
    def choice(self, said: Said) -> dict[str, Any]:
        return {"text": super().choice(said)["text"]}


@contextmanager
def served(way: str, body: bytes | None = None, kind: type[_Server] = _Server) -> Iterator[Any]:
    """A server's address, and what it was asked."""
    handler = type("Handler", (kind,), {"engine": Tables(way), "body": body, "asked": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_honest_server_and_a_dishonest_one() -> None:
    trial = Trial(checks=("greedy", "promises", "sampled"), depth=1, samples=800, alpha=0.05)
    with served("honest") as (address, handler):
        report = verify(Endpoint(address), Tables("plain"), {"ids": IDS}, trial)
        assert outcome(report, "sampled: first tokens") == "lossless", report.to_text()
        assert outcome(report, "greedy") == "lossless"
        assert outcome(report, "logprobs") == "lossless"
        assert outcome(report, "equal rows") == "lossless"
        assert {"prompt", "max_tokens", "seed", "temperature"} <= handler.asked[0].keys()
    with served("mixture") as (address, _):
        report = verify(Endpoint(address), Tables("plain"), {"ids": IDS}, trial)
        assert outcome(report, "greedy") == "fault"
        assert outcome(report, "sampled: first tokens") == "fault"


def test_two_servers_that_tell_text_alone() -> None:
    trial = Trial(checks=("sampled",), depth=1, samples=1500, alpha=0.05)
    with served("honest", kind=_Texts) as (one, _), served("plain", kind=_Texts) as (two, _):
        report = verify(Endpoint(one), Endpoint(two), {"ids": IDS}, trial)
    assert report.verdict in ("lossless", "not enough samples"), report.to_text()
    with served("unscaled", kind=_Texts) as (one, _), served("plain", kind=_Texts) as (two, _):
        report = verify(Endpoint(one), Endpoint(two), {"ids": IDS}, trial)
    assert report.verdict == "fault", report.to_text()


def test_text_alone_is_not_judged_by_logits() -> None:
    with served("honest", kind=_Texts) as (address, _), pytest.raises(ValueError, match="no token"):
        verify(Endpoint(address), Tables("plain"), {"ids": IDS}, Trial(checks=("greedy",)))


def test_a_server_that_does_not_know_a_setting_is_no_liar() -> None:
    """Unless another server shows that it should."""
    trial = Trial(checks=("promises",))
    with served("deaf") as (address, _), served("honest") as (plain, _):
        alone = verify(Endpoint(address), Tables("plain"), {"ids": IDS}, trial)
        beside = verify(Endpoint(address), Endpoint(plain), {"ids": IDS}, trial)
        both = verify(Endpoint(address), Endpoint(address), {"ids": IDS}, trial)
    assert outcome(alone, "end of sequence") == "not offered"
    assert outcome(beside, "end of sequence") == "fault"
    assert outcome(both, "end of sequence") == "not offered"


def test_seeds_that_change_nothing_at_a_low_temperature() -> None:
    trial = Trial(checks=("promises",), sampling=Sampling(0.01, stop_at_eos=False))
    engine = Transformers(PAIR.target)
    report = verify(engine, engine, {"random": PROMPT}, trial)
    assert outcome(report, "seeds") != "fault", report.to_text()


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"500", "it answers 500"), (b"302", "it answers 302"), (b"<p>", "the answer is not JSON"),
     (b"[]", "no JSON object"), (b"{}", "no list of 1 choices"),
     (b'{"choices": [{}]}', "no completion")],
)  # fmt: skip
def test_a_server_that_answers_wrongly(
    body: bytes, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    document = tmp_path / "ids.json"
    document.write_text(json.dumps(IDS * 4), encoding="utf-8")
    with served("honest", body) as (address, _):
        words = ["verify", address, "--against", address, "--document", str(document)]
        assert main([*words, "--lengths", "16", "--quiet"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert f"{address}: " in said.err
    assert message in said.err


def test_nobody_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = tmp_path / "ids.json"
    document.write_text(json.dumps(IDS), encoding="utf-8")
    nobody = "http://127.0.0.1:9"
    words = ["verify", nobody, "--against", nobody, "--document", str(document), "--lengths", "8"]
    assert main([*words, "--quiet"]) == 2
    assert "nobody answers there" in capsys.readouterr().err


def test_nobody_there_is_found_out_before_any_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a pair was loaded")

    monkeypatch.setattr("mspeckv_study.cli.verify.load_pair", load)
    assert main(["verify", "http://127.0.0.1:9"]) == 2
    said = capsys.readouterr()
    assert "nobody answers there" in said.err
    assert said.err.count("\n") == 1, "one line, and no bar of progress"


def test_the_command_writes_its_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = tmp_path / "ids.json"
    document.write_text(json.dumps(IDS * 4), encoding="utf-8")
    place = "mspeckv_widgets.course.liars"
    words = ["--document", str(document), "--lengths", "32", "--checks", "greedy", "--quiet"]
    honest = ["verify", f"{place}:HONEST", "--against", f"{place}:PLAIN", *words]
    assert main([*honest, "--out", str(tmp_path / "out")]) == 0
    assert ": lossless" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"asked.jsonl", "report.txt", "report.json", "report.html"}
    assert main([*honest[:1], f"{place}:SLIP", *honest[2:], "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "fault"


@pytest.mark.parametrize(
    ("words", "message"),
    [("verify beam", "engine: 'beam'"), ("verify nowhere:name", "cannot be imported"),
     ("verify mspeckv --alpha 2", "alpha: 2.0"), ("verify mspeckv --checks all", "checks: 'all'"),
     ("verify mspeckv --lengths ten", "lengths: 'ten'"),
     ("verify mspeckv --temperature 0", "temperature: 0"),
     ("verify mspeckv --document nowhere.txt", "document: 'nowhere.txt'")],
)  # fmt: skip
def test_bad_input_is_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mspeckv_study.cli.verify.load_pair", lambda *_, **__: pytest.fail("loaded")
    )
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def test_engines_by_name() -> None:
    config = RunConfig("mspeckv", policy=KVPolicy(4))
    assert "mspeckv vanilla of" in engine_named("vanilla", PAIR, config).name
    assert engine_named("transformers:lookup", PAIR).name.startswith("transformers lookup")
    with pytest.raises(ValueError, match="use one of plain"):
        engine_named("transformers:beam", PAIR)
    assert isinstance(engine_named("tests.test_verification_engines:outcome"), Function)
    assert len(P) == len(P[0])
