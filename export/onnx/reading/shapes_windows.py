"""Output shapes of convolutions and pools: NCHW, any number of spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from karat24.export.onnx.reading.shapes_types import Rule, Shape, Type
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import LayerView, Tensor

AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
"""The values of ``auto_pad``; NOTSET means that ``pads`` holds the paddings."""


@dataclass(frozen=True)
class Window:
    """The geometry of a window: one number per spatial axis; ``pads`` holds all beginnings, then all ends.

    ``pads`` are those of the attribute; with an ``auto_pad`` other than NOTSET they are all zero here
    and :func:`resolved_pads` gives the real ones.
    """

    kernel: Shape
    strides: Shape
    dilations: Shape
    begin: Shape
    end: Shape
    auto_pad: str

    @property
    def reach(self) -> Shape:
        """Pixels from a window's first tap to its last, inclusive."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def window_of(view: LayerView, kernel: Shape) -> Window:
    """The window of a convolution or pool. Raises ModelError for impossible attributes."""
    rank = len(kernel)
    strides = view.integers("strides", (1,) * rank)
    dilations = view.integers("dilations", (1,) * rank)
    pads = view.integers("pads", (0,) * (2 * rank))
    auto_pad = view.text("auto_pad", "NOTSET")
    if (len(strides), len(dilations), len(pads)) != (rank, rank, 2 * rank):
        raise ModelError(
            f"{view}: strides {strides}, dilations {dilations} and pads {pads} for {rank} spatial axes"
        )
    if min((*kernel, *strides, *dilations), default=1) < 1 or min(pads, default=0) < 0:
        raise ModelError(
            f"{view}: kernel {kernel}, strides {strides}, dilations {dilations}, pads {pads}: "
            "sizes start at 1 and paddings at 0"
        )
    if auto_pad not in AUTO_PADS:
        raise ModelError(f"{view}: auto_pad {auto_pad!r} is not one of {AUTO_PADS}")
    if auto_pad != "NOTSET":
        pads = (0,) * (2 * rank)
    return Window(kernel, strides, dilations, pads[:rank], pads[rank:], auto_pad)


