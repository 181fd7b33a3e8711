"""Cases of QUANTIZE, DEQUANTIZE and CONCATENATION."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from karat24.refimpl.graph import Array
from tests.cases.case import Case
from tests.cases.quantized import ZERO_POINTS, every_value, f32, seeded, some_values
from tests.cases.single_layer import Feed, Result, single_layer

DTYPES = ("int8", "uint8")
SIZES = (1, 7, 8, 9, 15, 16, 17, 33)

RATIOS = {
    "same": 1.0,
    "half": 0.5,
    "quarter": 0.25,
    "double": 2.0,
    "shrink": 0.3717,
    "grow": 1.6183,
    "nearly_one": 1.0000001,
    "tiny": 0.0101,
    "beyond_xnnpack": 0.0021,
    "saturating": 130.7,
}
"""``s_in / s_out``; powers of two put every odd value on a tie."""


def cases() -> list[Case]:
    """All of them, names unique."""
    return [*_from_float(), *_requantize(), *_dequantize(), *_concatenations()]


def _zero_point(rng: np.random.Generator, dtype: str) -> int:
    return int(rng.choice(ZERO_POINTS[dtype]))


# --- QUANTIZE -----------------------------------------------------------------------------------


def _float_case(dtype: str, label: str, edge: str, values: Array, scale: float, zero_point: int) -> Case:
    result = Result(values.shape, dtype, f32(scale), zero_point)
    return single_layer(f"quantize_{dtype}_{label}", edge, "QUANTIZE", [Feed(values)], [result])


def _from_float() -> Iterator[Case]:
    scales = {"power": 2.0**-6, "third": 1 / 3, "usual": 0.0039216, "large": 7.31, "tiny": 3.1e-9}
    for dtype, (label, scale), zero_point in itertools.product(DTYPES, scales.items(), range(3)):
        zero = ZERO_POINTS[dtype][zero_point + 1]
        rng = seeded(f"{dtype}{label}{zero}")
        yield _float_case(
            dtype,
            f"{label}_zp{zero}",
            "ties, and floats one beside them",
            _near_ties(rng, f32(scale)),
            scale,
            zero,
        )
    for dtype, size in itertools.product(DTYPES, SIZES):
        rng = seeded(f"{dtype}{size}")
        values = (rng.integers(-200, 200, size) / 2 * f32(0.1)).astype(np.float32)
        yield _float_case(dtype, f"size{size}", "block and tail", values, 0.1, 3)
    for dtype, zero_point in itertools.product(DTYPES, range(5)):
        zero = ZERO_POINTS[dtype][zero_point]
        extremes = [
            1e3,
            32767,
            32768,
            65536,
            2147483520,
            2147483648,
            3e9,
            4294967296,
            1e12,
            1e30,
            3e38,
            np.inf,
        ]
        values = np.array([*extremes, *(-x for x in extremes), np.nan, 0.0, -0.0, 1e-40], np.float32)
        yield _float_case(
            dtype, f"overflow_zp{zero}", "steps no int16 or int32 holds, infinities, NaN",
            np.concatenate([values, values[:5], values[-5:]]), 1.0, zero,
        )  # fmt: skip


def _near_ties(rng: np.random.Generator, scale: float) -> Array:
    """Halves of steps, the floats around them, and what the reciprocal would call a tie."""
    halves = (np.arange(-300, 301) + 0.5) * np.float64(scale)
    ties = halves.astype(np.float32)
    by_reciprocal = ((np.arange(-300, 301) + 0.5) / np.float64(np.float32(1) / np.float32(scale))).astype(
        np.float32
    )
    values = [
        ties,
        np.nextafter(ties, np.float32(np.inf)),
        np.nextafter(ties, np.float32(-np.inf)),
        by_reciprocal,
        np.nextafter(by_reciprocal, np.float32(np.inf)),
        (rng.normal(0, 100, 500) * scale).astype(np.float32),
    ]
    return rng.permutation(np.concatenate(values))


def _requantize() -> Iterator[Case]:
    for source, target, (label, ratio) in itertools.product(DTYPES, DTYPES, RATIOS.items()):
        name = f"quantize_{source}_to_{target}_{label}"
        rng = seeded(name)
        scale = f32(0.25) if ratio in (0.25, 0.5, 1.0, 2.0) else f32(rng.uniform(0.01, 0.1))
        for turn in range(2):
            values = np.tile(every_value(source), 2)[: 256 + 13]
            zero_points = (3, 5) if turn == 0 else (_zero_point(rng, source), _zero_point(rng, target))
            yield single_layer(
                f"{name}_{turn}", "every value; a tail of 13", "QUANTIZE",
                [Feed(values, scale, zero_points[0])],
                [Result(values.shape, target, f32(scale / ratio), zero_points[1])],
            )  # fmt: skip
    for source, target, size in itertools.product(DTYPES, DTYPES, SIZES):
        rng = seeded(f"{source}{target}{size}")
        values = some_values(rng, source, (1, size, 1))
        yield single_layer(
            f"quantize_{source}_to_{target}_size{size}", "block and tail, on ties", "QUANTIZE",
            [Feed(values, 0.25, 4)], [Result(values.shape, target, 1.0, 3)],
        )  # fmt: skip


# --- DEQUANTIZE ---------------------------------------------------------------------------------


def _dequantize() -> Iterator[Case]:
    scales = {"power": 2.0**-7, "third": 1 / 3, "usual": 0.0039216, "denormal": 1e-40, "huge": 2.9e37}
    for dtype, (label, scale) in itertools.product(DTYPES, scales.items()):
        rng = seeded(f"dequantize{dtype}{label}")
        values = np.tile(every_value(dtype), 2)[: 256 + 7]
        case = single_layer(
            f"dequantize_{dtype}_{label}", "every value; a tail of 7", "DEQUANTIZE",
            [Feed(values, f32(scale), _zero_point(rng, dtype))], [Result(values.shape, "float32")],
        )  # fmt: skip
        if label == "denormal":
            case = replace(
                case, broken_in={"litert-xnnpack": "XNNPACK takes the layer, then refuses its scale"}
            )
        yield case
    for dtype, size in itertools.product((*DTYPES, "int16"), SIZES):
        rng = seeded(f"dequantize{dtype}{size}")
        values = some_values(rng, dtype, (size,))
        zero_point = 0 if dtype == "int16" else 117
        yield single_layer(
            f"dequantize_{dtype}_size{size}", "block and tail", "DEQUANTIZE",
            [Feed(values, f32(0.0123), zero_point)], [Result(values.shape, "float32")],
        )  # fmt: skip


# --- CONCATENATION ------------------------------------------------------------------------------


def _concatenations() -> Iterator[Case]:
    for dtype, axis, count in itertools.product(
        (*DTYPES, "int32", "float32"), (0, 1, 3, -1, -2), (1, 2, 3, 6)
    ):
        name = f"concatenation_{dtype}_axis{axis}_of_{count}"
        rng = seeded(name)
        scale = f32(0.1) if dtype in DTYPES else None
        parts = []
        for part in range(count):
            shape = [2, 3, 4, 5]
            shape[axis] = 1 + (part * 2) % 5
            if dtype in DTYPES:
                parts.append(some_values(rng, dtype, tuple(shape)))
            else:
                parts.append(rng.normal(0, 1000, shape).astype(dtype))
        result = np.concatenate(parts, axis)
        yield single_layer(
            name, "axes from both ends, one to six inputs", "CONCATENATION",
            [Feed(part, scale, 7 if scale else 0) for part in parts],
            [Result(result.shape, dtype, scale, 7 if scale else 0)],
            axis=axis, fused_activation_function="NONE",
        )  # fmt: skip
    rescaled = {
        "halved": ((0.5, 3), (1.0, 7), (1.0, 7)),
        "mixed": ((0.0471, 131), (0.0233, 0), (0.0512, 128)),
        "zero_point_only": ((0.1, 10), (0.1, 12), (0.1, 11)),
        "grown": ((3.0, 255), (0.11, 3), (0.2, 4)),
        "ties": ((0.25, 5), (0.125, 6), (0.5, 9)),
    }
    for (label, parameters), axis in itertools.product(rescaled.items(), (0, -1)):
        values = every_value("uint8").reshape(16, 16)
        shape = (32, 16) if axis == 0 else (16, 32)
        *feeds, output = ((f32(scale), zero_point) for scale, zero_point in parameters)
        yield single_layer(
            f"concatenation_uint8_rescaled_{label}_axis{axis}", "uint8 inputs with parameters of their own",
            "CONCATENATION", [Feed(values, *feed) for feed in feeds], [Result(shape, "uint8", *output)],
            axis=axis, fused_activation_function="NONE",
        )  # fmt: skip
