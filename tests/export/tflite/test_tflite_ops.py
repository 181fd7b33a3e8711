"""Every line of the op table: its options are where LiteRT's schema has them, LiteRT loads the layer."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from karat24.export.tflite import lowest_version, read_tflite, with_lowest_versions, write_tflite
from karat24.export.tflite.ops import BUILTINS, Option
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import ModelError, UnsupportedOp
from karat24.refimpl.graph import AttributeValue, Graph, Quantization
from tests.support.litert import run_reference
from tests.support.tflite_op_cases import LAYERS, graph_of

NOT_LISTED = {"FullyConnectedOptions": {"quantSpec"}}
"""Fields of the schema that the table leaves out: only what nothing here produces."""

NOT_IN_REFERENCE = {"CEIL", "ELU", "ROUND"}
"""Ops LiteRT 2.3 has no reference kernels for: loaded with the optimised ones."""


def other_than_default(option: Option) -> AttributeValue:
    match option.kind:
        case "bool":
            return not option.default
        case "float":
            return 0.375
        case "ints":
            return (3, -1, 70000)
        case "enum":
            return next(word for word in option.names.values() if word != option.default)
    return -70001


def unchecked_layer(op: str, **attributes: AttributeValue) -> Graph:
    """A layer nobody could run, for its options' sake."""
    builder = GraphBuilder()
    x, y = builder.input("x", (1,), "float32"), builder.tensor("y", (1,), "float32")
    builder.layer(op, [x], [y], **attributes)
    return builder.build([y])


def stored_options(content: bytes) -> dict[str, Any]:
    """Options as LiteRT's own generated code reads them."""
    options = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0].operators[0].builtinOptions
    return {} if options is None else vars(options)


def camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda match: match.group(1).upper(), name)


def stored(option: Option, value: AttributeValue) -> Any:
    if option.kind == "enum":
        return next(code for code, word in option.names.items() if word == value)
    return value


@pytest.mark.parametrize("op", BUILTINS)
def test_table_equals_the_schema(op: str) -> None:
    """Names, positions and defaults: LiteRT's generated code reads back what was written, field by field."""
    line = BUILTINS[op]
    options = [option for option in line.fields if option is not None]
    if line.options:
        defaults = vars(getattr(schema, f"{line.options}T")())
        names = {camel(option.name) for option in options}
        assert names == set(defaults) - NOT_LISTED.get(line.options, set())
        for option in options:
            expected = None if option.kind == "ints" else stored(option, option.default)
            assert defaults[camel(option.name)] == expected
    for option in options:
        value = other_than_default(option)
        content = write_tflite(unchecked_layer(op, **{option.name: value}))
        for name, found in stored_options(content).items():
            if name == camel(option.name):
                assert np.array_equal(found, stored(option, value))
            else:
                assert np.array_equal(found, defaults[name])
        assert read_tflite(content).layers[0].attributes[option.name] == value


def test_every_line_has_a_layer_below() -> None:
    assert set(LAYERS) == set(BUILTINS)


@pytest.mark.parametrize("op", LAYERS)
def test_litert_loads_the_layer(op: str) -> None:
    """LiteRT finds the op at the version written and accepts its options and tensors."""
    graph = graph_of(op)
    content = write_tflite(graph)
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        if op in NOT_IN_REFERENCE
        else OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    shapes = [tuple(detail["shape"]) for detail in interpreter.get_output_details()]
    if op != "WHERE":  # the number of rows depends on the values
        assert shapes == [graph.tensors[i].shape for i in graph.outputs]
    again = read_tflite(content)
    assert write_tflite(again) == content
    assert read_tflite(write_tflite(again)) == again


def quantized(op: str, *dtypes: str, rank: int = 4, bias: bool = True, **attributes: AttributeValue) -> int:
    """The lowest version of a layer whose inputs and output have these types and equal shapes."""
    builder = GraphBuilder()
    quantization = Quantization.per_tensor(0.5)
    shape = (1, 2, 2, 2, 2, 2)[-rank:]
    tensors = [
        builder.input(f"x{n}", shape, dtype, None if dtype == "float32" else quantization)
        for n, dtype in enumerate(dtypes)
    ]
    output = builder.tensor("y", shape, dtypes[-1], None if dtypes[-1] == "float32" else quantization)
    builder.layer(op, tensors, [output], **attributes)
    return lowest_version(builder.build([output]).view(0))


