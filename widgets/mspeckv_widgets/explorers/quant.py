"""`QuantExplorer`: the keys and values of one head, and what packing them loses."""

from __future__ import annotations

from typing import Any

import ipywidgets as ipw
import numpy as np
import torch

from mspeckv import KVProbe, Packing, Pair
from mspeckv_study.probes.kv_probe import pack
from mspeckv_widgets.explorers.explorer import STYLE, Explorer, choice, read_document, slider
from mspeckv_widgets.explorers.quant_charts import (
    NOWHERE,
    Asked,
    Loss,
    asked_html,
    build_figure,
    head_loss,
    loss_html,
    packing_name,
    short_name,
    span_of,
)
from mspeckv_widgets.panel import panel

TENSORS = (("keys", "keys"), ("values", "values"))
WIDTHS = (
    ("float", ("full", False)),
    ("int8", (8, False)),
    ("int8, upper nibbles only", (8, True)),
    ("int4", (4, False)),
    ("int2", (2, False)),
)
AXES = (("per channel, over tokens", "channel"), ("per token, over channels", "token"))
GROUPS = (16, 32, 64)


class QuantExplorer(Explorer):
    """Heat maps of one head's keys or values and of their error, for width, axis and group.

    From code, ``explorer.set(layer=3, bits=(4, False))`` moves controls (tensor, layer, head, bits,
    axis, group), ``explorer.loss`` is what is drawn, and ``explorer.ask()`` does what the button
    does.

    Args:
        pair: a loaded pair; its target reads the document.
        document: as in `mspeckv.documents.load_document`, or a list of token ids.
        tokens: of the document, the asked ones included.
        asked: see `KVProbe`.

    Raises:
        ValueError: the document is too short or too long.
    """

    def __init__(
        self,
        pair: Pair,
        document: str | list[int] = "python-reference",
        tokens: int = 416,
        asked: int = 32,
    ) -> None:
        super().__init__()
        prompt = read_document(pair, document, tokens)
        self.probe = KVProbe(pair, prompt, asked)
        self.asked: list[Asked] = []
        layers, heads = self.probe.keys.shape[:2]
        self.controls: dict[str, Any] = {
            "tensor": ipw.ToggleButtons(options=TENSORS, description="Tensor", style=STYLE),
            "layer": slider("Layer", layers - 1),
            "head": slider("KV head", heads - 1),
            "bits": choice("Width", WIDTHS, (4, False)),
            "axis": choice("One scale", AXES, "channel"),
            "group": choice("Numbers a scale", [(str(size), size) for size in GROUPS], 64),
        }
        self.figure = build_figure()
        self._table, self._answers = ipw.HTML(), ipw.HTML()
        self._ask = ipw.Button(
            description="Ask the model",
            tooltip="Pack this tensor in all layers and measure how far the model agrees",
            layout={"width": "160px"},
        )
        self._ask.on_click(lambda _: self.ask())
        for control in self.controls.values():
            control.observe(lambda _: self.draw(), names="value")
        self.panel = panel("Quantization explorer", [self._beside(), self._table])
        self.draw()

    def _beside(self) -> Any:
        """Controls and what the model said, beside the charts: a change is seen as it is made."""
        asking = ipw.HBox(
            [self._ask, self._status], layout={"flex_flow": "row wrap", "align_items": "center"}
        )
        left = {"flex": "0 0 352px", "max_width": "100%"}
        room = {"flex": "1 1 440px", "min_width": "280px", "overflow": "hidden"}
        controls = ipw.VBox([*self.controls.values(), asking, self._answers], layout=left)
        return ipw.HBox(
            [controls, ipw.VBox([self.figure], layout=room)], layout={"flex_flow": "row wrap"}
        )

    @property
    def packing(self) -> Packing:
        """What the controls say."""
        bits, upper = self.controls["bits"].value
        axis, group = self.controls["axis"].value, self.controls["group"].value
        return Packing(bits, axis, group, upper)

    @property
    def loss(self) -> Loss:
        """What is lost in the head that is shown."""
        layer, head = self.controls["layer"].value, self.controls["head"].value
        return head_loss(self._chosen()[layer, head], self.packing)

    def draw(self) -> None:
        """Draw what the controls say, or say why it cannot be drawn."""
        with self._lock:
            try:
                loss = self.loss
            except ValueError as error:
                self._say(str(error), "mskv-error")
                return
            self._say("")
            channels = np.arange(loss.sizes.shape[1])
            words = f"{self.controls['tensor'].value}, layer {self.controls['layer'].value}"
            with self.figure.batch_update():
                before, after, bars, _, _ = self.figure.data
                before.z, after.z = loss.sizes, loss.errors
                bars.x, bars.y = channels, loss.channel_error
                for axis in (self.figure.layout[name] for name in ("xaxis", "xaxis2", "xaxis3")):
                    axis.range = [-0.5, len(channels) - 0.5]
                self.figure.layout.annotations[0].text = f"Size of {words}"
            self._table.value = loss_html(loss)
            self._draw_answers()

    def ask(self) -> Asked | None:
        """Pack the chosen tensor in all layers and measure acceptance; about a second.

        Returns:
            What was found; None where the packing is not possible.
        """
        with self._lock:
            packing, tensor = self.packing, self.controls["tensor"].value
            float_packing = Packing("full")
            both = (packing, float_packing) if tensor == "keys" else (float_packing, packing)
            self._say("Asking the model ...")
            try:
                acceptance = self.probe.acceptance(*both)
            except ValueError as error:
                self._say(str(error), "mskv-error")
                return None
            found = self._summarise(tensor, packing, acceptance)
            self.asked = [
                one for one in self.asked if (one.tensor, one.packing) != (tensor, packing)
            ]
            self.asked.append(found)
            self._say(f"Acceptance {acceptance:.3f} (measured).")
            self._draw_answers()
            return found

    def _summarise(self, tensor: str, packing: Packing, acceptance: float) -> Asked:
        wrong = whole = bits = 0.0
        for layer in self._chosen():
            packed = pack(layer, packing)
            wrong += float((packed.tensor - layer).square().sum())
            whole += float(layer[:, : packed.tokens].square().sum())
            bits = 8 * packed.bytes / layer[:, : packed.tokens].numel()
        return Asked(tensor, packing, bits, (wrong / whole) ** 0.5, acceptance)

    def _chosen(self) -> torch.Tensor:
        keys = self.controls["tensor"].value == "keys"
        return self.probe.keys if keys else self.probe.values

    def _draw_answers(self) -> None:
        with self.figure.batch_update():
            for place, tensor in ((3, "keys"), (4, "values")):
                points = [one for one in self.asked if one.tensor == tensor]
                errors = np.array([100 * one.relative for one in points])
                shares = np.array([one.acceptance for one in points])
                self.figure.data[place].x = errors if points else NOWHERE
                self.figure.data[place].y = shares if points else NOWHERE
                self.figure.data[place].text = [short_name(one.packing) for one in points]
                self.figure.data[place].customdata = [packing_name(one.packing) for one in points]
            self.figure.layout.xaxis4.range = span_of(self.asked)
        self._answers.value = asked_html(self.asked)
