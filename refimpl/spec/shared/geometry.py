"""Where a sliding window lies: padding, strides, dilation and output sizes.

One axis (y or x) at a time. Source: TensorFlow Lite ``kernels/padding.h``,
the same in every runtime judged here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.spec.shared.requirements import require

INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Window:
    """A window of ``taps`` taps, ``dilation`` apart, moved in steps of ``stride`` along one axis.

    ``input_size`` and ``output_size`` count positions; ``pad_before`` counts the
    positions before the input that the first window covers.
    """

    input_size: int
    output_size: int
    taps: int
    stride: int
    dilation: int
    pad_before: int

    def taken(self, tap: int) -> tuple[Array, Array]:
        """``(out, in)``: the outputs whose ``tap`` falls on the input, and where it falls.

        ``in = out * stride - pad_before + tap * dilation``; the outputs left out
        see padding there, which contributes nothing.
        """
        out = np.arange(self.output_size, dtype=np.int64)
        position = out * self.stride - self.pad_before + tap * self.dilation
        inside = (position >= 0) & (position < self.input_size)
        return out[inside], position[inside]


Index: TypeAlias = tuple[Any, ...]
"""Arrays that index one axis each."""


def taken_by(over: Sequence[Window], taps: Sequence[int]) -> tuple[Index, Index]:
    """``(out, in)`` over several axes at once: the outputs that see the tap, and where it falls."""
    out, taken = zip(*(axis.taken(tap) for axis, tap in zip(over, taps, strict=True)), strict=True)
    return np.ix_(*out), np.ix_(*taken)


def window(
    view: LayerView, input_size: int, taps: int, stride: int, dilation: int, padding: str, axis: str
) -> Window:
    """The window of one axis; ``axis`` (``"height"``, ``"width"``) names it in messages.

    ``SAME``: ``ceil(input / stride)`` outputs, the padding they need split with the
    smaller half in front. ``VALID``: as many outputs as fit whole windows.
    Raises ModelError when a size is not positive or no output fits.
    """
    for what, value in (("input", input_size), ("filter", taps), ("stride", stride), ("dilation", dilation)):
        require(view, 1 <= value <= INT32_MAX, f"{what} {axis} is {value}; 1 or more is needed")
    reach = (taps - 1) * dilation + 1
    if padding == "SAME":
        output_size = -(-input_size // stride)
        total = max((output_size - 1) * stride + reach - input_size, 0)
        return Window(input_size, output_size, taps, stride, dilation, total // 2)
    if padding == "VALID":
        require(
            view,
            reach <= input_size,
            f"a filter that covers {reach} does not fit into an input of {axis} {input_size}",
        )
        return Window(input_size, (input_size - reach) // stride + 1, taps, stride, dilation, 0)
    raise UnsupportedOp(f"{view}: padding {padding!r} is not implemented; known are SAME, VALID")


def windows(
    view: LayerView, input_shape: tuple[int, ...], filter_shape: tuple[int, ...], dilated: bool
) -> tuple[Window, Window]:
    """Windows of a 4-D filter (y and x in the middle) over a ``[batch, y, x, channel]`` input.

    Reads ``padding``, ``stride_h``, ``stride_w`` and, when ``dilated``,
    ``dilation_h_factor`` and ``dilation_w_factor`` (1 where left out).
    """
    padding = view.text("padding")
    dilation_y = view.integer("dilation_h_factor", 1) if dilated else 1
    dilation_x = view.integer("dilation_w_factor", 1) if dilated else 1
    return (
        window(
            view, input_shape[1], filter_shape[1], view.integer("stride_h"), dilation_y, padding, "height"
        ),
        window(view, input_shape[2], filter_shape[2], view.integer("stride_w"), dilation_x, padding, "width"),
    )
