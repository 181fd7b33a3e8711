"""Checks refuse what is malformed: after one has passed, kernels index with raw pointers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from karat24.refimpl.errors import KaratError, ModelError, UnsupportedOp, WrongShape
from karat24.refimpl.graph import DTYPES, LayerView, Quantization, Tensor
from karat24.refimpl.ops import OPS
from karat24.refimpl.profiles import profile_named
from tests.cases import activations, convolution, elementwise, quantization
from tests.cases.case import Case

CASES: Sequence[Case] = [
    case for module in (activations, convolution, elementwise, quantization) for case in module.cases()
]
OPS_HERE = sorted({case.graph.view(0).op for case in CASES})

Mutation = Callable[[LayerView], LayerView]


def _view(name: str) -> LayerView:
    (found,) = [case.graph.view(0) for case in CASES if case.name == name]
    return found


CONV = "conv_2d_int8_per_channel_3x3_same"
GROUPED = "conv_2d_int8_per_channel_groups2"
CONV_U8 = "conv_2d_uint8_per_tensor_3x3_same"
DEPTHWISE = "depthwise_conv_2d_int8_per_channel_3_times_2"
TRANSPOSED = "transpose_conv_int8_per_channel_4x4_same_stride2"
FULLY = "fully_connected_int8_per_channel_to_9"
KEPT = "fully_connected_int8_per_tensor_kept"


def _tensor(side: str, position: int, **changes: Any) -> Mutation:
    """Replaces fields of one tensor; constants get a new buffer to match."""

    def mutate(view: LayerView) -> LayerView:
        tensors = list(getattr(view, side))
        old = tensors[position]
        given = dict(changes)
        if old.data is not None and "data" not in given and ("shape" in given or "dtype" in given):
            dtype = DTYPES[given.get("dtype", old.dtype)]
            given["data"] = np.resize(old.data, given.get("shape", old.shape)).astype(dtype)
        if "dtype" in given and old.quantization is not None:
            given.setdefault("quantization", _quantized(old.quantization.scale[0], 5))
        tensors[position] = replace(old, **given)
        return replace(view, **{side: tuple(tensors)})

    return mutate


def _attributes(**changes: Any) -> Mutation:
    def mutate(view: LayerView) -> LayerView:
        kept = {k: v for k, v in {**view.layer.attributes, **changes}.items() if v is not None}
        return replace(view, layer=replace(view.layer, attributes=kept))

    return mutate


def _inputs(*order: int | None) -> Mutation:
    return lambda view: replace(view, inputs=tuple(None if i is None else view.inputs[i] for i in order))


def _quantized(scale: float, zero_point: int = 0) -> Quantization:
    return Quantization.per_tensor(scale, zero_point)


MALFORMED: list[tuple[str, Mutation, type[KaratError], str]] = [
    (CONV, _inputs(0), ModelError, "inputs"),
    (CONV, _inputs(0, 1, 2, 2), ModelError, "inputs"),
    (CONV, _inputs(0, None, 2), ModelError, "left out"),
    (CONV, lambda view: replace(view, outputs=()), ModelError, "outputs"),
    (CONV, _tensor("inputs", 0, shape=(2, 8, 35)), ModelError, "dimensions"),
    (CONV, _tensor("inputs", 0, shape=(2, 8, 7, 6)), ModelError, "a multiple"),
    (CONV, _tensor("inputs", 0, shape=(3, 8, 7, 5)), ModelError, "computes"),
    (CONV, _tensor("inputs", 0, shape=(0, 8, 7, 5)), ModelError, "empty"),
    (CONV, _tensor("inputs", 0, dtype="int16"), UnsupportedOp, "int16"),
    (CONV, _tensor("inputs", 0, dtype="float32", quantization=None), UnsupportedOp, "float32"),
    (CONV, _tensor("inputs", 0, quantization=None), ModelError, "no quantization"),
    (
        CONV,
        _tensor("inputs", 0, quantization=Quantization((0.5,) * 8, (0,) * 8, 1)),
        ModelError,
        "per channel",
    ),
    (CONV, _tensor("inputs", 1, shape=(9, 3, 3, 0)), ModelError, "empty"),
    (CONV, _tensor("inputs", 1, dtype="uint8"), UnsupportedOp, "uint8"),
    (CONV, _tensor("inputs", 1, data=None), UnsupportedOp, "computed"),
    (CONV, _tensor("inputs", 1, quantization=None), ModelError, "no quantization"),
    (CONV, _tensor("inputs", 1, quantization=_quantized(0.1, 3)), ModelError, "not 0"),
    (CONV, _tensor("inputs", 1, quantization=Quantization((0.5,) * 3, (0,) * 3, 1)), ModelError, "axis"),
    (CONV, _tensor("inputs", 1, quantization=Quantization((0.5,) * 5, (0,) * 5, 3)), ModelError, "axis"),
    (CONV, _tensor("inputs", 1, quantization=_quantized(1e30)), UnsupportedOp, "multiplier"),
    (
        CONV_U8,
        _tensor("inputs", 1, quantization=Quantization((0.5,) * 9, (0,) * 9, 0)),
        UnsupportedOp,
        "int8",
    ),
    (CONV, _tensor("inputs", 2, shape=(8,), quantization=None), ModelError, "bias"),
    (CONV, _tensor("inputs", 2, shape=(1, 9), quantization=None), ModelError, "bias"),
    (CONV, _tensor("inputs", 2, dtype="int64", quantization=None), UnsupportedOp, "int64"),
    (CONV, _tensor("inputs", 2, dtype="float32", quantization=None), UnsupportedOp, "float32"),
    (CONV, _tensor("inputs", 2, data=None), UnsupportedOp, "computed"),
    (CONV, _tensor("inputs", 2, quantization=_quantized(0.1, 1)), ModelError, "zero point"),
    (CONV, _tensor("outputs", 0, shape=(2, 8, 7, 8)), ModelError, "computes"),
    (CONV, _tensor("outputs", 0, shape=(2, 7, 8, 9)), ModelError, "computes"),
    (CONV, _tensor("outputs", 0, dtype="uint8"), UnsupportedOp, "uint8"),
    (CONV, _tensor("outputs", 0, quantization=_quantized(1e-30)), UnsupportedOp, "multiplier"),
    (CONV, _attributes(stride_h=0), ModelError, "stride"),
    (CONV, _attributes(stride_w=-1), ModelError, "stride"),
    (CONV, _attributes(stride_w=2**40), ModelError, "stride"),
    (CONV, _attributes(stride_w=None), ModelError, "stride_w"),
    (CONV, _attributes(stride_w=True), ModelError, "stride_w"),
    (CONV, _attributes(dilation_h_factor=0), ModelError, "dilation"),
    (CONV, _attributes(dilation_h_factor=2**31), ModelError, "dilation"),
    (CONV, _attributes(padding="VALID"), ModelError, "computes"),
    (CONV, _attributes(padding="VALID", dilation_w_factor=4), ModelError, "does not fit"),
    (CONV, _attributes(padding="EXPLICIT"), UnsupportedOp, "EXPLICIT"),
    (CONV, _attributes(fused_activation_function="TANH"), UnsupportedOp, "TANH"),
    (GROUPED, _tensor("inputs", 1, shape=(18, 3, 3, 5)), ModelError, "a multiple"),
    (GROUPED, _tensor("inputs", 1, shape=(18, 3, 3, 1)), ModelError, "groups"),
    (DEPTHWISE, _attributes(depth_multiplier=1), ModelError, "depth_multiplier"),
    (DEPTHWISE, _attributes(depth_multiplier=0), ModelError, "depth_multiplier"),
    (DEPTHWISE, _tensor("inputs", 1, shape=(2, 3, 3, 6)), ModelError, "first size"),
    (DEPTHWISE, _tensor("inputs", 1, shape=(1, 3, 3, 7), quantization=_quantized(0.1)), ModelError, "bias"),
    (TRANSPOSED, _tensor("inputs", 0, data=None), UnsupportedOp, "computed"),
    (TRANSPOSED, _tensor("inputs", 0, dtype="int64"), ModelError, "int32"),
    (TRANSPOSED, _tensor("inputs", 0, data=np.array([2, 6, 9, 9], np.int32)), ModelError, "computes"),
    (TRANSPOSED, _tensor("inputs", 0, shape=(3,)), ModelError, "shape"),
    (TRANSPOSED, _tensor("inputs", 2, shape=(2, 4, 4, 5)), ModelError, "computes"),
    (TRANSPOSED, _tensor("inputs", 2, shape=(2, 3, 4, 4)), ModelError, "filter takes"),
    (TRANSPOSED, _attributes(stride_h=3), ModelError, "computes"),
    (FULLY, _attributes(weights_format="SHUFFLED4x16INT8"), UnsupportedOp, "weights_format"),
    (FULLY, _tensor("inputs", 0, shape=(3, 20)), ModelError, "whole rows"),
    (FULLY, _tensor("inputs", 0, shape=(42,)), ModelError, "computes"),
    (FULLY, _tensor("outputs", 0, shape=(1, 3, 9)), ModelError, "computes"),
    (KEPT, _tensor("inputs", 0, shape=(2, 2, 9)), ModelError, "last size"),
    ("add_int8_pairs_usual", _tensor("inputs", 1, shape=(256, 255)), ModelError, "broadcast"),
    ("add_int8_pairs_usual", _tensor("inputs", 1, dtype="uint8"), ModelError, "agree"),
    ("add_int8_pairs_usual", _tensor("inputs", 1, quantization=None), ModelError, "no quantization"),
    ("add_int8_pairs_usual", _tensor("outputs", 0, shape=(1, 256, 256)), ModelError, "computes"),
    ("add_int8_pairs_usual", _tensor("outputs", 0, quantization=_quantized(1e-8)), UnsupportedOp, "too fine"),
    ("add_int8_rank5", _tensor("inputs", 1, shape=(5,)), UnsupportedOp, "broadcast"),
    ("add_int32_same_none", _tensor("inputs", 0, dtype="int64"), UnsupportedOp, "int64"),
    (
        "mul_int8_pairs_usual",
        _tensor("outputs", 0, quantization=_quantized(1e-35)),
        UnsupportedOp,
        "multiplier",
    ),
    ("quantize_int8_size8", _tensor("inputs", 0, dtype="int32"), UnsupportedOp, "int32"),
    ("quantize_int8_size8", _tensor("outputs", 0, dtype="int32"), UnsupportedOp, "int32"),
    ("quantize_int8_size8", _tensor("outputs", 0, shape=(2, 4)), ModelError, "computes"),
    (
        "quantize_int8_to_int8_size8",
        _tensor("inputs", 0, quantization=_quantized(1e20)),
        UnsupportedOp,
        "multipl",
    ),
    ("dequantize_int8_size8", _tensor("inputs", 0, quantization=None), ModelError, "no quantization"),
    ("dequantize_int8_size8", _tensor("outputs", 0, dtype="float16"), UnsupportedOp, "float16"),
    ("concatenation_int8_axis3_of_2", _attributes(axis=4), ModelError, "axis"),
    ("concatenation_int8_axis3_of_2", _attributes(axis=-5), ModelError, "axis"),
    ("concatenation_int8_axis3_of_2", _attributes(axis=0), ModelError, "computes"),
    ("concatenation_int8_axis3_of_2", _inputs(), ModelError, "inputs"),
    ("concatenation_int8_axis3_of_2", _inputs(0, None), ModelError, "left out"),
    (
        "concatenation_int8_axis3_of_2",
        _tensor("inputs", 1, quantization=_quantized(0.3)),
        ModelError,
        "share",
    ),
    ("concatenation_int8_axis3_of_2", _tensor("inputs", 1, shape=(2, 3, 3, 3)), ModelError, "computes"),
    ("concatenation_int8_axis3_of_2", _attributes(fused_activation_function="RELU"), UnsupportedOp, "RELU"),
    ("relu_int8_usual_0", _tensor("outputs", 0, dtype="uint8"), ModelError, "agree"),
    ("relu_int8_usual_0", _tensor("inputs", 0, dtype="int32"), UnsupportedOp, "int32"),
    ("relu6_uint8_far_apart_0", _tensor("outputs", 0, quantization=_quantized(1e-9)), UnsupportedOp, "steps"),
    ("leaky_relu_int8_usual_tenth", _attributes(alpha=None), ModelError, "alpha"),
    ("leaky_relu_int8_usual_tenth", _attributes(alpha=float("nan")), UnsupportedOp, "multiplier"),
    ("leaky_relu_int8_usual_tenth", _attributes(alpha=1e30), UnsupportedOp, "multiplier"),
    ("prelu_int8_channel_usual_constant", _tensor("inputs", 1, shape=(1, 1, 16)), ModelError, "broadcast"),
    (
        "prelu_int8_channel_usual_constant",
        _tensor("inputs", 1, shape=(7, 2, 3, 4, 17)),
        ModelError,
        "computes",
    ),
    ("hard_swish_int8_usual_0", _tensor("outputs", 0, quantization=_quantized(1e-4)), UnsupportedOp, "shift"),
    ("hard_swish_int8_usual_0", _tensor("inputs", 0, quantization=_quantized(1e4)), UnsupportedOp, "shift"),
    (
        "l2_normalization_int8_8_0",
        _tensor("outputs", 0, quantization=_quantized(1 / 64)),
        ModelError,
        "1/128",
    ),
    (
        "l2_normalization_int8_8_0",
        _tensor("outputs", 0, quantization=_quantized(1 / 128, 1)),
        ModelError,
        "1/128",
    ),
]


@pytest.mark.parametrize(
    ("name", "mutate", "error", "words"),
    MALFORMED,
    ids=[f"{name}: {words}" for name, _, _, words in MALFORMED],
)
def test_malformed_layers_are_refused(
    name: str, mutate: Mutation, error: type[KaratError], words: str
) -> None:
    view = _view(name)
    OPS[view.op].check(view)
    broken = mutate(view)
    with pytest.raises(error, match=words) as caught:
        OPS[view.op].check(broken)
    assert type(caught.value) in (error, WrongShape)
    assert str(view.layer.index) in str(caught.value), "the message names the layer"


@pytest.mark.parametrize("op", OPS_HERE)
def test_what_passes_a_check_computes_what_it_declares(op: str) -> None:
    """Random damage to sizes, types, parameters and attributes is refused, or computed as declared."""
    rng = np.random.default_rng(len(op) + ord(op[0]))
    small = [case for case in CASES if case.graph.view(0).op == op and _elements(case) < 5000]
    rule_of = profile_named("litert-2.3-builtin").rule
    passed = refused = 0
    for _ in range(300):
        view = small[rng.integers(len(small))].graph.view(0)
        for _ in range(rng.integers(1, 3)):
            view = _damage(view, rng)
        try:
            OPS[op].check(view)
        except ModelError:
            refused += 1
            continue
        passed += 1
        values = [None if t is None else _some(t, rng) for t in view.inputs]
        try:
            result = OPS[op].spec(view, values, rule_of(view))
        except UnsupportedOp:
            continue  # the profile has no such layer
        for tensor, output in zip(view.outputs, result.outputs, strict=True):
            assert (output.shape, output.dtype) == (tensor.shape, DTYPES[tensor.dtype])
        if result.accumulator is not None:
            assert (result.accumulator.shape, result.accumulator.dtype) == (result.outputs[0].shape, np.int32)
    assert passed >= 10
    assert refused >= 50


def _elements(case: Case) -> int:
    view = case.graph.view(0)
    return sum(int(np.prod(t.shape)) for t in (*view.inputs, *view.outputs) if t is not None)


def _some(tensor: Tensor, rng: np.random.Generator) -> Any:
    if tensor.data is not None:
        return tensor.data
    return rng.integers(-128, 256, tensor.shape).astype(DTYPES[tensor.dtype])


def _damage(view: LayerView, rng: np.random.Generator) -> LayerView:
    """One random change; of a kind that a broken file can hold and a :class:`Tensor` accepts."""
    side = "inputs" if rng.random() < 0.6 else "outputs"
    tensors = getattr(view, side)
    position = int(rng.integers(len(tensors))) if tensors else 0
    kind = rng.choice(["size", "rank", "dtype", "parameters", "attribute", "order"])
    try:
        if kind == "attribute" and view.layer.attributes:
            return _damage_attribute(view, rng)
        if kind == "order":
            order = [None if rng.random() < 0.1 else int(rng.integers(len(view.inputs))) for _ in view.inputs]
            return _inputs(*order[: int(rng.integers(1, len(order) + 1))])(view)
        tensor = tensors[position]
        shape = list(tensor.shape)
        if kind == "size" and shape:
            shape[rng.integers(len(shape))] = int(rng.choice([0, 1, 2, 3, 5, 16]))
            return _tensor(side, position, shape=tuple(shape))(view)
        if kind == "rank":
            shape = [1, *shape] if rng.random() < 0.5 else shape[1:]
            return _tensor(side, position, shape=tuple(shape))(view)
        if kind == "dtype":
            dtype = str(rng.choice(["int8", "uint8", "int16", "int32", "float32", "bool"]))
            return _tensor(side, position, dtype=dtype)(view)
        scale = float(
            np.float32(10.0 ** rng.uniform(-20, 20) if rng.random() < 0.3 else rng.uniform(0.01, 1))
        )
        low = 0 if tensor.dtype == "uint8" else -128
        parameters = None if rng.random() < 0.2 else _quantized(scale, low + int(rng.integers(256)))
        return _tensor(side, position, quantization=parameters)(view)
    except (ModelError, AttributeError):
        return view  # the tensor itself refused, or there was none


def _damage_attribute(view: LayerView, rng: np.random.Generator) -> LayerView:
    name = str(rng.choice(list(view.layer.attributes)))
    value = view.layer.attributes[name]
    others: list[Any] = [None, 0, -1, 1, 2, 3, 2**31, "SAME", "VALID", "RELU", "TANH", True, 0.5, (1, 2)]
    alike = [other for other in others if type(other) is type(value)] or others
    choice = alike if rng.random() < 0.8 else others
    return _attributes(**{name: choice[rng.integers(len(choice))]})(view)
