"""What the run's own events cost, against the run: they are always on.

    python -m benchmarks.overhead

Counts the events of a real run, measures what noting one costs in the same process, and prints the
share. Nothing is switched off, so nothing can hide in a difference between two runs.
"""

from __future__ import annotations

from benchmarks.report import machine, median_ms, table
from mspeckv import KVPolicy, Round, RunConfig, RunSummary, Sampling, load_pair, stream
from mspeckv.events import Guess, Pass, Transfer
from mspeckv.record import Ledger, Recorder
from mspeckv_study.documents import load_document

MANY = 200


def main() -> None:
    """Print the table."""
    pair = load_pair(weights="float")
    print(machine(pair.device), end="\n\n")
    assert pair.tokenizer is not None
    prompt = load_document("python-reference", pair.tokenizer, 1024)
    events = list(
        stream(
            pair,
            prompt,
            RunConfig.build(
                new_tokens=32,
                policy=KVPolicy(8, on_chip=10, resident=10),
                sampling=Sampling(temperature=0, stop_at_eos=False),
            ),
        )
    )
    rounds = [event for event in events if isinstance(event, Round)]
    summary = events[-1]
    assert isinstance(summary, RunSummary)
    run_ms = sum(one.ms for one in rounds)
    counts = {
        "pass": sum(len(one.passes) for one in rounds),
        "transfer": sum(len(one.transfers) for one in rounds),
        "guess": sum(len(one.guesses) for one in rounds),
    }
    costs = _costs_us()
    rows = [
        (name, counts[name], costs[name], counts[name] * costs[name] / 1e3 / run_ms)
        for name in counts
    ]
    total = sum(row[-1] for row in rows)
    print(table(("event", "in the run", "us each", "share of the run"), rows))
    print(f"all events: {total:.3%} of {run_ms:.0f} ms (measured)")


def _costs_us() -> dict[str, float]:
    """Microseconds to note, and take, one event of each kind."""
    recorder = Recorder(Ledger())

    def passes() -> None:
        for _ in range(MANY):
            recorder.passed(Pass(2, "verify", 9, 1 << 20, 0.0, 0.0), recorder.mark())
        recorder.take()

    def transfers() -> None:
        for _ in range(MANY):
            recorder.ledger.add(Transfer("to_device", "verify", 3, 2, 1 << 20, 0.0, 1.0))
        recorder.take()

    def guesses() -> None:
        tokens = tuple(range(8))
        for _ in range(MANY):
            recorder.tested(Guess(0, 2, tokens, 5, 8))
        recorder.take()

    works = {"pass": passes, "transfer": transfers, "guess": guesses}
    return {name: median_ms(work, 20) / MANY * 1e3 for name, work in works.items()}


if __name__ == "__main__":
    main()