def resolved_pads(window: Window, image: Shape) -> tuple[Shape, Shape]:
    """Paddings before and after each spatial axis, with ``auto_pad`` resolved.

    SAME: ``total = max((ceil(image / stride) - 1) * stride + reach - image, 0)``, the odd one after
    (UPPER) or before (LOWER).
    """
    if not window.auto_pad.startswith("SAME"):
        return window.begin, window.end
    begin, end = [], []
    for size, stride, reach in zip(image, window.strides, window.reach, strict=True):
        total = max((-(-size // stride) - 1) * stride + reach - size, 0)
        less, more = total // 2, total - total // 2
        upper = window.auto_pad == "SAME_UPPER"
        begin.append(less if upper else more)
        end.append(more if upper else less)
    return tuple(begin), tuple(end)


def covered(view: LayerView, window: Window, image: Shape, ceil_mode: bool = False) -> Shape:
    """``floor((image + pads - reach) / stride) + 1`` per axis, or the ceiling of the quotient.

    With ceil_mode a last window that would start in the padding after the image is left out.
    """
    begin, end = resolved_pads(window, image)
    sizes = []
    for i, size in enumerate(image):
        room = size + begin[i] + end[i] - window.reach[i]
        if room < 0:
            raise ModelError(f"{view}: a window of {window.reach} does not fit an image of {image}")
        steps = room // window.strides[i]
        if ceil_mode and room % window.strides[i] and (steps + 1) * window.strides[i] < size + begin[i]:
            steps += 1
        sizes.append(steps + 1)
    return tuple(sizes)


def convolution(image: int, filter_: int, dtype: Callable[[LayerView], str]) -> Rule:
    """The rule of convolutions whose image and filter (OIHW) are inputs ``image`` and ``filter_``."""

    def rule(view: LayerView) -> list[Type]:
        x, w = _images(view, view.input(image)), view.input(filter_)
        if view.integer("channels_last", 0):
            raise UnsupportedOp(f"{view} is channels-last, a form ONNX Runtime keeps to itself")
        group = view.integer("group", 1)
        if len(w.shape) != len(x.shape) or group < 1 or w.shape[0] % group:
            raise ModelError(f"{view}: filter {w.shape} in {group} groups for an image {x.shape}")
        if w.shape[1] * group != x.shape[1]:
            raise ModelError(
                f"{view}: a filter of {w.shape[1]} channels in {group} groups reads {w.shape[1] * group} "
                f"channels; the image has {x.shape[1]}"
            )
        kernel = _kernel(view, w.shape[2:])
        return [
            Type((x.shape[0], w.shape[0], *covered(view, window_of(view, kernel), x.shape[2:])), dtype(view))
        ]

    return rule


def transposed_convolution(view: LayerView) -> list[Type]:
    """ConvTranspose: filter ``[in_channel, out_channel / group, y, x]``."""
    x, w = _images(view, view.input(0)), view.input(1)
    group = view.integer("group", 1)
    if len(w.shape) != len(x.shape) or group < 1 or w.shape[0] != x.shape[1] or x.shape[1] % group:
        raise ModelError(f"{view}: filter {w.shape} in {group} groups for an image {x.shape}")
    window = window_of(view, _kernel(view, w.shape[2:]))
    rank = len(window.kernel)
    extra = view.integers("output_padding", (0,) * rank)
    if len(extra) != rank or min(extra, default=0) < 0:
        raise ModelError(f"{view}: output_padding {extra} for {rank} spatial axes")
    sizes = view.layer.attributes.get("output_shape")
    if sizes is not None:
        spatial = view.integers("output_shape")[-rank:]
    elif window.auto_pad.startswith("SAME"):
        spatial = tuple(size * stride for size, stride in zip(x.shape[2:], window.strides, strict=True))
    else:
        spatial = tuple(
            (x.shape[2 + i] - 1) * window.strides[i]
            + extra[i] + window.reach[i] - window.begin[i] - window.end[i]
            for i in range(rank)
        )  # fmt: skip
    if len(spatial) != rank or min(spatial, default=1) < 1:
        raise ModelError(f"{view}: output of {spatial} from an image of {x.shape[2:]}")
    return [Type((x.shape[0], w.shape[1] * group, *spatial), x.dtype)]


def pool(view: LayerView) -> list[Type]:
    """MaxPool, with its optional indices, and the average pools."""
    x = _images(view, view.input(0))
    kernel = view.integers("kernel_shape")
    if len(kernel) != len(x.shape) - 2:
        raise ModelError(f"{view}: kernel_shape {kernel} for an image {x.shape}")
    if view.integer("channels_last", 0):
        raise UnsupportedOp(f"{view} is channels-last, a form ONNX Runtime keeps to itself")
    ceil_mode = view.integer("ceil_mode", 0) != 0
    window = window_of(view, kernel)
    shape = (*x.shape[:2], *covered(view, window, x.shape[2:], ceil_mode))
    return [Type(shape, x.dtype), Type(shape, "int64")]


def global_pool(view: LayerView) -> list[Type]:
    """One value per image and channel."""
    x = _images(view, view.input(0))
    if view.integer("channels_last", 0):
        raise UnsupportedOp(f"{view} is channels-last, a form ONNX Runtime keeps to itself")
    return [Type((*x.shape[:2], *(1,) * (len(x.shape) - 2)), x.dtype)]


def _images(view: LayerView, tensor: Tensor) -> Tensor:
    if len(tensor.shape) < 3:
        raise ModelError(f"{view}: {tensor.name!r} has shape {tensor.shape}, not that of a batch of images")
    return tensor


def _kernel(view: LayerView, filter_: Shape) -> Shape:
    """The filter's spatial sizes, which ``kernel_shape`` may repeat."""
    if view.integers("kernel_shape", filter_) != filter_:
        raise ModelError(f"{view}: kernel_shape {view.integers('kernel_shape')} but a filter of {filter_}")
    return filter_
