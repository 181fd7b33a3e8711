"""Tiles whose stitched result is the whole image's, bit for bit.

A pixel of a network's output depends on a window of its input, the receptive field. Where a tile
overlaps its neighbours by that much, what is kept of it never sees the tile's own border; where it starts at
a multiple of the network's total stride, pooling and upsampling fall on the pixels they fall on in the whole
image; and a tile at the image's border has the image's own padding. The tiles then give what the whole
image gives; the price is that overlaps are computed several times. It holds for runtimes whose
arithmetic does not depend on where in a tensor a value stands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from karat24.refimpl.errors import FeedError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Array, Graph, LayerView
from karat24.tomography.tiles import TileGrid

Span: TypeAlias = tuple[int, int]
"""First and last pixel along one axis; it may lie outside the image."""

Reads: TypeAlias = Callable[[LayerView, int, Span], Span]
"""Which pixels a layer reads, along an axis (1: y, 2: x), for these pixels of its output."""


@dataclass(frozen=True)
class Reach:
    """How far before and behind a pixel its value is read from, along one axis, and the total stride."""

    before: int
    behind: int
    stride: int

    @property
    def halo(self) -> int:
        """The overlap at either side that covers both, as a multiple of the stride."""
        return -(-max(self.before, self.behind) // self.stride) * self.stride


def reach(graph: Graph) -> tuple[Reach, Reach]:
    """Reach along y and x of a graph with one image ``[1, y, x, channel]`` in and one out, of equal size.

    Raises UnsupportedOp for a layer whose window is not known, and UsageError for another kind of graph.
    """
    tile_of(graph)
    return _along(graph, 1), _along(graph, 2)


def tile_of(graph: Graph) -> tuple[int, int]:
    """Height and width of the tiles that a network takes. Raises UsageError as :func:`reach` does."""
    image, output = _ends(graph)
    if image != output:
        raise UsageError(f"tiles are stitched where output and input have one size, not {image} and {output}")
    height, width = image
    return height, width


def _ends(graph: Graph) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Height and width of the only input and the only output."""
    shapes = [graph.tensors[index].shape for index in (*graph.inputs, *graph.outputs)]
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or any(len(shape) != 4 for shape in shapes):
        raise UsageError("tiles are for a network with one image [1, y, x, channel] in and one out")
    return shapes[0][1:3], shapes[1][1:3]


