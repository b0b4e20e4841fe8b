"""Style of what every panel stands in: tables in any output, full screen, the last picture."""

from __future__ import annotations

BIG = 20 / 13
"""By how much a panel that fills the screen is larger: controls and tables have 20 px type."""

# JupyterLab's rules for tables in a plain output name two classes and an element, and are loaded
# after ours or before, as it happens: these name three classes.
_TABLES = """\
.mskv-table.mskv-table.mskv-table { table-layout: auto; margin: 0 0 6px; }
.mskv-table.mskv-table.mskv-table :is(th, td) { border-bottom: 1px solid var(--mskv-grid);
  padding: 2px 6px; text-align: left; vertical-align: top; line-height: 1.35; }
.mskv-table.mskv-table.mskv-table .num { text-align: right; font-variant-numeric: tabular-nums; }
.mskv-table.mskv-table.mskv-table tr { background: none; }
.mskv-attempt.mskv-attempt { display: grid; grid-template-columns: max-content 1fr; gap: 2px 12px;
  margin: 4px 0 0; }
.mskv-attempt.mskv-attempt :is(dt, dd) { margin: 0; font-weight: inherit; min-width: 0; }
.mskv-attempt.mskv-attempt code { background: none; color: inherit; overflow-wrap: anywhere; }
.mskv-scroll { overflow-x: auto; max-width: 100%; }
.mskv-panel .widget-html { max-width: 100%; }
.mskv-panel .widget-html-content { min-width: 0; }
"""

_SCREEN = f"""\
.mskv-screen {{ position: absolute; top: 0; right: 0; padding: 4px; border: 0; border-radius: 3px;
  font-size: calc(15px * var(--mskv-scale, 1)); line-height: 0; cursor: pointer;
  background: transparent; color: var(--mskv-faint); }}
.mskv-screen:hover, .mskv-big .mskv-screen {{ color: var(--mskv-ink);
  background: var(--mskv-raised); }}
.mskv-panel:has(> .mskv-screen) > .jupyter-widgets:nth-child(2) {{ padding-right: 30px;
  box-sizing: border-box; }}
.mskv-big {{ --mskv-scale: {BIG}; --jp-widgets-font-size: 20px; --jp-widgets-inline-height: 40px;
  --jp-widgets-inline-width: 460px; --jp-widgets-inline-width-short: 222px;
  --jp-widgets-inline-width-tiny: 108px; --jp-widgets-inline-label-width: 124px;
  --jp-widgets-radio-item-height: 34px; --jp-widgets-horizontal-tab-height: 40px;
  --jp-widgets-horizontal-tab-width: 240px; --jp-widgets-slider-handle-size: 22px;
  font-size: 20px; padding: 16px 24px; box-sizing: border-box; overflow: auto; }}
.mskv-big :is(.jupyter-button, .widget-label, .widget-readout, .widget-html-content, select, input,
  textarea, label, .lm-TabBar-tab, .mskv-small, .mskv-key, caption, summary, pre)
  {{ font-size: 20px; }}
.mskv-big .jupyter-button {{ height: 40px; line-height: 40px; }}
.mskv-big > * {{ flex-shrink: 0; }}
.mskv-big :is(.widget-hslider, .widget-dropdown, .widget-text, .widget-inline-hbox)
  {{ max-width: none; }}
"""

_GONE = """\
.mskv-gone { border-left: 4px solid #E69F00; padding: 4px 10px; margin: 2px 0 6px;
  background: var(--mskv-raised); color: var(--mskv-ink); line-height: 1.4;
  font-size: calc(14px * var(--mskv-scale, 1)); }
.mskv-rest.mskv-rest::before, .mskv-rest.mskv-rest .jupyter-widgets-disconnected::before,
.mskv-panel.jupyter-widgets-disconnected.jupyter-widgets-disconnected::before,
.mskv-panel.jupyter-widgets-disconnected .jupyter-widgets-disconnected::before { display: none; }
.mskv-rest > :not(.mskv-gone), .mskv-last img { filter: grayscale(1) opacity(0.75); }
.mskv-rest:not(.mskv-big) > .mskv-screen { display: none; }
body[data-jp-theme-light="false"] .mskv-last img:not(.mskv-night),
body[data-jp-theme-light="true"] .mskv-last img.mskv-night
  { filter: grayscale(1) invert(1) opacity(0.75); }
.mskv-last .mskv-gone { animation: mskv-appear 2s step-end; }
@keyframes mskv-appear { from { visibility: hidden; position: absolute; } }
"""

FRAME_RULES = _TABLES + _SCREEN + _GONE
