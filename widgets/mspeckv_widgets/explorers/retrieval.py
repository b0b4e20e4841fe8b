"""`RetrievalExplorer`: which chunks of a document tier 1 keeps, and how much attention they get."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

import ipywidgets as ipw

from mspeckv import AttentionProbe, Pair, RetrievalReport, Speculation, retrieval
from mspeckv_widgets.explorers.explorer import Explorer, choice, read_document, slider
from mspeckv_widgets.explorers.retrieval_charts import (
    build_figure,
    captured_html,
    chunk_texts,
    document_html,
    draw_figure,
    ranking_html,
)
from mspeckv_widgets.panel import panel

CHUNKS = (4, 8, 16, 32)


class RetrievalExplorer(Explorer):
    """Chunks by layer and head over a document's text, for budget, chunk size and policy.

    The document is read once; moving a control chooses anew from what was seen. From code,
    ``explorer.set(budget=128)`` moves controls (policy, budget, size, layer, head, chunk) and
    ``explorer.report`` is what is drawn.

    Args:
        pair: a loaded pair; its target reads the document.
        document: as in `mspeckv.documents.load_document`, or a list of token ids.
        tokens: of the document.
        speculation: settings that have no control here, such as ``recent``.

    Raises:
        ValueError: the document is too short or too long.
    """

    def __init__(
        self,
        pair: Pair,
        document: str | list[int] = "python-reference",
        tokens: int = 768,
        speculation: Speculation | None = None,
    ) -> None:
        super().__init__()
        prompt = read_document(pair, document, tokens)
        self._tokenizer = pair.tokenizer
        self._base = speculation or Speculation()
        self.probe = AttentionProbe(pair, prompt)
        self.report: RetrievalReport = self.probe.report(self._base)
        self._texts = self._chunk_texts()
        self.controls = self._build()
        self.buttons = {
            "back": self._button("Kept before", "Read the kept chunk before this one", -1),
            "on": self._button("Kept after", "Read the kept chunk after this one", 1),
        }
        self._read = ipw.HTML()
        self._captured, self._ranking, self._document = ipw.HTML(), ipw.HTML(), ipw.HTML()
        self.figure = build_figure()
        for name, control in self.controls.items():
            control.observe(self._observer(name), names="value")
        self.panel = self._assemble()
        self._draw()

    @property
    def place(self) -> tuple[int, int, int]:
        """Layer, head and chunk that are looked at."""
        layer, head, chunk = (int(self.controls[n].value) for n in ("layer", "head", "chunk"))
        return layer, head, chunk

    def _build(self) -> dict[str, Any]:
        layers, heads, chunks = self.report.mass.shape
        most = max(256, len(self.probe.tokens) // 8 * 8)
        return {
            "policy": choice("Policy", retrieval.names(), self._base.retrieval),
            "budget": slider("Budget, tokens", most, self._base.budget, 64, 8),
            "size": choice("Chunk, tokens", sorted({*CHUNKS, self._base.chunk}), self._base.chunk),
            "layer": slider("Layer", layers - 1),
            "head": slider("KV head", heads - 1),
            "chunk": slider("Read chunk", chunks - 1),
        }

    def _button(self, words: str, tip: str, way: int) -> Any:
        button = ipw.Button(description=words, tooltip=tip, layout={"width": "auto"})
        button.on_click(lambda _: self._step(way))
        return button

    def _step(self, way: int) -> None:
        """Read the next kept chunk of this head in one direction, if there is one."""
        layer, head, chunk = self.place
        kept = self.report.chosen[layer, head]
        there = kept[kept > chunk][:1] if way > 0 else kept[kept < chunk][-1:]
        if len(there):
            self.controls["chunk"].value = int(there[0])

    def _assemble(self) -> Any:
        half = {"flex": "1 1 360px", "min_width": "280px", "padding": "0 12px 0 0"}
        controls = ipw.VBox([*self.controls.values(), ipw.HBox(list(self.buttons.values()))])
        top = ipw.HBox(
            [controls, ipw.VBox([self._captured, self._status], layout=half)],
            layout={"flex_flow": "row wrap"},
        )
        bottom = ipw.HBox(
            [
                ipw.VBox([self._read, self._ranking], layout=half),
                ipw.VBox([self._document], layout=half),
            ],
            layout={"flex_flow": "row wrap"},
        )
        return panel("Retrieval explorer", [top, self.figure, bottom])

    def _observer(self, name: str) -> Any:
        def changed(_: Any) -> None:
            with self._lock:
                if name in ("policy", "budget", "size") and not self._choose():
                    return
                self._draw()

        return changed

    def _choose(self) -> bool:
        """Make the report that the controls ask for; says why where there is none."""
        values = {name: control.value for name, control in self.controls.items()}
        try:
            wanted = replace(
                self._base,
                budget=values["budget"],
                chunk=values["size"],
                retrieval=values["policy"],
            )
            self.report = self.probe.report(wanted)
        except ValueError as error:
            self._say(str(error), "mskv-error")
            return False
        self._texts = self._chunk_texts()
        last = self.report.plan.chunks - 1
        chunk = self.controls["chunk"]
        chunk.value = min(chunk.value, last)
        chunk.max = last
        return True

    def _chunk_texts(self) -> list[str]:
        plan = self.report.plan
        return chunk_texts(self._tokenizer, self.probe.tokens, plan.chunk, plan.chunks)

    def _draw(self) -> None:
        layer, head, chunk = self.place
        report = self.report
        self._say("")
        draw_figure(self.figure, report, layer, head, chunk)
        self._captured.value = captured_html(report, layer, head)
        self._ranking.value = ranking_html(report, layer, head, self._texts)
        kept = report.kept[layer, head]
        self._document.value = document_html(self._texts, kept.tolist(), chunk)
        share = report.mass[layer, head, chunk]
        state = "kept" if kept[chunk] else "left out"
        self._read.value = (
            f'<div class="mskv-title">Chunk {chunk}: {state}, {100 * share:.2f} % of this head\'s '
            f'attention</div><pre class="mskv-code" tabindex="0" aria-label="Text of the chunk">'
            f"{html.escape(self._texts[chunk])}</pre>"
        )
