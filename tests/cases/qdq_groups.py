"""Single ops between DequantizeLinear and QuantizeLinear, and what ONNX Runtime's optimizer tells apart.

Each function adds a group to a sketch whose input ``x`` is [1, 3, 6, 6], and gives the graph's outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import helper

from tests.support.onnx_sketches import Sketch


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def reshape_before_matmul(s: Sketch) -> list[str]:
    """Quantization spreads forward over the Reshape, so that the MatMul can run on integers."""
    r = s.node("Reshape", s.pair("x"), s.constant(i64(1, -1, 4)))
    return [s.pair(s.node("MatMul", r, s.filter(4, 6)), 0.3)]


def reshape_after_conv(s: Sketch) -> list[str]:
    """... and backward, so that the Conv can."""
    r = s.node("Reshape", s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3)), s.constant(i64(1, -1)))
    return [s.pair(r, 0.3)]


def pool_at_the_end(s: Sketch) -> list[str]:
    return [s.node("MaxPool", s.pair("x"), kernel_shape=[2, 2])]


def clipped_conv(s: Sketch, scale: float) -> list[str]:
    c = s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3))
    return [s.pair(s.node("Clip", c, s.constant(np.float32(0)), s.constant(np.float32(6))), scale, 0)]


def rectified_conv(s: Sketch, zero_point: int) -> list[str]:
    c = s.node("Relu", s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3)))
    return [s.pair(c, 6 / 255, zero_point)]


def float_bias(s: Sketch) -> list[str]:
    return [s.pair(s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3), s.weight(4)), 6 / 255)]


def float_filter(s: Sketch, bias: bool) -> list[str]:
    """A filter in float becomes int8, whose parameters the optimizer chooses."""
    filter_ = s.weight(4, 3, 3, 3)
    return [s.pair(s.node("Conv", s.pair("x"), filter_, *([s.weight(4)] if bias else [])), 6 / 255)]


def float_filter_transposed(s: Sketch, bias: bool) -> list[str]:
    """... and stays in a float op where there is no integer one."""
    filter_, more = s.weight(3, 4, 4, 4), [s.weight(4)] if bias else []
    y = s.node("ConvTranspose", s.pair("x"), filter_, *more, strides=[2, 2])
    return [s.pair(s.node("Relu", y), 6 / 255, 0)]


def float_filter_product(s: Sketch) -> list[str]:
    x = s.node("Reshape", s.pair("x"), s.constant(i64(-1, 6)))
    return [s.pair(s.node("Gemm", x, s.weight(5, 6), s.weight(5), transB=1), 0.1)]


def float_filter_of_an_output(s: Sketch) -> list[str]:
    """Nothing is quantized where the result stays float."""
    return [s.node("ConvTranspose", s.pair("x"), s.weight(3, 4, 3, 3))]


def scale_in_a_list(s: Sketch, filter_scale: float | list[float]) -> list[str]:
    """One scale counts as one for all, in a list of one number too."""
    scale, zero_point = s.constant(np.array([0.05], np.float32)), s.constant(np.array([3], np.uint8))
    x = s.node("DequantizeLinear", s.node("QuantizeLinear", "x", scale, zero_point), scale, zero_point)
    values = s.constant(s.random.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8))
    filter_ = s.node("DequantizeLinear", values, s.constant(np.array(filter_scale, np.float32)))
    return [s.pair(s.node("Conv", x, filter_, s.weight(4)), 6 / 255)]


def product(s: Sketch, op: str) -> list[str]:
    """No QuantizeLinear behind it: integers in, float out."""
    x = s.node("Reshape", s.pair("x"), s.constant(i64(-1, 6)))
    return [s.node(op, x, s.filter(6, 5))]


def same_twice(s: Sketch) -> list[str]:
    x = s.pair("x")
    return [s.pair(s.node("Add", x, x), 1 / 256, 0)]


def behind_identity(s: Sketch) -> list[str]:
    return [s.pair(s.node("Sigmoid", s.node("Identity", s.pair("x"))), 1 / 256, 0)]


def two_readers(s: Sketch) -> list[str]:
    """What quantization spreads to has one reader on integers and one in float."""
    x = s.node("Slice", s.pair("x"), s.constant(i64(1)), s.constant(i64(3)), s.constant(i64(2)))
    r = s.node("Transpose", x, perm=[0, 2, 1, 3])
    return [s.pair(s.node("Sigmoid", r), 0.1), s.node("Tanh", r)]


def spread_beside_a_group(s: Sketch) -> list[str]:
    """Quantization spreads over the Reshape though a Sigmoid reads the same DequantizeLinear."""
    x = s.pair("x")
    m = s.node("MatMul", s.node("Reshape", x, s.constant(i64(1, -1, 4))), s.filter(4, 6))
    return [s.pair(m, 0.3), s.pair(s.node("Sigmoid", x), 1 / 256, 0)]


def spread_beside_float(s: Sketch) -> list[str]:
    """... and though a Tanh does, which stays in float: each has a DequantizeLinear of its own."""
    x = s.pair("x")
    return [s.node("Reshape", x, s.constant(i64(1, -1, 4))), s.node("Tanh", x)]


def mixed_types(s: Sketch) -> list[str]:
    """int8 in, uint8 out: stays float."""
    return [s.pair(s.node("Sigmoid", s.pair("x", dtype=np.int8)), 1 / 256, 0)]


def other_parameters(s: Sketch) -> list[str]:
    """A MaxPool whose output has parameters of its own stays float."""
    return [s.pair(s.node("MaxPool", s.pair("x"), kernel_shape=[2, 2]), 0.07)]


def quantized_output(s: Sketch) -> list[str]:
    """A Conv whose float result is an output as well stays float."""
    c = s.node("Conv", s.pair("x"), s.filter(4, 3, 3, 3))
    return [c, s.pair(c, 0.3)]


def requantized_at_the_end(s: Sketch) -> list[str]:
    """Two QuantizeLinear in a row, the last one an output: both stay."""
    s.weights.append(helper.make_tensor("s", 1, [], [0.1]))
    s.weights.append(helper.make_tensor("z", 3, [], [5]))
    y = s.node("QuantizeLinear", s.pair("x"), "s", "z")
    return [s.node("Cast", y, to=1)]


def pair_twice(s: Sketch) -> list[str]:
    """Two equal pairs in a row are one."""
    return [s.node("Tanh", s.pair(s.pair("x")))]


def pair_twice_in_other_types(s: Sketch) -> list[str]:
    return [s.node("Tanh", s.pair(s.pair("x"), 0.1, 5, np.int8))]


def pair_twice_with_a_reader_between(s: Sketch) -> list[str]:
    x = s.pair("x")
    return [s.node("Tanh", s.pair(x, 0.1)), s.node("Tanh", x)]


def quantized_twice(s: Sketch) -> list[str]:
    """Two readers with a QuantizeLinear each, and a zero point each: both stay, and the Conv in float."""
    c = s.node("Conv", s.pair("x"), s.filter(3, 3, 1, 1))
    return [s.pair(s.node("Sub", s.pair(c, 0.3), s.pair(c, 0.3)), 0.6)]


def two_readers_of_int8(s: Sketch) -> list[str]:
    """An int8 edge that two layers read stays int8, and a product of it in float, in a default session."""
    x = s.pair("x", dtype=np.int8)
    c = s.pair(s.node("Conv", x, s.filter(4, 3, 3, 3)), 0.3, 4, np.int8)
    return [s.node("Tanh", c), s.pair(s.node("Sigmoid", x), 1 / 256, -128, np.int8), s.node("Tanh", x)]


def product_of_shared_int8(s: Sketch, op: str) -> list[str]:
    """int8 on both sides, each read twice: of these a default session runs only Gemm on integers."""
    x = s.pair("x", dtype=np.int8)
    if op == "Conv":
        y = s.node("Conv", x, s.filter(4, 3, 3, 3))
    elif op == "MatMul":
        y = s.node("MatMul", x, s.filter(6, 5))
    else:
        rows = s.pair(s.node("Reshape", x, s.constant(i64(-1, 6))), dtype=np.int8)
        y = s.node("Gemm", rows, s.filter(6, 5))
        x = rows
    y = s.pair(y, 0.3, 4, np.int8)
    return [s.node("Tanh", x), s.node("Tanh", y), s.node("Abs", y)]


def int8_with_another_zero_point(s: Sketch) -> list[str]:
    """Written with one zero point and read with another: stays int8."""
    return [s.node("Tanh", s.dequantize(s.quantize("x", 0.05, 3, np.int8), 0.05, 5, np.int8))]


def int8_read_without_zero_point(s: Sketch) -> list[str]:
    return [
        s.node(
            "Tanh",
            s.node("DequantizeLinear", s.quantize("x", 0.05, 0, np.int8), s.constant(np.float32(0.05))),
        )
    ]


def int8_to_the_output(s: Sketch) -> list[str]:
    """What nothing dequantizes stays int8."""
    return [s.node("Cast", s.quantize("x", 0.05, 3, np.int8), to=1)]


def with_bias(s: Sketch, factor: float, zero_point: int = 0, per_channel: bool = False) -> list[str]:
    """An int32 bias in steps of ``factor`` times the product of the other scales."""
    count = 4 if per_channel else ()
    filter_scale = np.full(count, 0.01, np.float32)
    along = {"axis": 0} if per_channel else {}
    w = s.node("DequantizeLinear", s.constant(s.random.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)),
               s.constant(filter_scale), s.constant(np.zeros(count, np.int8)), **along)  # fmt: skip
    scale = np.float32(0.05) * filter_scale
    if per_channel:
        scale[2] *= np.float32(factor)
    else:
        scale = np.float32(scale * np.float32(factor))
    b = s.node("DequantizeLinear", s.constant(s.random.integers(-3000, 3000, 4).astype(np.int32)),
               s.constant(scale), s.constant(np.full(count, zero_point, np.int32)), **along)  # fmt: skip
    return [s.pair(s.node("Conv", s.pair("x"), w, b), 6 / 255)]


def shared_bias(s: Sketch) -> list[str]:
    """A bias in the steps of one of its two layers: the other one stays in float."""
    x, w = s.pair("x"), s.filter(4, 3, 1, 1)
    turned = s.node(
        "DequantizeLinear", s.constant(np.ones((4, 3, 1, 1), np.int8)), s.constant(np.float32(0.02))
    )
    b = s.node("DequantizeLinear", s.constant(np.arange(4, dtype=np.int32)), s.constant(np.float32(0.0005)))
    pairs = [s.pair(s.node("Conv", x, filter_, b), 0.1) for filter_ in (w, turned)]
    return [s.pair(s.node("Add", *pairs), 0.2)]


def stored_in_float(s: Sketch, *shape: int, axis: int | None = None, zero_point: bool = True) -> str:
    """Weights a training tool leaves in float between QuantizeLinear and DequantizeLinear."""
    count = () if axis is None else shape[axis]
    scales = s.constant(np.asarray(0.01 * s.random.uniform(0.5, 2, count), np.float32))
    more = [s.constant(np.zeros(count, np.int8))] if zero_point else []
    along = {} if axis is None else {"axis": axis}
    stored = s.node("QuantizeLinear", s.weight(*shape), scales, s.constant(np.zeros(count, np.int8)), **along)
    return s.node("DequantizeLinear", stored, scales, *more, **along)


def trained_filter(s: Sketch, axis: int | None, bias: bool = False) -> list[str]:
    filter_ = stored_in_float(s, 4, 3, 3, 3, axis=axis)
    return [s.pair(s.node("Conv", s.pair("x"), filter_, *([s.weight(4)] if bias else [])), 6 / 255)]


def trained_and_scaled_filter(s: Sketch) -> list[str]:
    """Arithmetic on constants before the pair."""
    clipped = s.node("Clip", s.node("Mul", s.weight(4, 3, 3, 3), s.constant(np.float32(2))),
                     s.constant(np.float32(-0.5)), s.constant(np.float32(0.5)))  # fmt: skip
    return [s.pair(s.node("Conv", s.pair("x"), s.pair(clipped, 0.01, 0, np.int8)), 6 / 255)]


def linear(s: Sketch, bias: tuple[int, ...] | None, flat: bool = True, left: bool = False) -> list[str]:
    """MatMul and Add, over rows of six or images of such rows."""
    x = s.pair("x")
    if flat:
        x = s.node("Reshape", x, s.constant(i64(-1, 6)))
    y = s.node("MatMul", x, s.filter(6, 5))
    if bias is not None:
        b = s.weight(*bias)
        y = s.node("Add", b, y) if left else s.node("Add", y, b)
    return [s.pair(y, 0.1)]


def linear_of_float_result(s: Sketch) -> list[str]:
    x = s.node("Reshape", s.pair("x"), s.constant(i64(-1, 6)))
    return [s.node("Add", s.node("MatMul", x, s.filter(6, 5)), s.weight(5))]


def linear_read_twice(s: Sketch) -> list[str]:
    """A product somebody else reads too stays by itself."""
    m = s.node("MatMul", s.node("Reshape", s.pair("x"), s.constant(i64(-1, 6))), s.filter(6, 5))
    return [s.pair(s.node("Add", m, s.weight(5)), 0.1), s.node("Tanh", m)]


def gemm(s: Sketch, zero_point: bool = True, **attributes: float) -> list[str]:
    """Its filter needs a zero point; a bias of any scale will do, factors other than one will not."""
    x = s.node("Reshape", s.pair("x"), s.constant(i64(-1, 6)))
    parameters = [s.constant(np.float32(0.01)), *([s.constant(np.int8(0))] if zero_point else [])]
    w = s.node(
        "DequantizeLinear", s.constant(s.random.integers(-127, 128, (6, 5)).astype(np.int8)), *parameters
    )
    b = s.node("DequantizeLinear", s.constant(np.arange(5, dtype=np.int32)), s.constant(np.float32(0.003)))
    return [s.pair(s.node("Gemm", x, w, b, **attributes), 0.1)]


def without_zero_points(s: Sketch) -> list[str]:
    """What moves values keeps to float where zero points are left out."""
    scale = s.constant(np.float32(0.05))
    x = s.node("DequantizeLinear", s.node("QuantizeLinear", "x", scale), scale)
    y = s.node("MaxPool", x, kernel_shape=[2, 2])
    return [s.node("Tanh", s.node("DequantizeLinear", s.node("QuantizeLinear", y, scale), scale))]


def three_pairs(s: Sketch) -> list[str]:
    """The third is merged after the bias was quantized, whose scale no longer fits: stays in float."""
    x = s.pair(s.pair(s.pair("x", 0.05, 3), 0.08, 120), 0.11, 77)
    return [s.pair(s.node("Conv", x, s.filter(4, 3, 1, 1), s.weight(4)), 0.1)]


def pair_twice_with_two_readers(s: Sketch) -> list[str]:
    x = s.pair(s.pair("x", 0.05, 3), 0.03, 20)
    return [s.node("Tanh", x), s.node("Sin", x)]


GROUPS: Mapping[str, Callable[[Sketch], list[str]]] = {
    "two readers of int8": two_readers_of_int8,
    **{
        f"{op} of shared int8": lambda s, op=op: product_of_shared_int8(s, op)  # type: ignore[misc]
        for op in ("Conv", "MatMul", "Gemm")
    },
    "int8, another zero point": int8_with_another_zero_point,
    "int8, read without zero point": int8_read_without_zero_point,
    "int8 to the output": int8_to_the_output,
    "bias that fits": lambda s: with_bias(s, 1),
    "bias that nearly fits": lambda s: with_bias(s, 1.0115),
    "bias that does not fit": lambda s: with_bias(s, 1.0125),
    "bias, one channel off": lambda s: with_bias(s, 2, per_channel=True),
    "bias per channel": lambda s: with_bias(s, 1, per_channel=True),
    "bias with a zero point": lambda s: with_bias(s, 1, 5),
    "shared bias": shared_bias,
    "trained filter": lambda s: trained_filter(s, None),
    "trained filter per channel": lambda s: trained_filter(s, 0),
    "trained filter, float bias": lambda s: trained_filter(s, 0, bias=True),
    "trained and scaled filter": trained_and_scaled_filter,
    "linear": lambda s: linear(s, (5,)),
    "linear, bias first": lambda s: linear(s, (5,), left=True),
    "linear, bias of two axes": lambda s: linear(s, (1, 5)),
    "linear, bias of one value": lambda s: linear(s, (1,)),
    "linear, a bias per row": lambda s: linear(s, (18, 1)),
    "linear, a bias per value": lambda s: linear(s, (18, 5)),
    "linear of images": lambda s: linear(s, (5,), flat=False),
    "linear of images, bias of two axes": lambda s: linear(s, (1, 5), flat=False),
    "linear of images, no bias": lambda s: linear(s, None, flat=False),
    "linear, float result": linear_of_float_result,
    "linear, read twice": linear_read_twice,
    "Gemm": gemm,
    "Gemm, no zero point": lambda s: gemm(s, zero_point=False),
    "Gemm, alpha": lambda s: gemm(s, alpha=2.0),
    "Gemm, beta": lambda s: gemm(s, beta=2.0),
    "without zero points": without_zero_points,
    "three pairs": three_pairs,
    "pair twice, other parameters, two readers": pair_twice_with_two_readers,
    "quantized twice": quantized_twice,
    "requantized at the end": requantized_at_the_end,
    "pair twice": pair_twice,
    "pair twice, other types": pair_twice_in_other_types,
    "pair twice, a reader between": pair_twice_with_a_reader_between,
    "reshape before MatMul": reshape_before_matmul,
    "reshape after Conv": reshape_after_conv,
    "pool at the end": pool_at_the_end,
    "redundant Clip": lambda s: clipped_conv(s, 6 / 255),
    "real Clip": lambda s: clipped_conv(s, 8 / 255),
    "redundant Relu": lambda s: rectified_conv(s, 0),
    "real Relu": lambda s: rectified_conv(s, 3),
    "float bias": float_bias,
    "float filter": lambda s: float_filter(s, False),
    "float filter and bias": lambda s: float_filter(s, True),
    "float filter of ConvTranspose": lambda s: float_filter_transposed(s, False),
    "float filter and bias of ConvTranspose": lambda s: float_filter_transposed(s, True),
    "float filter of Gemm": float_filter_product,
    "float filter of an output": float_filter_of_an_output,
    "scale in a list": lambda s: scale_in_a_list(s, [0.01]),
    "Gemm, float result": lambda s: product(s, "Gemm"),
    "MatMul, float result": lambda s: product(s, "MatMul"),
    "same tensor twice": same_twice,
    "behind Identity": behind_identity,
    "two readers": two_readers,
    "spread beside a group": spread_beside_a_group,
    "spread beside float": spread_beside_float,
    "mixed types": mixed_types,
    "other parameters": other_parameters,
    "float output too": quantized_output,
}
