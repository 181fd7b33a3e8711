"""Resize of an NCHW image, nearest and linear (ONNX Runtime 1.31.1, CPU)."""

from __future__ import annotations

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.parameters import constant
from karat24.refimpl.spec.shared.fused import fused_multiply_add
from karat24.refimpl.spec.shared.requirements import (
    operand,
    require,
    require_dtype,
    require_elements,
    require_rank,
    require_same_dtype,
    require_shape,
)

COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def check_resize(view: LayerView) -> None:
    """Inputs: image ``[batch, channel, y, x]``, roi (unused), and constant scales or sizes.

    Modes ``nearest`` and ``linear``; batch and channel keep their size. Attributes ``antialias``,
    ``exclude_outside`` and other coordinates than COORDINATES are not implemented.
    """
    require(view, 1 <= len(view.inputs) <= 4 and len(view.outputs) == 1, f"{len(view.inputs)} inputs")
    image, output = view.input(0), view.output()
    require_rank(view, image, 4)
    require_elements(view, image)
    require_elements(view, output)
    require_dtype(view, image, ("int8", "uint8", "float32"))
    require_same_dtype(view, image, output)
    require_shape(view, output, (*image.shape[:2], *output.shape[2:]))
    known = {
        "mode": ("nearest", "linear"),
        "coordinate_transformation_mode": COORDINATES,
        "nearest_mode": NEAREST,
        "keep_aspect_ratio_policy": ("stretch",),
    }
    for name, allowed in known.items():
        word = view.text(name, allowed[0])
        if word not in allowed:
            raise UnsupportedOp(f"{view}: {name} {word!r} is not implemented; known are {', '.join(allowed)}")
    for name in ("antialias", "exclude_outside"):
        if view.integer(name, 0):
            raise UnsupportedOp(f"{view}: {name} is not implemented")
    if view.integers("axes", ()) not in ((), (0, 1, 2, 3)):
        raise UnsupportedOp(f"{view}: Resize of some axes only is not implemented")
    for axis, scale in enumerate(scales(view)):
        size = image.shape[axis]
        expected = output.shape[axis] if _sized(view) else int(np.floor(np.float32(size) * scale))
        require(view, output.shape[axis] == expected, f"scale {scale} of {size} gives {output.shape[axis]}")


def _sized(view: LayerView) -> bool:
    return view.optional_input(3) is not None


def scales(view: LayerView) -> tuple[np.float32, ...]:
    """The float32 factor of each axis: as given, or the quotient of the sizes."""
    image, output = view.input(0).shape, view.output().shape
    if _sized(view):
        sizes = tuple(int(size) for size in constant(view, 3).reshape(-1))
        require(view, sizes == output, f"sizes {sizes} for an output of {output}")
        return tuple(np.float32(out) / np.float32(size) for out, size in zip(output, image, strict=True))
    values = constant(view, 2)
    require(
        view,
        values.dtype == np.float32 and values.shape == (4,) and bool((values > 0).all()),
        f"scales {values} are not four positive float32 values",
    )
    return tuple(values)


def coordinates(view: LayerView, axis: int) -> Array:
    """Where each output index of ``axis`` lies in the input, float32, not yet clamped."""
    size, outputs, scale = view.input(0).shape[axis], view.output().shape[axis], scales(view)[axis]
    index, half = np.arange(outputs).astype(np.float32), np.float32(0.5)
    mode = view.text("coordinate_transformation_mode", "half_pixel")
    if scale == 1:
        return index
    if mode == "asymmetric":
        return index / scale
    if mode == "align_corners":
        return (
            np.zeros_like(index) if outputs == 1 else index * np.float32(size - 1) / np.float32(outputs - 1)
        )
    if mode == "pytorch_half_pixel" and outputs == 1:
        return np.zeros_like(index)
    return (index + half) / scale - half


def _nearest(view: LayerView, axis: int) -> Array:
    """The input index each output index copies."""
    position = coordinates(view, axis)
    mode = view.text("nearest_mode", "round_prefer_floor")
    if mode == "floor":
        chosen = np.floor(position)
    elif mode == "ceil":
        chosen = np.ceil(position)
    else:
        floor = np.floor(position)
        tie = position - floor == np.float32(0.5)
        up = tie if mode == "round_prefer_ceil" else np.zeros_like(tie)
        chosen = np.where(tie, floor + up, np.floor(position + np.float32(0.5)))
    return np.clip(chosen, 0, view.input(0).shape[axis] - 1).astype(np.int64)


def resize(view: LayerView, values: Values, rule: Rule) -> SpecResult:
    """Copies the nearest pixel, or adds up four in float32 in ONNX Runtime's order.

    ``dx2*dy2*X11 + dx1*dy2*X21 + dx2*dy1*X12 + dx1*dy1*X22``; for int8 and uint8 the stored values are
    interpolated and the sum is truncated toward zero. By ``reference_fused`` each product with a pixel but
    the second one's is added as it is: ``fma(w22, X22, fma(w12, X12, fma(w11, X11, f32(w21 * X21))))``.
    """
    image = operand(values, 0)
    if view.text("mode", "nearest") == "nearest":
        rows, columns = _nearest(view, 2), _nearest(view, 3)
        return SpecResult((np.ascontiguousarray(image[:, :, rows][:, :, :, columns]),))
    (y1, y2, dy1, dy2), (x1, x2, dx1, dx2) = _corners(view, 2), _corners(view, 3)
    dy1, dy2 = dy1[:, None], dy2[:, None]
    reals = image.astype(np.float32)
    upper, lower = reals[:, :, y1], reals[:, :, y2]
    add = fused_multiply_add if rule.method == "reference_fused" else _multiply_and_add
    total = add(upper[..., x1], dx2 * dy2, dx1 * dy2 * upper[..., x2])
    total = add(lower[..., x1], dx2 * dy1, total)
    total = add(lower[..., x2], dx1 * dy1, total)
    return SpecResult(
        (np.trunc(total).astype(DTYPES[image.dtype.name]) if image.dtype != np.float32 else total,)
    )


def _multiply_and_add(pixels: Array, weights: Array, rest: Array) -> Array:
    return np.asarray(pixels * weights + rest)


def _corners(view: LayerView, axis: int) -> tuple[Array, Array, Array, Array]:
    """Both neighbours of each output index and its float32 distances from them; 0.5 where they are one."""
    last = view.input(0).shape[axis] - 1
    position = np.clip(coordinates(view, axis), np.float32(0), np.float32(last))
    first = np.minimum(position.astype(np.int64), last)
    second = np.minimum(first + 1, last)
    near, far = np.abs(position - first.astype(np.float32)), np.abs(position - second.astype(np.float32))
    same = first == second
    half = np.float32(0.5)
    return first, second, np.where(same, half, near), np.where(same, half, far)
