"""Bounds of the accumulators a layer can have at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.spec.shared.primitives import INT32_MAX, INT32_MIN
from karat24.refimpl.staircase.linear_form import biases, centred_filter, data_range
from karat24.refimpl.staircase.requantization import ACCUMULATING


@dataclass(frozen=True, eq=False)
class Reach:
    """Bounds of each channel's accumulators, int64 ``[channel]``, over all inputs of the data's type.

    They are those of an output element whose taps all lie on inputs; a tap on padding adds 0, which is
    within the bounds, and so is what saturating pairs of products add. Not every accumulator between
    them need have an input. ``wraps``: a sum may pass 32 bits; the bounds are then those of int32.
    """

    first: Array
    last: Array
    wraps: bool


def reach(view: LayerView) -> Reach | None:
    """The reach of a layer with accumulators; None where the graph computes its filter or its bias."""
    weights, offsets = centred_filter(view), biases(view)
    if weights is None or offsets is None:
        return None
    low, high = data_range(view)
    least, most = np.minimum(weights * low, weights * high), np.maximum(weights * low, weights * high)
    first, last = _by_channel(view, least, np.min), _by_channel(view, most, np.max)
    if offsets.ndim == 2:  # a bias per row, too
        first, last = first + offsets.min(axis=0), last + offsets.max(axis=0)
    else:
        first, last = first + offsets, last + offsets
    wraps = bool((first < INT32_MIN).any() or (last > INT32_MAX).any())
    if wraps:
        first, last = np.full_like(first, INT32_MIN), np.full_like(last, INT32_MAX)
    return Reach(first, last, wraps)


def _by_channel(view: LayerView, terms: Array, across: np.ufunc | object) -> Array:
    """The terms of each channel summed; of matrices in a batch, the least or greatest sum."""
    if view.op == "QLinearMatMul":
        sums = terms.sum(axis=-2)
        return np.asarray(across(sums.reshape(-1, sums.shape[-1]), axis=0))  # type: ignore[operator]
    axis = ACCUMULATING[view.op].filter_axis
    if view.op == "com.microsoft:QGemm":
        axis = 0 if view.integer("transB", 0) else 1
    others = tuple(i for i in range(terms.ndim) if i != axis)
    return np.asarray(terms.sum(axis=others))
