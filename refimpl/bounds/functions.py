"""Intervals of float32 functions whose library is not known: a bound of the error of every form in use.

*Exponential.* glibc documents at most 1 ULP for ``expf`` (manual, "Known Maximum Errors in Math
Functions"). The vectorized forms (MLAS, Eigen, XNNPACK) take ``m = round(x / ln 2)`` and ``r = x - m ln
2``, then a polynomial of degree 5 or 6 on |r| <= 0.35 by Horner's rule: its last step rounds a value of at
least 0.7, the ones before are damped by |r|, and the polynomial is closer than ``u / 2``: together less
than ``4 u``. Where ``r`` is taken in two steps (Cody and Waite) it is exact but for ``u``; where the
argument is multiplied with ``log2 e`` in one step (XNNPACK's EXP) both the factor and the product are
rounded, and the exponential changes by ``2 |x| u``. EXPONENTIAL = ``8 u`` plus ``2 |x| u`` is
allowed.

*Logistic and tanh.* glibc documents 2 ULP for ``tanhf``. MLAS and Eigen divide two polynomials by Horner's
rule, argument clamped to ±18 and ±9, where the functions are closer than ``u`` to their limits; XNNPACK and
the reference kernels of TFLite take an exponential, a sum and a quotient, the latter beyond -9 the
exponential alone, which is ``exp(-18) < u / 2`` away. The results are at most 1, so the absolute
errors are less than ``8 u``; SATURATING = ``16 u`` is allowed.

*The error function* is an odd polynomial near 0 and ``1 - exp(-p(x))`` beyond, the exponential at most 0.2
there, so that its error is small against ``u``: again less than ``8 u``, and SATURATING allowed.

*GELU* ``= x / 2 (1 + f(a))``, f the error function or tanh: the roundings of ``a`` (one, or six with the
cube) change f by at most ``6 u |a| f'(a) < 3 u``; sum and products round three times. ``x / 2 (16 + 3 + 3)
u`` together; allowed is ``|x| SATURATING``. *ELU* is ``alpha (exp(x) - 1)`` below 0, and *Softplus* a
logarithm of ``1 + exp(-|x|)``, at most 0.7, and a sum.
"""

from __future__ import annotations

import math

import numpy as np

from karat24.refimpl.bounds.interval import TINY, UNIT, Interval, gamma
from karat24.refimpl.bounds.tflite import require_float
from karat24.refimpl.contract import Values
from karat24.refimpl.errors import CannotCompare
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.spec.onnx.float_functions import biased
from karat24.refimpl.spec.shared.requirements import operand, require_arity, require_shape, resolve_axis

EXPONENTIAL = 8 * UNIT
SATURATING = 16 * UNIT

FARTHEST = 128.0
"""Beyond this argument a float32 exponential is 0 or too large."""

SLACK = 2.0**-44
"""The error of the float64 functions used here, relative; they are documented to about 2^-52."""


def check_unary(view: LayerView) -> None:
    """One float32 input, an output of its shape."""
    require_arity(view, 1)
    require_float(view)
    require_shape(view, view.output(), view.input(0).shape)


def logistic(view: LayerView, values: Values) -> Interval:  # noqa: ARG001 - every bound takes a view
    """``1 / (1 + exp(-x))``."""
    x = _finite(operand(values, 0))
    with np.errstate(over="ignore"):
        return _around(1 / (1 + np.exp(-x)), SATURATING)


def tanh(view: LayerView, values: Values) -> Interval:  # noqa: ARG001 - every bound takes a view
    """``tanh(x)``; near 0 the forms are exact to a few units of x."""
    x = _finite(operand(values, 0))
    return _around(np.tanh(x), np.minimum(SATURATING, 2 * SATURATING * np.abs(x) + TINY))


def exp(view: LayerView, values: Values) -> Interval:  # noqa: ARG001 - every bound takes a view
    """``exp(x)``; below TINY it may be flushed to 0."""
    x = _finite(operand(values, 0))
    with np.errstate(over="ignore"):
        result = np.exp(x)
    return _around(result, result * _exponential(x) + TINY)


