"""Accumulators that are too narrow."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from karat24.golden.attribution.hypothesis import Cut, Hypothesis
from karat24.golden.attribution.sums import sums_of
from karat24.golden.attribution.suspect import Suspect
from karat24.refimpl.graph import Array

MOST_PRODUCTS = 1 << 26
"""Most products that are added one by one, or in pairs."""

MOST_SUMS = 1 << 22
"""Most sums that are requantized."""

MOST_ROWS = 1 << 24
"""Most values of all rows of the layer's inputs."""

_LOW, _HIGH = -(2**15), 2**15 - 1


def saturation(suspect: Suspect) -> Iterator[Hypothesis | Cut]:
    """Sums of 16 bits that saturate or wrap, at the end or at each step; pairs of products that saturate."""
    sums = sums_of(suspect)
    if sums is None:
        return
    acc, bias = sums.acc, np.int64(0) if sums.bias is None else sums.bias
    if acc.size > MOST_SUMS:
        yield Cut(f"narrow accumulators were not tried on {acc.size} sums")
        return
    ends = {
        "the sum saturates at 16 bits": np.clip(acc, _LOW, _HIGH),
        "the sum of products saturates at 16 bits, before the bias": np.clip(acc - bias, _LOW, _HIGH) + bias,
        "the sum wraps at 16 bits": acc.astype(np.int16).astype(np.int64),
    }
    for place, changed in ends.items():
        yield Hypothesis(place, outputs=sums.outputs(changed))
    windowed = sums.windowed
    if windowed is None:
        return
    stored = windowed.weights.reshape(windowed.weights.shape[0], -1).astype(np.int64)
    weights = (stored - windowed.weight_zero[:, None]).T
    pixels = acc.size // acc.shape[-1]
    alone = windowed.groups != 1  # each channel, or each group of them, reads other values
    rows = weights.size if alone else weights.shape[0]
    if weights.size * pixels > MOST_PRODUCTS or rows * pixels > MOST_ROWS:
        yield Cut("sums that saturate on the way were not tried")
        return
    channels = range(weights.shape[1]) if alone else (0,)
    seen = np.stack([windowed.rows(channel, np.arange(pixels)) for channel in channels], axis=-1)
    start = np.broadcast_to(bias, (pixels, weights.shape[1]))
    running = {
        "every step saturates at 16 bits, from 0": _running(seen, weights, np.zeros_like(start)) + bias,
        "every step saturates at 16 bits, from the bias": _running(seen, weights, start),
    }
    if windowed.weights.dtype == np.int8 and not windowed.weight_zero.any() and not alone:
        zero_point = windowed.zero_point + (128 if windowed.image.dtype == np.int8 else 0)
        running["pairs of u8s8 products saturate at 16 bits"] = (
            _pairs(seen[..., 0], weights, zero_point) + bias
        )
    for place, changed in running.items():
        yield Hypothesis(place, outputs=sums.outputs(changed.reshape(acc.shape)))


def _running(seen: Array, weights: Array, total: Array) -> Array:
    """Sums ``[pixel, channel]`` held in 16 bits, one tap after the other.

    ``seen`` is ``[pixel, tap, channel]``, or ``[pixel, tap, 1]`` where all channels read the same.
    """
    for tap, factors in enumerate(weights):
        total = np.clip(total + seen[:, tap] * factors, _LOW, _HIGH)
    return np.asarray(total)


def _pairs(seen: Array, weights: Array, zero_point: int) -> Array:
    """``sum of sat16(u[2i] w[2i] + u[2i+1] w[2i+1])``, less what the zero point of ``u``, unsigned, adds."""
    unsigned = seen + zero_point
    total = np.zeros((seen.shape[0], weights.shape[1]), np.int64) - zero_point * weights.sum(axis=0)
    for first in range(0, weights.shape[0], 2):
        pair = slice(first, first + 2)
        products = unsigned[:, pair] @ weights[pair]
        total += np.clip(products, _LOW, _HIGH)
    return np.asarray(total)
