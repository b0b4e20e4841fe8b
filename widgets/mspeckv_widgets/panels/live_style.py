"""How the live panel looks beyond the project's own style, and its status line."""

from __future__ import annotations

import html

from mspeckv_widgets.panels.machine import Machine
from mspeckv_widgets.panels.runner import View
from mspeckv_widgets.panels.worker import WAITS
from mspeckv_widgets.panels.worker_panel import status_line
from mspeckv_widgets.recording import SLOWER

LIVE_STYLE = """<style>
.mskv-tiles { display: flex; gap: 8px; container-type: inline-size; }
.mskv-tile { flex: 1 1 0; min-width: 0; border: 1px solid var(--mskv-grid); border-radius: 4px;
  padding: 2px 8px; line-height: 1.25; }
.mskv-headline { font-weight: 600; font-size: 1.2em; white-space: nowrap; }
.mskv-headline .mskv-small { font-weight: 400; font-size: 0.7em; }
.mskv-model { border-top: 1px dotted var(--mskv-faint); margin-top: 2px; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }
@container (max-width: 640px) { .mskv-model { white-space: normal; min-height: 2.5em; } }
.mskv-bars { margin: 2px 0; }
.mskv-bar-row { display: flex; align-items: center; gap: 6px; font-size: 0.9em;
  line-height: calc(20px * var(--mskv-scale, 1)); }
.mskv-bar-name { flex: 0 0 30%; line-height: 1.15; overflow-wrap: anywhere; }
.mskv-bar-value { flex: 0 0 calc(104px * var(--mskv-scale, 1)); text-align: right;
  font-variant-numeric: tabular-nums; }
.mskv-track { flex: 1 1 auto; position: relative; display: flex;
  height: calc(14px * var(--mskv-scale, 1)); }
.mskv-track > span { height: 100%; }
.mskv-modelled-bar .mskv-track > span { opacity: 0.45; outline: 1px dotted var(--mskv-ink); }
.mskv-whisker { position: absolute; top: calc(7px * var(--mskv-scale, 1) - 1px); height: 2px;
  background: var(--mskv-ink); }
.mskv-whisker::before, .mskv-whisker::after { content: ""; position: absolute; top: -4px;
  height: 10px; width: 2px; background: var(--mskv-ink); }
.mskv-whisker::before { left: 0; } .mskv-whisker::after { right: 0; }
.mskv-word { text-decoration: none; cursor: help; }
.mskv-word:hover { text-decoration: underline dotted; }
.mskv-swatch { display: inline-block; width: 10px; height: 10px; margin: 0 3px 0 8px; }
.mskv-said p { margin: 0 0 2px; line-height: 1.3; font-size: 0.92em; }
.mskv-live-story .mskv-story { max-height: calc(190px * var(--mskv-scale, 1)); }
.mskv-big :is(.mskv-headline .mskv-small, .mskv-bar-row, .mskv-said p) { font-size: 20px; }
</style>"""


def status_html(view: View, machine: Machine, kept_bytes: int) -> str:
    """The status line, with a progress bar where the end is known."""
    current = view.current
    done, total = 0, 0
    if view.state == "failed":
        words = html.escape(f"Not run: {view.error}")
    elif view.waits:
        words = WAITS
    elif view.state == "loading":
        words = "Loading the model pair (a few seconds; the first time it is converted)"
    elif view.state == "measuring":
        words = "Measuring this machine for the model, once (some ten seconds; Stop waits for it)"
    elif view.state == "replay":
        words = f"A recorded run, {SLOWER} times slower than it was. Stop, then Run, for a new one"
        if not view.busy:
            words = "That was a recorded run. Press Run for one of this machine"
    elif view.state == "rehearsal":
        words = "Profiling: first without the profiler, to know what it costs"
    elif view.state == "prefill" and current is not None:
        done, total = round(current.read * 100), 100
        words = "Reading the prompt"
    elif current is not None and view.state in ("decoding", "done", "stopped"):
        done, total = len(current.tokens), current.setting.config.new_tokens
        verb = {"decoding": "Decoding", "done": "Done", "stopped": "Stopped"}[view.state]
        words = f"{verb}: {done} of {total} tokens in {len(current.rounds)} rounds"
    else:
        words = "Ending the run" if view.busy else f"Ready: press Run. {machine.words}"
    if view.busy and view.turn[1] > 1:
        words = f"Run {view.turn[0]} of {view.turn[1]}. {words}"
    if not view.busy and kept_bytes:
        words += f". Prompts kept for the next run: {kept_bytes / 1e6:.0f} MB (counted)"
    return status_line(view.state, words, done, total if view.busy else 0)
