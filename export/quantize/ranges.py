"""Choosing a range from the values a tensor took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from karat24.export.quantize.affine import Range, parameters_of_range
from karat24.export.quantize.histogram import Histogram
from karat24.export.quantize.scheme import RangeMethod
from karat24.refimpl.graph import QUANTIZED_RANGE

SHRINKS = tuple(float(fraction) for fraction in np.linspace(1.0, 0.2, 81))
"""Fractions of the full extent that the error search tries at either end, widest first."""

ROUNDS = 2
"""How often the error search goes over both ends."""


def choose_range(seen: Histogram, method: RangeMethod, symmetric: bool = False) -> Range:
    """The range of a tensor, by ``method``. ``symmetric``: it will be quantized with zero point 0."""
    return CHOICES[method.name](seen, method, symmetric)


def _minmax(seen: Histogram, method: RangeMethod, symmetric: bool) -> Range:  # noqa: ARG001
    return Range(seen.minimum, seen.maximum)


def _percentile(seen: Histogram, method: RangeMethod, symmetric: bool) -> Range:  # noqa: ARG001
    """Bin edges beyond which at most the allowed share of values lies, never beyond what was seen."""
    outside = seen.total * (100.0 - method.percentile) / 100.0
    below, above = np.cumsum(seen.counts), np.cumsum(seen.counts[::-1])[::-1]
    edges = seen.centers - 0.5 * seen.width
    low = edges[np.argmax(below > outside)]
    high = edges[len(edges) - 1 - np.argmax(above[::-1] > outside)] + seen.width
    return Range(max(seen.minimum, float(low)), min(seen.maximum, float(high)))


def _least_error(seen: Histogram, method: RangeMethod, symmetric: bool) -> Range:  # noqa: ARG001
    return least_error_range(seen, symmetric)


def least_error_range(
    seen: Histogram, symmetric: bool = False, dtype: str = "int8", limits: tuple[int, int] | None = None
) -> Range:
    """Shrinks one end at a time to the fraction with the least squared error; ties go to the wider.

    ``limits`` are the (qmin, qmax) the values will be quantized to, those of ``dtype`` unless given.
    """
    used = np.flatnonzero(seen.counts)
    centers, counts = seen.centers[used], seen.counts[used].astype(np.float64)
    full = Range(min(seen.minimum, 0.0), max(seen.maximum, 0.0))
    qmin, qmax = limits or QUANTIZED_RANGE[dtype]

    def error(candidate: Range) -> float:
        parameters = parameters_of_range(candidate, dtype, symmetric, limits)
        scale, zero_point = parameters.scale[0], parameters.zero_point[0]
        quantized = np.clip(np.rint(centers / scale) + zero_point, qmin, qmax)
        return float((((quantized - zero_point) * scale - centers) ** 2 * counts).sum())

    if symmetric:
        return min((Range(full.low * f, full.high * f) for f in SHRINKS), key=error)
    best = full
    for _ in range(ROUNDS):
        best = min((Range(best.low, full.high * f) for f in SHRINKS), key=error)
        best = min((Range(full.low * f, best.high) for f in SHRINKS), key=error)
    return best


CHOICES: Mapping[str, Callable[[Histogram, RangeMethod, bool], Range]] = MappingProxyType(
    {"minmax": _minmax, "percentile": _percentile, "mse": _least_error}
)
"""Range method to its function."""
