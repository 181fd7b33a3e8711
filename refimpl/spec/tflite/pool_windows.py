"""The check of both 2-D pools, and the valid taps of each output."""

from __future__ import annotations

from karat24.refimpl.graph import LayerView
from karat24.refimpl.spec.shared.geometry import Window, window
from karat24.refimpl.spec.shared.requirements import (
    QUANTIZED,
    require,
    require_activation,
    require_arity,
    require_dtype,
    require_elements,
    require_quantized,
    require_rank,
    require_same_dtype,
    require_shape,
)

MAX_TAPS = 2**23
"""An int32 sum of fewer 8-bit values cannot overflow."""


def check_pool(view: LayerView) -> None:
    """Input ``[batch, y, x, channel]`` int8, uint8 or int16; attributes ``padding``, ``filter_height``,
    ``filter_width``, ``stride_h``, ``stride_w``, ``fused_activation_function``.

    The runtimes do not compare the quantization of input and output: stored values are used as they are.
    """
    require_arity(view, 1)
    data, output = view.input(0), view.output()
    require_dtype(view, output, QUANTIZED)
    require_same_dtype(view, data, output)
    require_rank(view, data, 4)
    require_elements(view, data)
    if require_activation(view, ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")) != "NONE":
        require_quantized(view, output)
    vertical, horizontal = _windows(view)
    batch, _, _, channels = data.shape
    require_shape(view, output, (batch, vertical.output_size, horizontal.output_size, channels))


def valid_taps(view: LayerView) -> tuple[list[range], list[range]]:
    """The input rows of each output row, and the input columns of each output column.

    Taps outside the input are left out, not counted as zeros.
    """
    vertical, horizontal = _windows(view)
    return _taps_along(vertical), _taps_along(horizontal)


def _taps_along(axis: Window) -> list[range]:
    starts = [index * axis.stride - axis.pad_before for index in range(axis.output_size)]
    return [range(max(start, 0), min(start + axis.taps, axis.input_size)) for start in starts]


def _windows(view: LayerView) -> tuple[Window, Window]:
    _, height, width, _ = view.input(0).shape
    rows, columns = view.integer("filter_height"), view.integer("filter_width")
    require(view, rows * columns < MAX_TAPS, f"window {rows}×{columns} is too large")
    padding = view.text("padding")
    return (
        window(view, height, rows, view.integer("stride_h"), 1, padding, "height"),
        window(view, width, columns, view.integer("stride_w"), 1, padding, "width"),
    )