def _exponential(x: Array) -> Array:
    """The relative error of ``exp(x)``."""
    return EXPONENTIAL + 2 * np.minimum(np.abs(x), FARTHEST) * UNIT


def erf(view: LayerView, values: Values) -> Interval:  # noqa: ARG001 - every bound takes a view
    """``erf(x)``."""
    return _around(_erf(_finite(operand(values, 0))), SATURATING)


def gelu(view: LayerView, values: Values) -> Interval:
    """``x / 2 (1 + erf(x / sqrt 2))``, or with tanh where ``approximate`` says so."""
    approximate = view.layer.attributes.get("approximate", False)
    return _gelu(operand(values, 0), approximate in (True, "tanh"))


def biased_gelu(view: LayerView, values: Values) -> Interval:
    """ONNX Runtime's BiasGelu and FastGelu: of a float32 sum, which is one rounding."""
    return _gelu(biased(values), view.op.endswith("FastGelu"))


def quick_gelu(view: LayerView, values: Values) -> Interval:
    """``x / (1 + exp(-alpha x))``: the argument and the product round, besides the logistic function.

    The argument's rounding changes the function by at most ``u |a| f'(a) < u / 2``.
    """
    x = _finite(operand(values, 0))
    with np.errstate(over="ignore"):
        result = x / (1 + np.exp(-float(np.float32(view.real("alpha", 1.702))) * x))
    return _around(result, np.abs(x) * (SATURATING + 4 * UNIT) + 4 * TINY)


def _gelu(data: Array, by_tanh: bool) -> Interval:
    x = _finite(data)
    scaled = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    inner = np.tanh(scaled) if by_tanh else _erf(x / math.sqrt(2))
    return _around(0.5 * x * (1 + inner), np.abs(x) * (SATURATING + 4 * SLACK) + 4 * TINY)


def elu(view: LayerView, values: Values) -> Interval:
    """``x``, below 0 ``alpha (exp(x) - 1)``."""
    x = _finite(operand(values, 0))
    alpha = float(np.float32(view.real("alpha", 1.0)))
    below = x < 0
    result = np.where(below, alpha * np.expm1(np.minimum(x, 0)), x)
    return _around(result, np.where(below, abs(alpha) * SATURATING + 2 * TINY, TINY))


def softplus(view: LayerView, values: Values) -> Interval:  # noqa: ARG001 - every bound takes a view
    """``log(1 + exp(x))``."""
    x = _finite(operand(values, 0))
    return _around(np.logaddexp(x, 0.0), SATURATING + 2 * UNIT * np.abs(x))


_erf = np.vectorize(math.erf, otypes=[np.float64])


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
    """The argument ``t`` is rounded once or, with ``beta``, three times, which changes its exponential by
    ``|t|`` as much; then the exponential, a sum of n, and a quotient, or a product with a reciprocal.

    A term that is flushed to 0, or held at the smallest value its form gives, loses ``2 TINY``.
    """
    arguments = beta * (data - data.max(axis=axis, keepdims=True))
    exponentials = np.exp(arguments)
    count = data.shape[axis]
    shifted = np.expm1(np.minimum(np.abs(arguments), FARTHEST) * gamma(1 if beta == 1 else 3))
    each = (1 + shifted) * (1 + _exponential(arguments)) - 1
    total = exponentials.sum(axis=axis, keepdims=True)
    error = (exponentials * each).sum(axis=axis, keepdims=True) + count * 2 * TINY
    error = (error + gamma(count) * (total + error)) / total
    relative = (1 + each) * (1 + gamma(2)) / (1 - error) - 1
    result = exponentials / total
    return _around(result, result * (relative + SLACK * count) + 8 * TINY)


def _around(centre: Array, radius: Array | float) -> Interval:
    return Interval.around(centre, radius + SLACK * np.abs(centre))


def _finite(values: Array) -> Array:
    if not bool(np.isfinite(values).all()):
        raise CannotCompare("an input is not a finite number")
    return values.astype(np.float64)
