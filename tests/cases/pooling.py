"""MAX_POOL_2D, AVERAGE_POOL_2D and MEAN."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.single_layer import Feed, Result, indices, noise, ramp, single_layer

QUANTIZED = ("int8", "uint8")
CHANNELS = (1, 3, 8, 15, 16, 17, 33, 83)


def cases() -> list[Case]:
    return [*pools(), *activations(), *average_ties(), *spatial_means(), *general_means(), *mean_ties()]


def _middle(dtype: str) -> int:
    return 0 if dtype == "int8" else 128


def pools() -> Iterator[Case]:
    """Height, width, window, strides, padding, output size."""
    table = (
        ((6, 8), (2, 2), (2, 2), "VALID", (3, 4), "halves"),
        ((7, 9), (2, 2), (2, 2), "VALID", (3, 4), "a row and a column left over"),
        ((7, 9), (3, 2), (2, 1), "SAME", (4, 9), "windows cut at both ends"),
        ((7, 9), (5, 5), (1, 1), "SAME", (7, 9), "windows larger than their stride"),
        ((4, 4), (4, 4), (4, 4), "VALID", (1, 1), "everything"),
        ((3, 2), (9, 9), (1, 1), "SAME", (3, 2), "window larger than the image"),
        ((5, 5), (1, 1), (3, 3), "SAME", (2, 2), "single taps"),
        ((1, 1), (1, 1), (1, 1), "VALID", (1, 1), "one pixel"),
        ((1, 13), (1, 3), (1, 5), "SAME", (1, 3), "one row"),
    )
    for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        for dtype in QUANTIZED:
            for number, (size, window, stride, padding, out, edge) in enumerate(table):
                for channels in CHANNELS if number < 3 else (5,):
                    data = noise((2, *size, channels), dtype, 100 * number + channels)
                    yield _pool(op, data, window, stride, padding, out, f"{edge}, {channels} channels")


def _pool(
    op: str,
    data: Array,
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: str,
    out: tuple[int, int],
    edge: str,
    scale: float = 0.047,
    zero_point: int | None = None,
    activation: str = "NONE",
) -> Case:
    dtype = data.dtype.name
    zero = _middle(dtype) - 3 if zero_point is None else zero_point
    return single_layer(
        f"{op.lower()}-{dtype}",
        edge,
        op,
        [Feed(data, scale, zero)],
        [Result((data.shape[0], *out, data.shape[3]), dtype, scale, zero)],
        padding=padding,
        filter_height=window[0],
        filter_width=window[1],
        stride_h=stride[0],
        stride_w=stride[1],
        fused_activation_function=activation,
    )


def activations() -> Iterator[Case]:
    """Scale 4 puts the bound of RELU6 on the tie 1.5; an odd zero point separates the two roundings."""
    for op in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        for dtype in QUANTIZED:
            for scale in (0.05, 4.0, 2.0, 0.02):
                for zero_point in (_middle(dtype) - 9, _middle(dtype) + 8, _middle(dtype) - 128):
                    for activation in ("RELU", "RELU6", "RELU_N1_TO_1"):
                        data = ramp((1, 8, 8, 4), dtype, step=11)
                        edge = f"{activation} at scale {scale}, zero point {zero_point}"
                        yield _pool(
                            op, data, (2, 2), (2, 2), "VALID", (4, 4), edge, scale, zero_point, activation
                        )


def average_ties() -> Iterator[Case]:
    """Every sum from lowest to highest of two and of four taps: halves of both signs, saturated ends."""
    for dtype in QUANTIZED:
        low = _middle(dtype) - 128
        for taps in (2, 4):
            total = np.arange(255 * taps + 1)
            shares = np.stack([(total + tap) // taps for tap in range(taps)], axis=-1)
            data = (shares + low).astype(dtype).reshape(1, total.size, taps, 1)
            yield _pool(
                "AVERAGE_POOL_2D",
                data,
                (1, taps),
                (1, taps),
                "VALID",
                (total.size, 1),
                f"every sum of {taps}",
            )


def _mean(
    data: Array,
    axes: tuple[int, ...],
    keep_dims: bool,
    edge: str,
    scales: tuple[float, float] = (0.05, 0.03),
    zeros: tuple[int, int] = (-3, 7),
) -> Case:
    dtype, rank = data.dtype.name, data.ndim
    reduced = {axis % rank for axis in axes}
    if keep_dims:
        shape = tuple(1 if axis in reduced else size for axis, size in enumerate(data.shape))
    else:
        shape = tuple(size for axis, size in enumerate(data.shape) if axis not in reduced)
    middle = _middle(dtype)
    return single_layer(
        f"mean-{dtype}-{'keep' if keep_dims else 'drop'}",
        edge,
        "MEAN",
        [Feed(data, scales[0], middle + zeros[0]), indices(*axes)],
        [Result(shape, dtype, scales[1], middle + zeros[1])],
        keep_dims=keep_dims,
    )


def spatial_means() -> Iterator[Case]:
    """Over y and x with kept dimensions, which has kernels of its own; channels leave tails of 16."""
    for dtype in QUANTIZED:
        for channels in (*CHANNELS, 64):
            for size in ((1, 1), (3, 5), (7, 7), (4, 8)):
                data = noise((2, *size, channels), dtype, channels)
                edge = f"{size[0]}x{size[1]}, {channels} channels"
                yield _mean(data, (1, 2), True, edge)
        data = noise((3, 5, 4, 35), dtype, 1)
        for scales in ((0.05, 0.05), (0.0117, 0.0034), (0.02, 3.0), (1.0, 0.004)):
            for zeros in ((0, 0), (-128, 127), (127, -128), (-5, 5), (11, 10)):
                edge = f"scales {scales}, zero points {zeros}"
                yield _mean(data, (2, 1), True, edge, scales, zeros)
                yield _mean(data, (1, 2), False, edge, scales, zeros)


def general_means() -> Iterator[Case]:
    table: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((2, 3, 4, 17), (3,)),
        ((2, 3, 4, 17), (1,)),
        ((2, 3, 4, 17), (2,)),
        ((2, 3, 4, 17), (0,)),
        ((2, 3, 4, 17), (1, 3)),
        ((2, 3, 4, 17), (-1, -2, -3)),
        ((2, 3, 4, 17), (0, 1, 2, 3)),
        ((2, 3, 4, 17), (1, 1, 2)),
        ((5, 33), (1,)),
        ((5, 33), (0,)),
        ((40,), (0,)),
        ((4, 6, 20), (1,)),
        ((4, 6, 20), (1, 2)),
        ((2, 2, 3, 4, 5), (2, 3)),
    )
    for dtype in QUANTIZED:
        for number, (shape, axes) in enumerate(table):
            for keep_dims in (False, True):
                data = noise(shape, dtype, number)
                yield _mean(data, axes, keep_dims, f"{len(shape)} dimensions over {axes}")
                yield _mean(
                    data,
                    axes,
                    keep_dims,
                    f"{len(shape)} dimensions over {axes}, same parameters",
                    (0.05, 0.05),
                    (1, 1),
                )


def mean_ties() -> Iterator[Case]:
    """Sums one apart over 2, 4, 6 and 49 values at equal and power-of-two scales: exact halves."""
    for dtype in QUANTIZED:
        low = _middle(dtype) - 128
        for count, scales in (
            (2, (1.0, 1.0)),
            (4, (0.5, 0.5)),
            (4, (1.0, 2.0)),
            (6, (0.25, 0.125)),
            (49, (1.0, 1.0)),
        ):
            channels = 16 * 8 + 5
            total = (np.arange(channels) * 2 + 1) * 255 * count // (2 * channels)
            shares = np.stack([(total + tap) // count for tap in range(count)])
            data = (shares + low).astype(dtype).reshape(1, count, 1, channels)
            for zeros in ((0, 0), (-1, 0), (-21, 13)):
                for keep_dims in (True, False):
                    edge = f"halves of {count} at scales {scales}, zero points {zeros}"
                    yield _mean(data, (1, 2), keep_dims, edge, scales, zeros)
