"""Scales, zero points and values that cases are made of."""

from __future__ import annotations

import zlib

import numpy as np

from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, Quantization

ZERO_POINTS = {"int8": (0, -128, 127, 3, -5), "uint8": (128, 0, 255, 131, 7)}
"""The middle, both ends, and odd ones."""


def seeded(name: str) -> np.random.Generator:
    """A generator that depends on the case's name alone: cases do not change when others are added."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def f32(value: float) -> float:
    """``value`` rounded to float32."""
    return float(np.float32(value))


def parameters(scale: float, zero_point: int = 0) -> Quantization:
    """Per-tensor quantization."""
    return Quantization.per_tensor(scale, zero_point)


def some_values(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    """Uniform values, the ends among them."""
    low, high = QUANTIZED_RANGE[dtype]
    values = rng.integers(low, high + 1, shape)
    flat = values.reshape(-1)
    if flat.size > 2:
        flat[rng.integers(flat.size)], flat[rng.integers(flat.size)] = low, high
    return values.astype(DTYPES[dtype])


def every_value(dtype: str) -> Array:
    """All 256 values in order."""
    low, high = QUANTIZED_RANGE[dtype]
    return np.arange(low, high + 1).astype(DTYPES[dtype])


def every_pair(dtype: str) -> tuple[Array, Array]:
    """Two ``[256, 256]`` arrays: together every pair of values."""
    values = every_value(dtype)
    left, right = np.meshgrid(values, values, indexing="ij")
    return np.ascontiguousarray(left), np.ascontiguousarray(right)
