"""Where the windows of an ONNX convolution or pool lie on an image: pads, auto_pad, ceil_mode."""

from __future__ import annotations

from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import LayerView
from karat24.refimpl.spec.shared.geometry import Window
from karat24.refimpl.spec.shared.requirements import require

INT32_MAX = 2**31 - 1


def windows(view: LayerView, image: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[Window, Window]:
    """The windows over y and x of images ``[batch, channel, y, x]``; ``kernel`` is ``(taps_y, taps_x)``.

    Raises ModelError for attributes that make no sense, UnsupportedOp for other than two spatial axes.
    """
    if len(image) != 4:
        raise UnsupportedOp(f"{view}: images of shape {image}; only [batch, channel, y, x] is implemented")
    over_y, over_x = windows_over(view, image, kernel)
    return over_y, over_x


def windows_over(view: LayerView, image: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[Window, ...]:
    """The windows over each spatial axis of images ``[batch, channel, ...]``; ``kernel`` has as many sizes.

    Raises ModelError for attributes that make no sense.
    """
    axes = len(image) - 2
    require(view, len(kernel) == axes >= 1, f"a window of {kernel} for an image {image}")
    strides = view.integers("strides", (1,) * axes)
    dilations = view.integers("dilations", (1,) * axes)
    pads = view.integers("pads", (0,) * (2 * axes))
    require(
        view,
        (len(strides), len(dilations), len(pads)) == (axes, axes, 2 * axes),
        f"strides {strides}, dilations {dilations}, pads {pads} for an image {image}",
    )
    auto_pad = view.text("auto_pad", "NOTSET")
    require(
        view,
        auto_pad in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"),
        f"auto_pad {auto_pad!r} is none ONNX knows",
    )
    ceil = view.integer("ceil_mode", 0) != 0
    return tuple(
        _window(
            view, image[2 + i], kernel[i], strides[i], dilations[i], (pads[i], pads[axes + i]), auto_pad, ceil
        )
        for i in range(axes)
    )


def _window(
    view: LayerView,
    size: int,
    taps: int,
    stride: int,
    dilation: int,
    pads: tuple[int, int],
    auto_pad: str,
    ceil: bool,
) -> Window:
    """One axis: ``floor((size + pads - reach) / stride) + 1`` windows.

    With ``ceil`` one more where a part is left over, unless it would start in the padding behind.
    """
    for value in (size, taps, stride, dilation):
        require(view, 1 <= value <= INT32_MAX, f"a size, stride or dilation is {value}; 1 or more is needed")
    require(view, all(0 <= pad <= INT32_MAX for pad in pads), f"pads {pads} are not 0 or more")
    reach = (taps - 1) * dilation + 1
    before, after = pads if auto_pad == "NOTSET" else (0, 0)
    if auto_pad.startswith("SAME"):
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        after = total - before
    room = size + before + after - reach
    require(view, room >= 0, f"a window that covers {reach} does not fit an image of {size}")
    outputs = room // stride + 1
    if ceil and room % stride and outputs * stride < size + before:
        outputs += 1
    return Window(size, outputs, taps, stride, dilation, before)
