"""Intervals of float32 normalizations, ``(x - mean) / sqrt(variance + epsilon) * scale + bias``.

Let ``u`` be the unit roundoff, ``n`` values be normalized together, ``s`` the mean of their squares. In
any order the float32 mean is at most ``gamma_(n+2) mean|x|`` away. The variance is the mean of
``(x - mean)^2``, or ``s - mean^2``; the second form loses ``gamma_(n+2) s`` in its first term, ``2 |mean|``
times the error of the mean in its second and a rounding of both, the first form less. Since
``(mean|x|)^2 <= s``, either is at most ``8 gamma_(n+8) s`` away: no relative error where the values lie far
from 0 beside their spread. Where the variance plus ``epsilon`` may then be 0, nothing is claimed
(CannotCompare).

The result is formed as it stands, or as ``x a + (bias - mean a)`` with ``a = scale / deviation``, whose terms
are rounded before they cancel; together at most ``gamma_8 (|x| + |mean|) |a|`` and ``gamma_4`` of what is
added.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.bounds.interval import TINY, UNIT, Interval, gamma
from karat24.refimpl.contract import Values
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import LayerView
from karat24.refimpl.spec.onnx.normalization import normalization

SLACK = 1 + 2.0**-20
"""What radii are enlarged by: the float64 operations that compute them round too."""


def normalized(view: LayerView, values: Values) -> Interval:
    """LayerNormalization, InstanceNormalization, GroupNormalization and ONNX Runtime's forms of the first."""
    given = normalization(view, values)
    data, count = given.data, given.data.shape[1]
    if not all(np.isfinite(each).all() for each in (data, given.scale, given.bias)):
        raise CannotCompare("an input is not a finite number")
    lost = np.broadcast_to(given.lost, data.shape)
    magnitude = np.abs(data).mean(axis=1, keepdims=True)
    squares = (data**2).mean(axis=1, keepdims=True)
    if squares.max() > 2.0**120 / count:
        raise CannotCompare("values are so large that their float32 squares may overflow")
    mean, off = np.zeros_like(magnitude), np.zeros_like(magnitude)
    if given.centred:
        mean = data.mean(axis=1, keepdims=True)
        off = gamma(count + 2) * magnitude + lost.mean(axis=1, keepdims=True) + 4 * TINY
    centred = data - mean
    variance = (centred**2).mean(axis=1, keepdims=True)
    carried = 4 * (lost * (np.abs(data) + magnitude)).mean(axis=1, keepdims=True) + (lost**2).max()
    spread = 8 * gamma(count + 8) * squares + carried + 8 * TINY
    least, most = variance - spread + given.epsilon, variance + spread + given.epsilon
    if not bool((least * (1 - 4 * UNIT) > 4 * TINY).all()):
        raise CannotCompare(
            "values lie so far from 0, beside their spread, that the float32 variance may be 0 or negative"
        )
    slowest, fastest = (1 - gamma(8)) / np.sqrt(most), (1 + gamma(8)) / np.sqrt(least)
    away = off + lost + 2 * UNIT * np.abs(centred)
    corners = [end * factor for end in (centred - away, centred + away) for factor in (slowest, fastest)]
    ends = [np.minimum.reduce(corners) * given.scale, np.maximum.reduce(corners) * given.scale]
    low, high = np.minimum(*ends) + given.bias, np.maximum(*ends) + given.bias
    terms = (np.abs(data) + np.abs(mean) + off + lost) * np.abs(given.scale) * fastest
    rounding = gamma(8) * terms + gamma(4) * (np.abs(given.bias) + terms)
    under = 16 * TINY * (1 + np.abs(given.scale)) * (1 + fastest) * (1 + np.abs(data) + np.abs(mean))
    centre, half = (low + high) / 2, (high - low) / 2
    shape = view.output().shape
    return Interval.around(centre.reshape(shape), ((half + rounding + under) * SLACK).reshape(shape))
