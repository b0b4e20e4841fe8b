"""The live panel's tab with a moving picture: of the run at work, round by round, or the newest."""

from __future__ import annotations

import ipywidgets as widgets

from mspeckv import Event, Pair
from mspeckv_widgets.panel import close_all
from mspeckv_widgets.panels.moving.moving_round import MovingRound
from mspeckv_widgets.record import RunRecord

_EMPTY = '<em class="mskv-small">The newest run is shown here, round by round.</em>'


class MovingTab:
    """A run as a moving picture that grows with it; `box` is what is shown.

    It does nothing unless it is told to show a run, so a tab that is closed costs nothing.
    """

    def __init__(self) -> None:
        self.box = widgets.VBox([widgets.HTML(_EMPTY)])
        self.picture: MovingRound | None = None
        self._number, self._taken = 0, 0
        self._first: object = None

    def show(self, record: RunRecord | None, pair: Pair | None) -> None:
        """Show a run as far as it is; what was shown of it before is only added to.

        Nothing is changed without a run, or for one that was recorded elsewhere.
        """
        if record is None or pair is None or record.pieces is not None:
            return
        if self.picture is None or not self._goes_on(record):
            self._begin(record, pair)
            return
        for one in record.rounds[self._taken :]:
            self.picture.add(one)
        if record.summary is not None and not self.picture.picture.over:
            self.picture.add(record.summary)
        self._note(record)

    def clear(self) -> None:
        """Show nothing, and forget what was shown."""
        self._let_go()
        self.box.children = (widgets.HTML(_EMPTY),)
        self._number, self._taken, self._first = 0, 0, None

    def _let_go(self) -> None:
        """Take the shown picture from the page and from what keeps widgets alive."""
        shown, self.picture = self.picture, None
        self.box.children = ()
        if shown is not None:
            close_all(shown.panel)

    def _goes_on(self, record: RunRecord) -> bool:
        """Whether this is the run that is shown; after a reset numbers begin anew."""
        same = self._first is None or (record.rounds and record.rounds[0] is self._first)
        return record.number == self._number and bool(same)

    def _begin(self, record: RunRecord, pair: Pair) -> None:
        policy = record.setting.config.policy
        events: list[Event] = [*record.rounds]
        if record.summary is not None:
            events.append(record.summary)
        self._let_go()
        self.picture = MovingRound(events, pair, policy)
        self.picture.picture.over = record.summary is not None
        self.box.children = (self.picture.panel,)
        self._note(record)

    def _note(self, record: RunRecord) -> None:
        self._number, self._taken = record.number, len(record.rounds)
        self._first = record.rounds[0] if record.rounds else None
