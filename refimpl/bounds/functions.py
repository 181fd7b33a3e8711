"""Intervals of float32 functions whose library nobody names: the error of each form in use, bounded.

*Exponential.* glibc documents at most 1 ULP for ``expf`` (manual, "Known Maximum Errors in Math
Functions"). MLAS, Eigen and XNNPACK take ``m = round(x / ln 2)``, ``r = x - m ln 2`` in two steps (Cody and
Waite), so that the error of ``r`` is at most ``|r| u`` and the tail of ln 2, then a polynomial of degree 5
or 6 on |r| <= 0.35 by Horner's rule: its last step rounds a value of at least 0.7, the ones before are
damped by |r|, and the polynomial is closer than ``u / 2``. Together less than ``4 u``; allowed are
EXPONENTIAL = ``8 u`` = 4 ULP.

*Logistic and tanh.* glibc documents 2 ULP for ``tanhf``. MLAS and Eigen divide two polynomials by Horner's
rule, argument clamped to ±18 and ±9, where the functions are closer than ``u`` to their limits; XNNPACK and
the reference kernels of TFLite take an exponential, a sum and a quotient, the latter beyond -9 the
exponential alone, which is ``exp(-18) < u / 2`` away. The results are at most 1, and so are the errors less
than ``8 u`` absolutely; allowed are SATURATING = ``16 u``.
"""

from __future__ import annotations

import numpy as np

from refimpl.bounds.interval import TINY, UNIT, Interval, gamma
from refimpl.bounds.tflite import require_float
from refimpl.contract import Values
from refimpl.errors import CannotCompare
from refimpl.graph import Array, LayerView
from refimpl.spec.requirements import operand, require_arity, require_shape, resolve_axis

EXPONENTIAL = 8 * UNIT
SATURATING = 16 * UNIT

SLACK = 2.0**-44
"""The error of the float64 functions used here, relative; they are documented to about 2^-52."""


def check_unary(view: LayerView) -> None:
    """One float32 input, an output of its shape."""
    require_arity(view, 1)
    require_float(view)
    require_shape(view, view.output(), view.input(0).shape)


def logistic(view: LayerView, values: Values) -> Interval:  # noqa: ARG001 - the array says it all
    """``1 / (1 + exp(-x))``."""
    x = _finite(operand(values, 0))
    with np.errstate(over="ignore"):
        return _around(1 / (1 + np.exp(-x)), SATURATING)


def tanh(view: LayerView, values: Values) -> Interval:  # noqa: ARG001 - the array says it all
    """``tanh(x)``; near 0 the forms are exact to a few units of x."""
    x = _finite(operand(values, 0))
    return _around(np.tanh(x), np.minimum(SATURATING, 2 * SATURATING * np.abs(x) + TINY))


def exp(view: LayerView, values: Values) -> Interval:  # noqa: ARG001 - the array says it all
    """``exp(x)``; below TINY it may be flushed to 0."""
    x = _finite(operand(values, 0))
    with np.errstate(over="ignore"):
        result = np.exp(x)
    return _around(result, result * EXPONENTIAL + TINY)


def check_softmax(view: LayerView) -> None:
    """TFLite's: one float32 input, over its last dimension."""
    check_unary(view)
    view.real("beta")


def softmax_last(view: LayerView, values: Values) -> Interval:
    """TFLite's SOFTMAX: ``exp(beta (x - max))`` over its sum, over the last dimension."""
    return _softmax(_finite(operand(values, 0)), -1, float(np.float32(view.real("beta"))))


def softmax_along(view: LayerView, values: Values) -> Interval:
    """ONNX's Softmax, over ``axis``."""
    data = _finite(operand(values, 0))
    return _softmax(data, resolve_axis(view, view.integer("axis", -1), data.ndim), 1.0)


def _softmax(data: Array, axis: int, beta: float) -> Interval:
    """The argument ``t`` is rounded once or, with ``beta``, twice, which changes its exponential by ``|t|``
    as much; then the exponential, a sum of n, and a quotient, or a product with a rounded reciprocal."""
    arguments = beta * (data - data.max(axis=axis, keepdims=True))
    exponentials = np.exp(arguments)
    count = data.shape[axis]
    roundings = 1 if beta == 1 else 3
    each = np.expm1(np.minimum(np.abs(arguments), 200.0) * gamma(roundings)) + EXPONENTIAL * (1 + 2.0**-8)
    lost = 2 * TINY  # a term that is flushed to 0, or held at the smallest the form gives
    total = exponentials.sum(axis=axis, keepdims=True)
    error = (exponentials * each).sum(axis=axis, keepdims=True) + count * lost
    error = (error + gamma(count) * (total + error)) / total
    result = exponentials / total
    relative = (1 + each) * (1 + gamma(2)) / (1 - error) - 1
    return _around(result, result * (relative + SLACK * count) + 4 * lost)


def _around(centre: Array, radius: Array | float) -> Interval:
    return Interval.around(centre, radius + SLACK * np.abs(centre))


def _finite(values: Array) -> Array:
    if not bool(np.isfinite(values).all()):
        raise CannotCompare("an input is no finite number")
    return values.astype(np.float64)