@pytest.mark.parametrize(
    ("expected", "op", "dtypes", "attributes"),
    [
        (1, "CONV_2D", ("uint8", "uint8", "int32", "uint8"), {}),
        (1, "CONV_2D", ("float32",) * 3, {"dilation_w_factor": 2}),
        (3, "CONV_2D", ("int8", "int8", "int32", "int8"), {}),
        (2, "CONV_2D", ("float32", "int8", "float32"), {}),
        (4, "CONV_2D", ("int16", "int8", "int16"), {}),
        (8, "CONV_2D", ("int16", "int8", "int16"), {"quantized_bias_type": "int32"}),
        (1, "DEPTHWISE_CONV_2D", ("uint8", "uint8"), {}),
        (2, "DEPTHWISE_CONV_2D", ("uint8", "uint8"), {"dilation_h_factor": 2}),
        (3, "DEPTHWISE_CONV_2D", ("int8", "int8"), {"dilation_h_factor": 2}),
        (1, "FULLY_CONNECTED", ("uint8", "uint8", "int32"), {}),
        (2, "FULLY_CONNECTED", ("uint8", "uint8", "int32"), {"weights_format": "SHUFFLED4x16INT8"}),
        (4, "FULLY_CONNECTED", ("int8", "int8", "int32"), {}),
        (5, "FULLY_CONNECTED", ("int8", "int8", "int32"), {"keep_num_dims": True}),
        (6, "FULLY_CONNECTED", ("int8", "int8"), {}),
        (7, "FULLY_CONNECTED", ("int16", "int16", "int32"), {}),
        (1, "TRANSPOSE_CONV", ("int32", "uint8", "uint8"), {}),
        (2, "TRANSPOSE_CONV", ("int32", "int8", "int8"), {}),
        (3, "TRANSPOSE_CONV", ("int32", "float32", "float32", "float32"), {}),
        (4, "TRANSPOSE_CONV", ("int32", "int8", "int8", "int32"), {"fused_activation_function": "RELU"}),
        (1, "RESIZE_BILINEAR", ("uint8", "int32"), {"align_corners": True}),
        (2, "RESIZE_BILINEAR", ("int8", "int32"), {"align_corners": True}),
        (3, "RESIZE_BILINEAR", ("uint8", "int32"), {"half_pixel_centers": True}),
        (1, "RESIZE_NEAREST_NEIGHBOR", ("uint8", "int32"), {}),
        (2, "RESIZE_NEAREST_NEIGHBOR", ("int8", "int32"), {}),
        (3, "RESIZE_NEAREST_NEIGHBOR", ("int8", "int32"), {"align_corners": True}),
        (1, "CONCATENATION", ("uint8", "uint8"), {}),
        (2, "CONCATENATION", ("int8", "int8"), {}),
        (2, "MAX_POOL_2D", ("int8",), {}),
        (1, "MAX_POOL_2D", ("uint8",), {}),
        (2, "ADD", ("int8", "int8"), {}),
        (2, "MUL", ("int8", "int8"), {}),
        (2, "RELU", ("uint8",), {}),
        (1, "RELU6", ("uint8",), {}),
        (1, "QUANTIZE", ("uint8", "int8"), {}),
        (2, "DEQUANTIZE", ("int8",), {}),
        (1, "DEPTH_TO_SPACE", ("int8",), {}),
        (2, "SPACE_TO_DEPTH", ("int8",), {}),
        (2, "SPLIT", ("int32", "int8"), {}),
        (5, "GATHER", ("int8", "int32"), {"batch_dims": 1}),
        (6, "STRIDED_SLICE", ("int8",), {"ellipsis_mask": 1}),
        (2, "STRIDED_SLICE", ("int8",), {"shrink_axis_mask": 1}),
        (2, "UNPACK", ("uint8",), {}),
        (3, "CAST", ("int8",), {}),
    ],
)
def test_lowest_versions(expected: int, op: str, dtypes: tuple[str, ...], attributes: dict) -> None:
    """Each case sits on one side of a condition of TensorFlow's op_version.cc (DEPTH_TO_SPACE aside)."""
    assert quantized(op, *dtypes, **attributes) == expected


def test_groups_and_rank_raise_the_version() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 2, 2, 4), "float32")
    w = builder.constant("w", np.ones((4, 1, 1, 2), np.float32))
    y = builder.tensor("y", (1, 2, 2, 4), "float32")
    builder.layer("CONV_2D", [x, w], [y])
    graph = with_lowest_versions(builder.build([y]))
    assert graph.layers[0].version == 6
    assert quantized("PAD", "int8", "int32", rank=5) == 4
    assert quantized("TRANSPOSE", "int8", "int32", rank=6) == 6


def test_lowest_versions_leave_custom_layers_alone() -> None:
    builder = GraphBuilder()
    x, y = builder.input("x", (1,), "float32"), builder.tensor("y", (1,), "float32")
    builder.layer("CUSTOM:Odd", [x], [y], version=7)
    graph = builder.build([y])
    assert with_lowest_versions(graph) == graph


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"axes": 1}, "no field 'axes'"),
        ({"axis": "1"}, "not an integer"),
        ({"axis": 2**31}, "is not an int32"),
        ({"fused_activation_function": "GELU"}, "RELU_N1_TO_1"),
    ],
)
def test_wrong_attributes_are_refused(attributes: dict, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        write_tflite(unchecked_layer("CONCATENATION", **attributes))


def test_unknown_ops_are_not_written() -> None:
    with pytest.raises(UnsupportedOp, match=r"NO_SUCH_OP.*does not know the op's options"):
        write_tflite(unchecked_layer("NO_SUCH_OP"))


@pytest.mark.parametrize("op", ["DEPTH_TO_SPACE", "SPACE_TO_DEPTH"])
def test_reference_kernels_know_the_version_of_int8_layers(op: str) -> None:
    """LiteRT's two resolvers register different versions of these."""
    inner, outer = (1, 2, 2, 4), (1, 4, 4, 1)
    shapes = (inner, outer) if op == "DEPTH_TO_SPACE" else (outer, inner)
    builder = GraphBuilder()
    x = builder.input("x", shapes[0], "int8", Quantization.per_tensor(0.5))
    y = builder.tensor("y", shapes[1], "int8", Quantization.per_tensor(0.5))
    builder.layer(op, [x], [y], block_size=2)
    values = np.arange(16, dtype=np.int8).reshape(shapes[0])
    (found,) = run_reference(write_tflite(with_lowest_versions(builder.build([y]))), values)
    assert found.ravel().tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
