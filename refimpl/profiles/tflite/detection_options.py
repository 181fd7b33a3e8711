"""The options of TFLite_Detection_PostProcess: a FlexBuffer map in the bytes ``custom_options``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.flexbuffer import read_flexbuffer_map
from karat24.refimpl.graph import LayerView


@dataclass(frozen=True)
class Options:
    """``scales`` divide the encoded (y, x, h, w). ``regular`` suppresses boxes class by class, else the best
    class of each box decides. ``per_class`` counts only for ``regular``, ``per_box`` for the other."""

    detections: int
    per_box: int
    per_class: int
    classes: int
    regular: bool
    score: float
    overlap: float
    scales: tuple[float, float, float, float]

    @property
    def places(self) -> int:
        """Boxes that the outputs have room for."""
        return self.detections * self.per_box

    @property
    def per_box_written(self) -> int:
        """Classes written for each box that is not suppressed."""
        return min(self.per_box, self.classes)


def options_of(view: LayerView) -> Options:
    """The options of the layer. Raises UnsupportedOp where its bytes are not a map of them."""
    content = view.layer.attributes.get("custom_options", b"")
    try:
        known = read_flexbuffer_map(content if isinstance(content, bytes) else b"")
    except ModelError as error:
        raise UnsupportedOp(f"{view}: its options cannot be read: {error}") from None

    def number(name: str, default: float = 0) -> float:
        value = known.get(name, default)
        value = default if value is None else value
        if not isinstance(value, int | float) or not abs(value) < 2**31:
            raise UnsupportedOp(f"{view}: its option {name!r} is {value!r}, not a number that fits")
        return value

    def real(name: str) -> float:
        return float(np.float32(number(name)))

    return Options(
        int(number("max_detections")),
        int(number("max_classes_per_detection")),
        int(number("detections_per_class", 100)),
        int(number("num_classes")),
        bool(number("use_regular_nms")),
        real("nms_score_threshold"),
        real("nms_iou_threshold"),
        (real("y_scale"), real("x_scale"), real("h_scale"), real("w_scale")),
    )
