"""LOGISTIC, TANH and SOFTMAX."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.single_layer import Feed, Result, noise, ramp, single_layer

QUANTIZED = ("int8", "uint8")

NEAR_TIES = {
    "LOGISTIC": ((0.008172, -103), (0.003824, -15), (0.058915, -76), (0.003824, -106)),
    "TANH": (
        (0.005448, -43), (0.018766, 1), (0.002088, -125), (0.091396, -54),
        (0.013945, 58), (0.003187, 7), (0.016045, -127), (0.003187, -119),
    ),
}  # fmt: skip
"""Input scales and zero points for which one of 256 outputs lies so near to a tie that adding the
zero point before or after rounding, or a tanh that is correctly rounded, changes it."""

UNDECIDED = (
    (0.01878, (-87, 59)), (0.02323, (113, -108)), (0.05083, (-79, 22)), (0.01934, (-73, 108)),
    (0.02178, (75, 124, 85)), (0.08382, (-26, 3, 23)), (0.08724, (52, 24, 102)), (0.02318, (10, 103, -29)),
    (0.0216, (-85, 41, -37, 67, -92)), (0.05337, (-42, -124, 47, 79, 82)),
    (0.02207, (-54, -36, -27, 90, -27)), (0.03042, (10, 27, 37, 56, 20)),
    (0.13156, (13, 6, -30, -41, 49, -4, 95, 53, 52, -14)),
    (0.01447, (-115, -68, 89, -62, -65, 80, -128, 66, -40, 116)),
    (0.08432, (-71, -87, 17, -101, -118, 29, 36, 110, 116, -82)),
    (0.15369, (33, -32, -39, -75, 43, -112, 30, -67, 34, 68)),
)  # fmt: skip
"""Input scales and rows whose softmax lies within 1e-5 of a tie: fixed point and float32 round apart."""


def cases() -> list[Case]:
    return [*tables(), *near_ties(), *softmaxes()]


def _middle(dtype: str) -> int:
    return 0 if dtype == "int8" else 128


def tables() -> Iterator[Case]:
    """All 256 inputs: steep, flat and saturating input scales; for TANH unusual outputs as well
    (LOGISTIC's own kernels refuse any but 1/256 from the minimum)."""
    for op in ("LOGISTIC", "TANH"):
        outputs = (
            [(1 / 256, -128)]
            if op == "LOGISTIC"
            else [(1 / 128, 0), (0.0071, 3), (0.25, -5), (0.001, 100), (1e-10, 1)]
        )
        for dtype in QUANTIZED:
            for scale in (0.0001, 0.0123, 1 / 32, 0.0625, 0.3, 40.0):
                for zero_point in (-128, -17, 0, 127):
                    for out_scale, out_zero in outputs:
                        middle = _middle(dtype)
                        data = ramp((2, 128), dtype, step=1)
                        edge = f"scale {scale}, zero point {zero_point}, to {out_scale:.5g} and {out_zero}"
                        yield single_layer(
                            f"{op.lower()}-{dtype}",
                            edge,
                            op,
                            [Feed(data, scale, middle + zero_point)],
                            [Result(data.shape, dtype, out_scale, middle + out_zero)],
                        )


def near_ties() -> Iterator[Case]:
    for op, parameters in NEAR_TIES.items():
        out_scale, out_zero = (1 / 256, -128) if op == "LOGISTIC" else (1 / 128, 0)
        for dtype in QUANTIZED:
            middle = _middle(dtype)
            for scale, zero_point in parameters:
                data = ramp((2, 128), dtype, step=1)
                yield single_layer(
                    f"{op.lower()}-{dtype}",
                    f"near a tie, scale {scale}, zero point {zero_point}",
                    op,
                    [Feed(data, scale, middle + zero_point)],
                    [Result(data.shape, dtype, out_scale, middle + out_zero)],
                )


def _softmax(data: Array, scale: float, beta: float, edge: str) -> Case:
    dtype = data.dtype.name
    middle = _middle(dtype)
    return single_layer(
        f"softmax-{dtype}",
        f"{edge}, scale {scale}, beta {beta}",
        "SOFTMAX",
        [Feed(data, scale, middle + 4)],
        [Result(data.shape, dtype, 1 / 256, middle - 128)],
        beta=beta,
    )


def softmaxes() -> Iterator[Case]:
    for dtype in QUANTIZED:
        for depth in (1, 2, 3, 10, 15, 16, 17, 33, 100):
            for scale in (0.01, 0.0791, 0.25, 1.0):
                yield _softmax(noise((6, depth), dtype, depth), scale, 1.0, f"{depth} classes")
        for beta in (0.5, 2.0, 10.0):
            yield _softmax(noise((6, 12), dtype, 3), 0.1, beta, "12 classes")
        for number, (scale, row) in enumerate(UNDECIDED):
            data = np.array([row]) + _middle(dtype)
            yield _softmax(data.astype(dtype), scale, 1.0, f"near a tie {number}")
        low = _middle(dtype) - 128
        differences = np.arange(-255, 256)
        pairs = low + np.stack([np.maximum(differences, 0), np.maximum(-differences, 0)], axis=1)
        for scale in (0.01, 0.0791, 0.25):
            yield _softmax(pairs.astype(dtype), scale, 1.0, "two classes, all differences")
        for depth in (2, 3, 4, 7, 100, 256):
            yield _softmax(np.full((1, depth), low + 77, dtype), 0.1, 1.0, f"{depth} equal classes")
        one_high = np.full((3, 20), low, dtype)
        one_high[:, 7] = low + 255
        for scale in (0.001, 0.02, 0.121, 0.126, 8.0):
            yield _softmax(one_high, scale, 1.0, "one far above the rest")
        yield _softmax(noise((2, 3, 4, 5), dtype, 9), 0.07, 1.0, "four dimensions")
        yield _softmax(noise((9,), dtype, 9), 0.07, 1.0, "one dimension")
        yield _softmax(noise((2, 3, 7), dtype, 9), 0.07, 1.0, "three dimensions")
