"""The machine behind the live panel's predictions: assumed, then measured once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from mspeckv import Pair, RunSummary
from mspeckv.settings import Link
from mspeckv_study.whatif import HARDWARE, MODELS, kept_machine, model_shape, slowdown, this_machine
from mspeckv_widgets.panels.prediction import Model
from mspeckv_widgets.record import RunRecord

ASSUMED = HARDWARE["laptop-cpu"]
"""Until this machine has been measured."""
DEFAULT_SHAPE = MODELS["smollm2-135m"]
SLOWER = 1.25
"""From here on a run is called slower than is usual."""
DRAWN = 1.5
"""Passes of a panel's run may take so many times as long as calibrated ones: a browser that draws
it shares two cores with them. Medians of such runs, as recorded: 1.3 to 1.7 times."""


class Machine:
    """The cost model of a pair on this machine, as far as it is known.

    Args:
        pair: the panel's, where it is there already.

    Attributes:
        model: predicts settings.
    """

    def __init__(self, pair: Pair | None) -> None:
        self.model = Model(DEFAULT_SHAPE, ASSUMED)
        self._origin: float | None = None
        self._judged: tuple[RunSummary | None, str] = None, ""
        if pair is not None:
            self.bind(pair)

    def bind(self, pair: Pair) -> None:
        """Predict for a pair from now on, by what is kept of this machine, if anything is."""
        shape = model_shape(pair.target)
        found = kept_machine(pair.device.type, pair)
        self.model = Model(shape, found or ASSUMED)

    @property
    def measured(self) -> bool:
        """Whether predictions are for this machine."""
        return self.model.measured

    def measure(self, pair: Pair) -> None:
        """Measure the machine; some ten seconds."""
        self.model = Model(
            self.model.shape, this_machine(pair.device.type, pair), self.model.origin
        )

    def learn(self, records: Sequence[RunRecord]) -> bool:
        """Take over the ``origin`` link's bandwidth once a run has had it; whether it is news."""
        for record in records:
            summary = record.summary
            if record.timed and summary and record.setting.config.link == Link("origin"):
                news = self.model.origin != summary.link.gbps
                self.model.origin = summary.link.gbps
                return news
        return False

    @property
    def words(self) -> str:
        """Which machine the model has in mind."""
        if self.measured:
            return "Modelled for this machine as it was measured"
        return "Modelled for an assumed laptop, until the first run measures this machine"

    def slower(self, records: Sequence[RunRecord]) -> str:
        """A warning if the newest run that ended was slower than runs here usually are.

        Its passes' median time is set against that of the calibration's own runs. What is usual
        then: what a browser costs, `DRAWN`, or what the calibration's own runs differed by if that
        is more.
        """
        newest = next((one for one in records if one.timed), None)
        if not self.measured or newest is None:
            return ""
        if self._judged[0] is not newest.summary:
            self._judged = newest.summary, self._judge(newest)
        return self._judged[1]

    def _judge(self, record: RunRecord) -> str:
        machine = self.model.machine
        passes = [one for each in record.rounds for one in each.passes]
        ratio = slowdown(machine, passes, record.decode_transfers)
        if ratio is None:
            return ""
        own = machine.own or (1.0,)
        if ratio < SLOWER * max(DRAWN, max(own) / median(own)):
            return ""
        return (
            f"This machine is now {ratio:.1f} times slower than when it was calibrated. "
            "Bytes are as certain as ever; times are not."
        )
