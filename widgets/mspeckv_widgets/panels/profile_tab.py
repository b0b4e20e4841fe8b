"""The live panel's tab for a profiled run: where its time went, and its trace to take away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import ipywidgets as ipw

from mspeckv import Profile
from mspeckv_widgets.panels.download import Download
from mspeckv_widgets.panels.profile_view import Timeline, rows_html

HINT = (
    '<div class="mskv-small">Press <b>Profile</b>: the setting runs twice, without PyTorch\'s '
    "profiler and with it, and this tab says where the time of the second run went.</div>"
)
PERFETTO = "https://ui.perfetto.dev"


class ProfileTab:
    """Timeline, table and downloads of the last profile; `box` is what is shown."""

    def __init__(self) -> None:
        self._said = ipw.HTML(HINT)
        self._views, self._rows = ipw.VBox(), ipw.HTML()
        self.trace = Download(
            "Open trace: download", f"A Chrome trace, for {PERFETTO}", "mspeckv-trace.json.gz",
            "application/gzip",
        )  # fmt: skip
        self.rows = Download(
            "Table: download", "The table as CSV", "mspeckv-profile.csv", "text/csv"
        )
        self.timeline: Timeline | None = None
        self.box = ipw.VBox([self._said, ipw.HBox([self.trace, self.rows]), self._views])

    def show(self, profile: Profile | None) -> None:
        """Draw a profile; None clears the tab."""
        self.trace.offer(_file(profile.export_trace, "trace.json.gz") if profile else None)
        self.rows.offer(_file(profile.export_csv, "rows.csv") if profile else None)
        if profile is None:
            self._views.children, self._said.value = (), HINT
            return
        self._said.value = said_html(profile)
        if self.timeline is None:
            self.timeline = Timeline(profile, widest_round(profile))
        else:
            self.timeline.take(profile, widest_round(profile))
        self._rows.value = rows_html(profile.rows)
        self._views.children = (self.timeline.panel, self._rows)

    @property
    def shown(self) -> bool:
        """Whether there is a profile to look at."""
        return bool(self._views.children)


def widest_round(profile: Profile) -> int:
    """The round that moved most over the link, to begin with."""
    return max(range(len(profile.rounds)), key=lambda index: profile.rounds[index].link_bytes())


def said_html(profile: Profile) -> str:
    """What was profiled, what holds it up, and what profiling itself cost."""
    tokens = sum(len(one.tokens) for one in profile.rounds)
    worst = profile.bottleneck
    cost = ""
    if profile.overhead is not None:
        cost = f" Profiling changed the time of a token by {profile.overhead:+.0%} (measured)."
    return (
        f'<div class="mskv-small">{len(profile.rounds)} rounds, {tokens} tokens, '
        f"{profile.wall_ms:.0f} ms (measured). Most time went to <b>{worst.step}</b>: "
        f"{worst.share:.0%}.{cost} The trace opens in "
        f'<a href="{PERFETTO}" target="_blank" rel="noopener">Perfetto</a>.</div>'
    )


def _file(export: Callable[[Path], Path], name: str) -> Callable[[], bytes]:
    """The bytes of an exported file, made when they are asked for."""

    def make() -> bytes:
        with TemporaryDirectory(prefix="mspeckv-") as folder:
            return export(Path(folder) / name).read_bytes()

    return make
