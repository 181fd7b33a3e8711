"""Shapes and element types of a node's outputs, computed from its inputs and attributes.

The onnx package can infer shapes, too, but not for ONNX Runtime's own ops, and in native code that trusts its
input, while model files come from untrusted sources. A rule gets the node as a view whose inputs are resolved
(``data`` is set on edges whose values follow from constants) and whose outputs only have names. The file must
declare the outputs of an op without a line in ``RULES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from karat24.export.onnx.reading import shapes_moving as moving
from karat24.export.onnx.reading import shapes_windows as windows
from karat24.export.onnx.reading.shapes_types import Rule, Type, axis_in, broadcast, has_input
from karat24.export.onnx.schema import MICROSOFT, TYPE_NAMES
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import DTYPES, Array, LayerView
from karat24.refimpl.spec.onnx.versions import why_unknown

FOLDED_ELEMENTS = 64
"""The most values that are computed while reading: such edges hold sizes, axes and the like."""


def infer(view: LayerView) -> list[Type] | None:
    """The types of the node's outputs; None for an op, or a version of an op, without a rule.

    Raises ModelError when inputs and attributes do not fit each other, UnsupportedOp when a shape
    depends on values that are only known when the model runs.
    """
    rule = RULES.get(view.op)
    if rule is None or why_unknown(view):
        return None
    types = rule(view)
    if len(types) < len(view.outputs):
        raise UnsupportedOp(f"{view} has {len(view.outputs)} outputs; {len(types)} are supported")
    return types[: len(view.outputs)]


def fold(view: LayerView) -> Array | None:
    """The values of the first output where all inputs are few integers of known values; None otherwise.

    Exporters compute sizes with small chains of nodes; their values decide shapes.
    """
    if view.op == "Shape":
        return np.array(moving.sliced_shape(view), np.int64)
    rule = FOLDS.get(view.op)
    if rule is None or len(view.outputs) != 1:
        return None
    values = []
    for tensor in view.inputs:
        if tensor is not None:
            if tensor.data is None or tensor.data.size > FOLDED_ELEMENTS or tensor.dtype not in FOLDED_TYPES:
                return None
            values.append(tensor.data)
    return rule(view, values)


FOLDED_TYPES = frozenset({"int32", "int64"})


def _same(position: int = 0) -> Rule:
    return lambda view: [Type(view.input(position).shape, view.input(position).dtype)]


def _elementwise(*positions: int, dtype: str | None = None, least: int = 2) -> Rule:
    def rule(view: LayerView) -> list[Type]:
        tensors = [view.input(i) for i in positions or range(len(view.inputs))]
        if len(tensors) < least:
            raise ModelError(f"{view} has {len(tensors)} inputs, not {least}")
        return [Type(broadcast(view, *(t.shape for t in tensors)), dtype or tensors[-1].dtype)]

    return rule


def _type_of(position: int) -> Callable[[LayerView], str]:
    return lambda view: view.input(position).dtype


def _int32(view: LayerView) -> str:
    del view
    return "int32"


def _quantize(view: LayerView) -> list[Type]:
    """uint8 unless the zero point or ``output_dtype`` says otherwise."""
    dtype = view.input(2).dtype if has_input(view, 2) else _stated_type(view, "uint8")
    if view.input(1).dtype not in ("float32", "float16", "int32"):
        raise ModelError(f"{view}: a scale of {view.input(1).dtype}")
    if view.input(0).dtype not in ("float32", "float16", "int32"):
        raise ModelError(f"{view} quantizes {view.input(0).dtype} values")
    return [Type(view.input(0).shape, dtype)]


def _dequantize(view: LayerView) -> list[Type]:
    """Values of the scale's type unless ``output_dtype`` says otherwise."""
    if has_input(view, 2) and view.input(2).dtype != view.input(0).dtype:
        raise ModelError(
            f"{view}: values of {view.input(0).dtype} with a zero point of {view.input(2).dtype}"
        )
    return [Type(view.input(0).shape, _stated_type(view, view.input(1).dtype))]


def _stated_type(view: LayerView, default: str) -> str:
    code = view.integer("output_dtype", 0)
    if code and code not in TYPE_NAMES:
        raise UnsupportedOp(
            f"{view}: element type number {code} is newer than the versions of ONNX read here"
        )
    return TYPE_NAMES.get(code, default)


def _dynamic_quantize(view: LayerView) -> list[Type]:
    return [Type(view.input(0).shape, "uint8"), Type((), "float32"), Type((), "uint8")]


