"""LOGISTIC, TANH and SOFTMAX."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.single_layer import Feed, Result, noise, ramp, single_layer

QUANTIZED = ("int8", "uint8")


def cases() -> list[Case]:
    return [*tables(), *softmaxes()]


def _middle(dtype: str) -> int:
    return 0 if dtype == "int8" else 128


def tables() -> Iterator[Case]:
    """All 256 inputs: steep, flat and saturating input scales; for TANH unusual outputs as well
    (LOGISTIC's own kernels refuse any but 1/256 from the minimum)."""
    for op in ("LOGISTIC", "TANH"):
        outputs = (
            [(1 / 256, -128)] if op == "LOGISTIC" else [(1 / 128, 0), (0.0071, 3), (0.25, -5), (0.001, 100)]
        )
        for dtype in QUANTIZED:
            for scale in (0.0001, 0.0123, 1 / 32, 0.0625, 0.3, 40.0):
                for zero_point in (-128, -17, 0, 127):
                    for out_scale, out_zero in outputs:
                        middle = _middle(dtype)
                        data = ramp((2, 128), dtype, step=1)
                        edge = f"scale {scale}, zero point {zero_point}, to {out_scale:.5f} and {out_zero}"
                        yield single_layer(
                            f"{op.lower()}-{dtype}",
                            edge,
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
        low = _middle(dtype) - 128
        for depth in (2, 3, 4, 7, 100, 256):
            yield _softmax(np.full((1, depth), low + 77, dtype), 0.1, 1.0, f"{depth} equal classes")
        one_high = np.full((3, 20), low, dtype)
        one_high[:, 7] = low + 255
        for scale in (0.001, 0.02, 0.121, 0.126, 8.0):
            yield _softmax(one_high, scale, 1.0, "one far above the rest")
        yield _softmax(noise((2, 3, 4, 5), dtype, 9), 0.07, 1.0, "four dimensions")
        yield _softmax(noise((9,), dtype, 9), 0.07, 1.0, "one dimension")
        yield _softmax(noise((2, 3, 7), dtype, 9), 0.07, 1.0, "three dimensions")