def _along(graph: Graph, axis: int) -> Reach:
    size = graph.tensors[graph.inputs[0]].shape[axis]
    images = [t for view in graph.views() for t in view.outputs if len(t.shape) == 4]
    stride = math.lcm(*(size // t.shape[axis] for t in images if 0 < t.shape[axis] <= size))
    before = behind = 0
    for pixel in range(stride):
        first, last = _read_by(graph, axis, pixel)
        before, behind = max(before, pixel - first), max(behind, last - pixel)
    return Reach(before, behind, stride)


def _read_by(graph: Graph, axis: int, pixel: int) -> Span:
    """The input's pixels that one pixel of the output depends on."""
    spans: dict[int, Span] = {graph.outputs[0]: (pixel, pixel)}
    for view in reversed(graph.views()):
        wanted = [spans[index] for index in view.layer.outputs if index in spans]
        if not wanted:
            continue
        reads = READS.get(view.op)
        if reads is None:
            raise UnsupportedOp(f"{view}: which pixels it reads is not known, so tiles cannot be made exact")
        span = reads(view, axis, _joined(wanted))
        for tensor in view.inputs:
            if tensor is not None and not tensor.is_constant:
                spans[tensor.index] = _joined([span, spans.get(tensor.index, span)])
    return spans[graph.inputs[0]]


def _joined(spans: list[Span]) -> Span:
    return min(first for first, _ in spans), max(last for _, last in spans)


def _window(view: LayerView, axis: int, size: int, span: Span) -> Span:
    """A window of ``size`` pixels, dilated, that moves by the stride."""
    letter = "h" if axis == 1 else "w"
    stride, dilation = view.integer(f"stride_{letter}"), view.integer(f"dilation_{letter}_factor", 1)
    extent = (size - 1) * dilation + 1
    padding = max(extent - stride, 0) // 2 if view.text("padding") == "SAME" else 0
    return span[0] * stride - padding, span[1] * stride - padding + extent - 1


def _filtered(view: LayerView, axis: int, span: Span) -> Span:
    return _window(view, axis, view.input(1).shape[axis], span)


def _pooled(view: LayerView, axis: int, span: Span) -> Span:
    return _window(view, axis, view.integer("filter_height" if axis == 1 else "filter_width"), span)


def _transposed(view: LayerView, axis: int, span: Span) -> Span:
    """Output o is the sum over inputs i and taps t with ``stride * i + t - padding = o``."""
    size, stride = view.input(1).shape[axis], view.integer("stride_h" if axis == 1 else "stride_w")
    padding = max(size - stride, 0) // 2 if view.text("padding") == "SAME" else 0
    return -((size - 1 - padding - span[0]) // stride), (span[1] + padding) // stride


def _resized(view: LayerView, axis: int, span: Span) -> Span:
    """Two neighbours of where the output's pixel falls; enlarged by a whole factor only."""
    factor, rest = divmod(view.output().shape[axis], view.input(0).shape[axis])
    if rest or view.flag("align_corners"):
        raise UnsupportedOp(f"{view}: enlarged by no whole factor, a tile's pixels fall between the image's")
    # (o + 1/2) / factor - 1/2 with half-pixel centres, else o / factor.
    half = (factor - 1) if view.flag("half_pixel_centers") else 0
    return (2 * span[0] - half) // (2 * factor), (2 * span[1] - half) // (2 * factor) + 1


def _pixelwise(view: LayerView, _axis: int, span: Span) -> Span:
    if view.op == "CONCATENATION" and view.integer("axis") % 4 != 3:
        raise UnsupportedOp(f"{view}: joins images side by side, which tiles cannot")
    return span


PIXELWISE = (
    "ADD",
    "CONCATENATION",
    "DEQUANTIZE",
    "LEAKY_RELU",
    "LOGISTIC",
    "MAXIMUM",
    "MINIMUM",
    "MUL",
    "PRELU",
    "QUANTIZE",
    "RELU",
    "RELU6",
    "SUB",
    "TANH",
)
"""Ops whose output at a pixel depends on that pixel alone."""

READS: Mapping[str, Reads] = MappingProxyType(
    {
        "CONV_2D": _filtered,
        "DEPTHWISE_CONV_2D": _filtered,
        "TRANSPOSE_CONV": _transposed,
        "MAX_POOL_2D": _pooled,
        "AVERAGE_POOL_2D": _pooled,
        "RESIZE_BILINEAR": _resized,
        **dict.fromkeys(PIXELWISE, _pixelwise),
    }
)
"""The ops whose windows are known."""


@dataclass(frozen=True)
class ExactTiling:
    """An image of ``height`` × ``width`` in tiles of a network's size, exact once stitched.

    An image whose sides are not multiples of the stride is enlarged to the next ones by repeating its last
    row and column, as :meth:`enlarged` does, and the result is cut back: what equals is the whole image so
    enlarged. Raises UsageError for a tile that is too small for the network's reach, or larger than the
    image.
    """

    graph: Graph
    height: int
    width: int

    def __post_init__(self) -> None:
        rows, columns = self.reaches
        for tile, image, found in zip(self.tile, self.whole, (rows, columns), strict=True):
            if tile % found.stride:
                raise UsageError(f"tiles of {tile} do not start at multiples of the stride, {found.stride}")
            if tile > image:
                raise UsageError(
                    f"a tile of {tile} is larger than the image of {image}; take tiles of its size"
                )
            if tile < image and tile <= 2 * found.halo:
                raise UsageError(
                    f"a pixel depends on {found.before} pixels before it and {found.behind} behind it: "
                    f"tiles must be larger than {2 * found.halo}, and these are {tile}"
                )

    @cached_property
    def reaches(self) -> tuple[Reach, Reach]:
        """Reach along y and x."""
        return reach(self.graph)

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return tile_of(self.graph)

    @property
    def whole(self) -> tuple[int, int]:
        """Height and width of the image once enlarged."""
        rows, columns = self.reaches
        return -(-self.height // rows.stride) * rows.stride, -(-self.width // columns.stride) * columns.stride

    @property
    def grids(self) -> tuple[TileGrid, TileGrid]:
        """The cuts along y, and along x of what they give."""
        (rows, columns), (height, width), (tile_y, tile_x) = self.reaches, self.whole, self.tile
        return (
            TileGrid(height, width, tile_y, width, rows.halo if tile_y < height else 0),
            TileGrid(tile_y, width, tile_y, tile_x, columns.halo if tile_x < width else 0),
        )

    @property
    def count(self) -> int:
        """Tiles to compute."""
        return math.prod(grid.count for grid in self.grids)

    @property
    def cost(self) -> float:
        """Pixels computed per pixel of the image."""
        return self.count * math.prod(self.tile) / (self.height * self.width)

    def enlarged(self, image: Array) -> Array:
        """``[y, x, channel]`` with sides of multiples of the stride. Raises FeedError for another size."""
        if image.ndim != 3 or image.shape[:2] != (self.height, self.width):
            raise FeedError(f"the image is ({self.height}, {self.width}, channels), got {image.shape}")
        missing = [(0, whole - size) for whole, size in zip(self.whole, image.shape, strict=False)]
        return np.pad(image, (*missing, (0, 0)), mode="edge")

    def run(self, network: Callable[[Array], Array], image: Array) -> Array:
        """The network's output for the image; ``network`` takes and gives one tile ``[1, y, x, channel]``."""
        rows, columns = self.grids
        stripes = []
        for stripe in rows.cut(self.enlarged(image)):
            tiles = [network(tile[np.newaxis])[0] for tile in columns.cut(stripe)]
            stripes.append(columns.stitch(np.stack(tiles)))
        return rows.stitch(np.stack(stripes))[: self.height, : self.width]
