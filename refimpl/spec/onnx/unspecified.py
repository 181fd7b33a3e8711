"""float32 ops whose last bits no runtime documents: the sums of Conv, Gemm, MatMul, pools.

They are computed in float64 and rounded once, the best that can be said without knowing the order of
a runtime's sum, so that what follows them has values to work on. Their own outputs are never compared.
"""

from __future__ import annotations

import itertools

import numpy as np

from karat24.refimpl.contract import SpecResult, Values
from karat24.refimpl.errors import UnsupportedOp
from karat24.refimpl.graph import Array, LayerView
from karat24.refimpl.profiles.rules import Rule
from karat24.refimpl.spec.onnx.one_axis import as_image
from karat24.refimpl.spec.onnx.pools import count_taps, each_tap, windows_of
from karat24.refimpl.spec.onnx.sums import check_convolution
from karat24.refimpl.spec.shared.geometry import Index, taken_by
from karat24.refimpl.spec.shared.requirements import (
    broadcast,
    operand,
    require,
    require_arity,
    require_dtype,
    require_elements,
    require_rank,
    require_shape,
    require_taps,
)


def require_float(view: LayerView) -> None:
    """Every input and output is float32 and holds values."""
    for tensor in (*view.inputs, *view.outputs):
        if tensor is not None:
            require_dtype(view, tensor, ("float32",))
            require_elements(view, tensor)


def rounded(result: Array) -> SpecResult:
    """The float64 values as float32."""
    return SpecResult((result.astype(np.float32),))


def check_conv(view: LayerView) -> None:
    """Inputs: image NCHW, filter OIHW, or both over one or three spatial axes; optional bias ``[O]``."""
    require_arity(view, 2, optional=1)
    require_float(view)
    check_convolution(as_image(view, 1), 0, 1)
    bias = view.optional_input(2)
    if bias is not None:
        require_shape(view, bias, view.input(1).shape[:1])


def conv(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """Conv."""
    given, view = view, as_image(view, 1)
    over = check_convolution(view, 0, 1)
    image, weights = (operand(values, i).astype(np.float64).reshape(view.input(i).shape) for i in (0, 1))
    groups = view.integer("group", 1)
    channels, outputs = weights.shape[1], weights.shape[0] // groups
    result = np.zeros(view.output().shape)
    for taps in itertools.product(*(range(axis.taps) for axis in over)):
        out, taken = taken_by(over, taps)
        seen = image[(slice(None), slice(None), *taken)]
        for group in range(groups):
            part = seen[:, group * channels : (group + 1) * channels]
            own = slice(group * outputs, (group + 1) * outputs)
            tap: Index = (own, slice(None), *taps)
            result[(slice(None), own, *out)] += np.einsum("nc...,oc->no...", part, weights[tap])
    if len(values) > 2 and values[2] is not None:
        result += values[2].reshape(-1, *[1] * len(over))
    return rounded(result.reshape(given.output().shape))


def check_gemm(view: LayerView) -> None:
    """Inputs: a, b, optional c that broadcasts."""
    require_arity(view, 2, optional=1)
    require_float(view)
    a, b = view.input(0), view.input(1)
    require_rank(view, a, 2)
    require_rank(view, b, 2)
    rows, depth = a.shape[::-1] if view.integer("transA", 0) else a.shape
    other, columns = b.shape[::-1] if view.integer("transB", 0) else b.shape
    require(view, depth == other, f"{a.shape} times {b.shape}")
    require_shape(view, view.output(), (rows, columns))
    c = view.optional_input(2)
    if c is not None:
        padded = (1,) * (2 - len(c.shape)) + c.shape
        fits = len(padded) == 2 and padded[0] in (1, rows) and padded[1] in (1, columns)
        require(view, fits, f"c of shape {c.shape}")


def gemm(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """``alpha * a @ b + beta * c``."""
    a, b = operand(values, 0).astype(np.float64), operand(values, 1).astype(np.float64)
    a, b = a.T if view.integer("transA", 0) else a, b.T if view.integer("transB", 0) else b
    result = view.real("alpha", 1.0) * (a @ b)
    if len(values) > 2 and values[2] is not None:
        result = result + view.real("beta", 1.0) * values[2]
    return rounded(result)


def check_matmul(view: LayerView) -> None:
    """Two matrices, or stacks of them that broadcast."""
    require_arity(view, 2)
    require_float(view)
    a, b = view.input(0).shape, view.input(1).shape
    require(view, len(a) >= 2 and len(b) >= 2 and a[-1] == b[-2], f"{a} times {b}")
    require_shape(view, view.output(), (*broadcast(view, a[:-2], b[:-2]), a[-2], b[-1]))


def matmul(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """MatMul."""
    return rounded(operand(values, 0).astype(np.float64) @ operand(values, 1).astype(np.float64))


def check_fused_matmul(view: LayerView) -> None:
    """ONNX Runtime's MatMul of matrices that may be transposed, times ``alpha``."""
    require_arity(view, 2)
    require_float(view)
    if view.integer("transBatchA", 0) or view.integer("transBatchB", 0):
        raise UnsupportedOp(f"{view} exchanges the batch with an axis")
    view.real("alpha", 1.0)
    shapes = [view.input(i).shape for i in (0, 1)]
    require(view, min(map(len, shapes)) >= 2, f"{shapes[0]} times {shapes[1]}")
    a, b = (
        (*shape[:-2], shape[-1], shape[-2]) if view.integer(name, 0) else shape
        for shape, name in zip(shapes, ("transA", "transB"), strict=True)
    )
    require(view, a[-1] == b[-2], f"{a} times {b}")
    require_shape(view, view.output(), (*broadcast(view, a[:-2], b[:-2]), a[-2], b[-1]))


def factors(view: LayerView, values: Values) -> tuple[Array, Array]:
    """Both matrices of a FusedMatMul, as they are multiplied."""
    left, right = (
        operand(values, i).swapaxes(-1, -2) if view.integer(name, 0) else operand(values, i)
        for i, name in enumerate(("transA", "transB"))
    )
    return left, right


def fused_matmul(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """``alpha * a @ b``."""
    left, right = (factor.astype(np.float64) for factor in factors(view, values))
    return rounded(view.real("alpha", 1.0) * (left @ right))


def check_global_average_pool(view: LayerView) -> None:
    """``[batch, channel, ...]`` to ``[batch, channel, 1, ...]``."""
    require_arity(view, 1)
    require_float(view)
    require_rank(view, view.input(0), 3, 8)
    batch, channels, *spatial = view.input(0).shape
    require_shape(view, view.output(), (batch, channels, *[1] * len(spatial)))


def global_average_pool(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """GlobalAveragePool."""
    data = operand(values, 0).astype(np.float64)
    return rounded(data.mean(axis=tuple(range(2, data.ndim)), keepdims=True))


def check_average_pool(view: LayerView) -> None:
    """A pool over one to three spatial axes of ``[batch, channel, ...]``."""
    require_arity(view, 1)
    require_float(view)
    require_taps(view, *view.integers("kernel_shape"))
    over = windows_of(view)
    sizes = tuple(axis.output_size for axis in over)
    require_shape(view, view.output(), (*view.input(0).shape[:2], *sizes))


def average_pool(view: LayerView, values: Values, rule: Rule) -> SpecResult:  # noqa: ARG001 - see above
    """AveragePool."""
    data = operand(values, 0).astype(np.float64)
    over = windows_of(view)
    total = np.zeros(view.output().shape)
    for out, taken in each_tap(over):
        total[out] += data[taken]
    return rounded(total / count_taps(view, over))
