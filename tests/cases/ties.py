"""Accumulators that lie on rounding ties, beside them, or where two roundings disagree."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from karat24.refimpl.graph import QUANTIZED_RANGE, Array
from karat24.refimpl.profiles.rules import Method, Multiplier
from karat24.refimpl.spec.shared.primitives import effective_multiplier, multiply

ROUNDINGS: tuple[tuple[Method, Multiplier], ...] = (
    ("gemmlowp", "float64"),
    ("gemmlowp", "float32_product"),
    ("ruy", "float64"),
    ("ruy", "float32_product"),
    ("float32_half_even", "float32"),
    ("float64_half_away", "float64"),
)
"""Every way any profile requantizes an accumulator."""

INT32_LIMIT = 2**31 - 1024
"""Leaves room for the few products a case adds to a bias."""


def tie_accumulators(
    scales: tuple[float, float, float], zero_point: int, dtype: str, count: int, rng: np.random.Generator
) -> Array:
    """``count`` int64 accumulators for ``(s_in, s_filter, s_out)``.

    First those on which two of :data:`ROUNDINGS` disagree, as evenly over the
    disagreeing pairs as they come, then others on or one beside a tie.
    """
    near, disagreeing = _candidates(scales, zero_point, dtype)
    buckets = [rng.permutation(values).tolist() for values in disagreeing]
    chosen: dict[int, None] = {}
    while any(buckets) and len(chosen) < count:
        for bucket in buckets:
            if bucket:
                chosen[bucket.pop()] = None
    for value in rng.permutation(near).tolist():
        chosen[value] = None
    taken = np.array(list(chosen)[:count], np.int64)
    return np.resize(taken, count)


@functools.lru_cache(maxsize=256)  # channels of one scale follow one another
def _candidates(
    scales: tuple[float, float, float], zero_point: int, dtype: str
) -> tuple[Array, tuple[Array, ...]]:
    """Accumulators on and beside ties, and those of them on which each pair of roundings disagrees."""
    low, high = QUANTIZED_RANGE[dtype]
    effective = scales[0] * scales[1] / scales[2]
    ties = (np.arange(low - 1, high + 1) - zero_point + 0.5) / effective
    near = np.unique(np.rint(ties).astype(np.int64)[:, None] + np.arange(-2, 3))
    near = near[np.abs(near) < INT32_LIMIT]
    results = [
        multiply(method, near, effective_multiplier(how, *scales), zero_point, low, high)
        for method, how in ROUNDINGS
    ]
    return near, tuple(near[left != right] for left, right in itertools.combinations(results, 2))
