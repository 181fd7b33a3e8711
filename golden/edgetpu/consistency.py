"""Numbers of the source that must agree among themselves.

The compiled file holds only what follows from several of them, so a change of one that nothing in it
shows is caught here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.golden.edgetpu.arithmetic import unsigned_zero_point
from karat24.golden.edgetpu.finding import Finding
from karat24.refimpl.graph import LayerView, Tensor

ITSELF = "in the source itself, against what follows from its other numbers"

MAX_BIAS_SCALE_DISTANCE = 1
"""Converters round the product of two scales in float32 or in float64: the results are neighbours."""

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

SAME_NUMBERS = frozenset(
    {"PAD", "PADV2", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "MAX_POOL_2D", "RESIZE_BILINEAR", "SLICE", "SPLIT",
     "RESIZE_NEAREST_NEIGHBOR", "STRIDED_SLICE", "TRANSPOSE", "SPACE_TO_DEPTH"}
)  # fmt: skip
"""Ops whose outputs have their input's scale and zero point."""

FIXED_OUTPUT = {"SOFTMAX": (1 / 256, 0), "LOGISTIC": (1 / 256, 0), "TANH": (1 / 128, 128)}
"""Ops whose output's scale and unsigned zero point TFLite prescribes."""


def contradictions(view: LayerView) -> Iterator[Finding]:
    """Where the layer's numbers contradict each other."""
    if view.op in WEIGHTED:
        yield from _bias(view)
    if view.op in SAME_NUMBERS:
        image = view.input(1 if view.op == "SPLIT" else 0)
        for output in view.outputs:
            if image.quantization is not None and output.quantization is not None:
                yield from _numbers(output, image.scale, unsigned_zero_point(image))
    if view.op in FIXED_OUTPUT and view.output().quantization is not None:
        yield from _numbers(view.output(), *FIXED_OUTPUT[view.op])


def _numbers(tensor: Tensor, scale: float, zero_point: int) -> Iterator[Finding]:
    if tensor.scale != scale:
        yield Finding("output scale", ITSELF, tensor.scale, scale)
    if unsigned_zero_point(tensor) != zero_point:
        yield Finding("output zero point", ITSELF, unsigned_zero_point(tensor), zero_point)


def _bias(view: LayerView) -> Iterator[Finding]:
    filter_, bias = view.input(1).quantization, view.optional_input(2)
    if filter_ is None or bias is None or bias.quantization is None:
        return
    product = np.float32(view.input(0).scale) * np.array(filter_.scale, np.float32)
    stored = np.array(bias.quantization.scale, np.float32)
    if stored.size != product.size:
        yield Finding("number of bias scales", ITSELF, int(stored.size), int(product.size))
        return
    distance = np.abs(stored.view(np.int32).astype(np.int64) - product.view(np.int32).astype(np.int64))
    for channel in np.flatnonzero(distance > MAX_BIAS_SCALE_DISTANCE).tolist():
        where = f"channel {channel}, {ITSELF}"
        yield Finding("bias scale", where, float(stored[channel]), float(product[channel]))
    for channel in np.flatnonzero(bias.quantization.zero_point).tolist():
        yield Finding("bias zero point", f"channel {channel}", bias.quantization.zero_point[channel], 0)
    for channel, zero_point in enumerate(filter_.zero_point if filter_.per_channel else ()):
        if zero_point:
            yield Finding("filter zero point", f"channel {channel}, {ITSELF}", zero_point, 0)
