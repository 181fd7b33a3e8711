"""The intervals of ``com.microsoft:QAttention``: float32 attention behind an exact integer product.

Queries, keys and values are known but for one rounding, which a fused multiply-add leaves out; keys and
values are outputs themselves where a model keeps them. A score is a sum of ``n`` products times a factor,
plus the mask: at most ``gamma_(n+2)`` of its terms' magnitudes away. The largest score is subtracted from
all, an exact choice among computed values, so that its own error cancels in the softmax; an error ``r`` of a
score changes its exponential by the factor ``exp(r)`` at most. Exponential, sum and quotient are as in
``functions.py``, the sum of values behind them as in ``sums.py``. A score that the order of steps masks is
the smallest float32, whose exponential is 0. Source: as ``spec/onnx/qattention.py``.
"""

from __future__ import annotations

import numpy as np

from karat24.refimpl.bounds.functions import EXPONENTIAL, FARTHEST
from karat24.refimpl.bounds.interval import LARGEST, TINY, UNIT, UNIT64, Interval, gamma
from karat24.refimpl.bounds.sums import rounded_sum
from karat24.refimpl.contract import Values
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.qattention import by_heads, factor_of, mask_of, projections, with_past

MOST_DOUBT = 0.5
"""A larger relative error of a softmax's sum is not bounded."""


def qattention(view: LayerView, values: Values, rule: Rule) -> tuple[Interval, ...]:
    """The result ``[batch, step, width]``, and all keys and values where they are an output."""
    forms = [by_heads(view, form) for form in projections(view, values, rule)]
    if not all(bool(np.isfinite(form).all()) for form in forms):
        raise CannotCompare("queries, keys or values are no finite numbers")
    least, most = np.minimum(*forms), np.maximum(*forms)
    kept = Interval(*(with_past(values, end[1:]) for end in (least, most)))
    keys, weighed = (Interval(*ends) for ends in zip(kept.low, kept.high, strict=True))
    mean, off = _softmax(*_scores(view, values, Interval(least[0], most[0]), keys))
    centre, doubt = _middle(weighed)
    size = np.abs(centre) + doubt
    magnitude, lost = (
        (mean + off) @ size,
        off @ size + mean @ doubt + 8 * mean.shape[-1] * TINY * (1 + size.max()),
    )
    result = rounded_sum(mean @ centre, magnitude, mean.shape[-1], lost)
    ends = (np.moveaxis(end, 1, 2).reshape(view.output().shape) for end in (result.low, result.high))
    return (Interval(*ends), kept) if len(view.outputs) == 2 else (Interval(*ends),)


def _middle(interval: Interval) -> tuple[Array, Array]:
    """The middle and half the width, float64."""
    low, high = interval.low.astype(np.float64), interval.high.astype(np.float64)
    return (low + high) / 2, (high - low) / 2


def _scores(view: LayerView, values: Values, queries: Interval, keys: Interval) -> tuple[Array, Array]:
    """Scores, -inf where they do not count, and how far a computed one may be away."""
    (q, off_q), (k, off_k) = _middle(queries), _middle(keys)
    k, off_k = (np.swapaxes(part, -1, -2) for part in (k, off_k))
    factor, (added, later) = float(factor_of(view)), mask_of(view, values)
    most = abs(factor) * ((np.abs(q) + off_q) @ (np.abs(k) + off_k)) + np.abs(added)
    if not bool(np.all(most < LARGEST / 4)):
        raise CannotCompare("scores are so large, or so far from numbers, that float32 sums may overflow")
    count = q.shape[-1] + 2
    unsure = abs(factor) * (off_q @ np.abs(k) + np.abs(q) @ off_k + off_q @ off_k)
    under = 4 * count * TINY * (1 + abs(factor)) * (1 + np.abs(q).max() + np.abs(k).max())
    away = unsure + (gamma(count) + gamma(count + 8, UNIT64)) * most + under
    scores = factor * (q @ k) + added
    return np.where(later, -np.inf, scores), np.where(later, 0.0, away)


def _softmax(scores: Array, away: Array) -> tuple[Array, Array]:
    """The softmax along the last axis, and how far a computed one may be away."""
    arguments = scores - scores.max(axis=-1, keepdims=True)
    reach = np.minimum(np.abs(arguments) + 2 * away.max(axis=-1, keepdims=True), FARTHEST)
    with np.errstate(over="ignore"):
        each = np.exp(away + gamma(1) * reach) * (1 + EXPONENTIAL + 2 * reach * UNIT) - 1
    exponentials, count = np.exp(arguments), scores.shape[-1]
    total = exponentials.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        error = (exponentials * each).sum(axis=-1, keepdims=True) + count * 2 * TINY
    error = (error + gamma(count) * (total + error)) / total
    if not bool(np.all(error < MOST_DOUBT)):
        raise CannotCompare("scores are so large that their float32 errors leave the softmax open")
    relative = (1 + each) * (1 + gamma(2)) / (1 - error) - 1
    mean = exponentials / total
    return mean, np.where(mean > 0, mean * (relative + count * 2.0**-44), 0.0) + 8 * TINY