def _layer_normalization(view: LayerView) -> list[Type]:
    """The optional outputs, mean and inverse deviation, have size 1 along the normalized axes."""
    data = view.input(0)
    first = axis_in(view, view.integer("axis", -1), len(data.shape))
    kept = (*data.shape[:first], *(1,) * (len(data.shape) - first))
    return [Type(data.shape, data.dtype), Type(kept, "float32"), Type(kept, "float32")]


def _matmul(left: int, right: int, dtype: Callable[[LayerView], str]) -> Rule:
    def rule(view: LayerView) -> list[Type]:
        a, b = view.input(left).shape, view.input(right).shape
        if not a or not b:
            raise ModelError(f"{view} multiplies {a} by {b}")
        rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
        if a[-1] != (b[-2] if len(b) > 1 else b[0]):
            raise ModelError(f"{view} multiplies {a} by {b}")
        return [Type((*broadcast(view, a[:-2], b[:-2]), *rows, *columns), dtype(view))]

    return rule


def _gemm(left: int, right: int, dtype: Callable[[LayerView], str]) -> Rule:
    def rule(view: LayerView) -> list[Type]:
        a, b = view.input(left).shape, view.input(right).shape
        if len(a) != 2 or len(b) != 2:
            raise ModelError(f"{view} multiplies {a} by {b}")
        rows, depth = reversed(a) if view.integer("transA", 0) else a
        other, columns = reversed(b) if view.integer("transB", 0) else b
        if depth != other:
            raise ModelError(f"{view} multiplies {a} by {b}")
        return [Type((rows, columns), dtype(view))]

    return rule


def _matmul_nbits(view: LayerView) -> list[Type]:
    return [Type((*view.input(0).shape[:-1], view.integer("N")), view.input(0).dtype)]


