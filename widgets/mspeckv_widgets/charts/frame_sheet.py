"""Style of what every panel stands in: the last picture, full screen, tables in any output."""

from __future__ import annotations

FRAME_RULES = """\
.mskv-gone { border-left: 4px solid #E69F00; padding: 4px 10px; margin: 2px 0 6px;
  background: var(--mskv-raised); color: var(--mskv-ink); font-size: 14px; line-height: 1.4; }
.mskv-rest.mskv-rest::before, .mskv-rest.mskv-rest .jupyter-widgets-disconnected::before,
.mskv-panel.jupyter-widgets-disconnected.jupyter-widgets-disconnected::before,
.mskv-panel.jupyter-widgets-disconnected .jupyter-widgets-disconnected::before { display: none; }
.mskv-rest > :not(.mskv-gone), .mskv-last img { filter: grayscale(1) opacity(0.75); }
body[data-jp-theme-light="false"] .mskv-last img:not(.mskv-night),
body[data-jp-theme-light="true"] .mskv-last img.mskv-night
  { filter: grayscale(1) invert(1) opacity(0.75); }
.mskv-last .mskv-gone { animation: mskv-appear 2s step-end; }
@keyframes mskv-appear { from { visibility: hidden; position: absolute; } }
"""