def _attention(past: int) -> Rule:
    """Attention and QAttention: input 1 holds the weights of queries, keys and values side by side; the
    second output holds keys and values of ``past`` and present steps."""

    def types(view: LayerView) -> list[Type]:
        given, weights, heads = view.input(0), view.input(1), view.integer("num_heads", 0)
        kept = view.input(past).shape if has_input(view, past) else (2, 1, 1, 0, 1)
        if len(weights.shape) != 2 or len(kept) != 5:
            raise ModelError(f"{view}: weights of {weights.shape} and a past of {kept} have other axes")
        sizes = view.integers("qkv_hidden_sizes", (weights.shape[1] // 3,) * 3)
        if len(given.shape) != 3 or heads < 1 or len(sizes) != 3 or sizes[0] % heads:
            raise ModelError(f"{view}: {heads} heads of sizes {sizes} for data of {given.shape}")
        batch, steps, _ = given.shape
        dtype = view.input(3).dtype if view.op.endswith("QAttention") else given.dtype
        kept = (2, batch, heads, kept[3] + steps, sizes[0] // heads)
        return [Type((batch, steps, sizes[2]), dtype), Type(kept, dtype)]

    return types


def _qgemm_type(view: LayerView) -> str:
    """Quantized where an output zero point is given, float32 where it is not."""
    return view.input(8).dtype if has_input(view, 8) else "float32"


def _fold_slice(view: LayerView, values: list[Array]) -> Array | None:
    data, starts, ends = values[:3]
    if data.ndim != 1 or starts.size != 1 or any(v.size != 1 for v in values[1:]):
        return None
    step = int(values[4].item()) if len(values) > 4 else 1
    del view
    return np.ascontiguousarray(data[slice(int(starts.item()), int(ends.item()), step)]) if step else None


def _fold_gather(view: LayerView, values: list[Array]) -> Array | None:
    data, indices = values
    if data.ndim != 1 or (np.abs(indices + 0.5) > data.size).any():
        return None
    del view
    return np.asarray(data[indices])


def _fold_concat(view: LayerView, values: list[Array]) -> Array | None:
    del view
    return np.concatenate(values) if all(v.ndim == 1 for v in values) else None


def _fold_reshape(view: LayerView, values: list[Array]) -> Array | None:
    return values[0].reshape(infer_shape(view))


def infer_shape(view: LayerView) -> tuple[int, ...]:
    """The shape of the only output of an op that has a rule."""
    return RULES[view.op](view)[0].shape


def _fold_div(view: LayerView, values: list[Array]) -> Array | None:
    """Quotients rounded toward zero, as in ONNX; None where a divisor is 0 or a quotient may overflow."""
    del view
    dividend, divisor = np.broadcast_arrays(*values)
    if (divisor == 0).any() or (dividend == np.iinfo(dividend.dtype).min).any():
        return None
    signs = np.sign(dividend) * np.sign(divisor)
    return np.asarray(signs * (np.abs(dividend) // np.abs(divisor)), dividend.dtype)


def _fold_cast(view: LayerView, values: list[Array]) -> Array | None:
    dtype = moving.cast(view)[0].dtype
    return values[0].astype(DTYPES[dtype]) if dtype in FOLDED_TYPES else None


FOLDS: Mapping[str, Callable[[LayerView, list[Array]], Array | None]] = MappingProxyType(
    {
        "Cast": _fold_cast,
        "Concat": _fold_concat,
        "Gather": _fold_gather,
        "Identity": lambda view, values: values[0],  # noqa: ARG005
        "Reshape": _fold_reshape,
        "Slice": _fold_slice,
        "Squeeze": _fold_reshape,
        "Unsqueeze": _fold_reshape,
        "Add": lambda view, values: values[0] + values[1],  # noqa: ARG005
        "Div": _fold_div,
        "Sub": lambda view, values: values[0] - values[1],  # noqa: ARG005
        "Mul": lambda view, values: values[0] * values[1],  # noqa: ARG005
    }
)
"""Ops whose integer results are computed while reading, since shapes depend on them."""

_UNARY = (
    "Abs", "BatchNormalization", "Ceil", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "LRN",
    "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg", "Not", "PRelu", "RMSNormalization", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "SimplifiedLayerNormalization", "Sin", "Softmax",
    "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_BINARY = ("Add", "Div", "Mod", "Mul", "Pow", "Sub")
_VARIADIC = ("Max", "Mean", "Min", "Sum")
_COMPARISON = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")
_REDUCTION = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(_UNARY, _same()),
        **dict.fromkeys(_BINARY, _elementwise(0, 1)),
        **dict.fromkeys(_VARIADIC, _elementwise(least=1)),
        **dict.fromkeys(_COMPARISON, _elementwise(0, 1, dtype="bool")),
        **dict.fromkeys(_REDUCTION, moving.reduce),
        **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), windows.pool),
        **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), windows.global_pool),
        **dict.fromkeys(("ArgMax", "ArgMin"), moving.arg_extreme),
        "Cast": moving.cast,
        "Concat": moving.joined(1),
        "Conv": windows.convolution(0, 1, _type_of(0)),
        "ConvInteger": windows.convolution(0, 1, _int32),
        "ConvTranspose": windows.transposed_convolution,
        "DepthToSpace": moving.depth_to_space,
        "DequantizeLinear": _dequantize,
        "DynamicQuantizeLinear": _dynamic_quantize,
        "Expand": moving.expand,
        "Flatten": moving.flatten,
        "Gather": moving.gather,
        "Gemm": _gemm(0, 1, _type_of(0)),
        "LayerNormalization": _layer_normalization,
        "MatMul": _matmul(0, 1, _type_of(0)),
        "MatMulInteger": _matmul(0, 1, _int32),
        "Pad": moving.pad,
        "QLinearConv": windows.convolution(0, 3, _type_of(7)),
        "QLinearMatMul": _matmul(0, 3, _type_of(7)),
        "QuantizeLinear": _quantize,
        "Reshape": moving.reshape,
        "Resize": moving.resize,
        "Shape": moving.shape,
        "Slice": moving.slice_,
        "SpaceToDepth": moving.space_to_depth,
        "Split": moving.split,
        "Squeeze": moving.squeeze,
        "Tile": moving.tile,
        "Transpose": moving.transpose,
        "Unsqueeze": moving.unsqueeze,
        "Where": _elementwise(0, 1, 2),
        f"{MICROSOFT}:Attention": _attention(4),
        f"{MICROSOFT}:DequantizeLinear": _dequantize,
        f"{MICROSOFT}:DynamicQuantizeMatMul": _matmul(0, 1, _type_of(0)),
        f"{MICROSOFT}:MatMulIntegerToFloat": _matmul(0, 1, _type_of(2)),
        f"{MICROSOFT}:MatMulNBits": _matmul_nbits,
        f"{MICROSOFT}:QAttention": _attention(8),
        f"{MICROSOFT}:QGemm": _gemm(0, 3, _qgemm_type),
        f"{MICROSOFT}:QLinearAdd": _elementwise(0, 3),
        f"{MICROSOFT}:QLinearAveragePool": windows.pool,
        f"{MICROSOFT}:QLinearConcat": moving.joined(3, first=2),
        f"{MICROSOFT}:QLinearGlobalAveragePool": windows.global_pool,
        f"{MICROSOFT}:QLinearLeakyRelu": _same(),
        f"{MICROSOFT}:QLinearMul": _elementwise(0, 3),
        f"{MICROSOFT}:QLinearSigmoid": _same(),
        f"{MICROSOFT}:QLinearSoftmax": _same(),
        f"{MICROSOFT}:QuantizeLinear": _quantize,
    }
)
"""Op to the rule that gives the types of its outputs."""
