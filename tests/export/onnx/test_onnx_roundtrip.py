"""Reading ONNX keeps what the file says; writing it again gives the same graph and the same values."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from karat24.export import read_model
from karat24.export.onnx import lower_qdq, read_onnx, write_onnx
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import ModelError, UnsupportedOp, UsageError
from karat24.refimpl.graph import DTYPES, Array, Graph, Quantization
from tests.support.onnx_sketches import (
    MODELS,
    WAYS,
    Sketch,
    feed_of,
    moving,
    quantized,
    quantized_model,
    residual,
)


def run(model: bytes, feeds: dict[str, Array]) -> list[Array]:
    """Outputs of ONNX Runtime with every optimization off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.mark.parametrize("way", [*WAYS])
@pytest.mark.parametrize("name", [*MODELS])
def test_quantized_models_survive(name: str, way: str) -> None:
    """Read → write → read is equal, equal graphs give equal bytes, ONNX Runtime gives equal outputs, and
    the shapes computed are those onnx infers wherever it infers any."""
    content = quantized(name, way)
    graph = read_onnx(content)
    again = write_onnx(graph)
    assert read_onnx(again) == graph
    assert write_onnx(read_onnx(again)) == again
    feeds = feed_of(MODELS[name](), 9)
    for found, expected in zip(run(again, feeds), run(content, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)
    tensors = {tensor.name: tensor for tensor in graph.tensors}
    model = onnx.load_model_from_string(content)
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    assert inferred.graph.value_info
    for value in inferred.graph.value_info:
        if value.type.tensor_type.HasField("shape"):
            sizes = tuple(
                size.dim_value or found
                for size, found in zip(
                    value.type.tensor_type.shape.dim, tensors[value.name].shape, strict=True
                )
            )
            assert (tensors[value.name].shape, value.name) == (sizes, value.name)


@pytest.mark.parametrize("opset", range(13, 24))
def test_every_operator_set(opset: int) -> None:
    """The version is on every layer; Split, ReduceMean, Pad and Resize differ between them."""
    model = moving(opset)
    content = quantized_model(model, **WAYS["qdq-s8s8"])
    graph = read_onnx(content)
    assert {layer.version for layer in graph.layers if ":" not in layer.op} == {opset}
    again = write_onnx(graph)
    assert read_onnx(again) == graph
    feeds = feed_of(model)
    np.testing.assert_array_equal(run(again, feeds)[0], run(content, feeds)[0])


def test_layers_tensors_and_attributes_are_the_files() -> None:
    content = quantized("residual", "qop-s8s8-channel")
    graph, model = read_onnx(content), onnx.load_model_from_string(content)
    nodes = model.graph.node
    assert graph.format == "onnx"
    assert [layer.op for layer in graph.layers] == [
        f"{node.domain}:{node.op_type}" if node.domain == "com.microsoft" else node.op_type for node in nodes
    ]
    for view, node in zip(graph.views(), nodes, strict=True):
        assert [tensor.name for tensor in view.outputs] == list(node.output)
        assert ["" if tensor is None else tensor.name for tensor in view.inputs] == list(node.input)
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            expected = tuple(value) if isinstance(value, list) else value
            assert view.layer.attributes[attribute.name] == expected
        assert len(view.layer.attributes) == len(node.attribute)
    constants = {tensor.name: tensor.data for tensor in graph.tensors if tensor.is_constant}
    assert [*constants] == [proto.name for proto in model.graph.initializer]
    for proto in model.graph.initializer:
        np.testing.assert_array_equal(constants[proto.name], numpy_helper.to_array(proto))


def test_parameters_reach_the_tensors() -> None:
    """Outputs of QuantizeLinear and QLinear ops, filters (per channel, by output channel), and on
    through a MaxPool; the constants stay."""
    for way in ("qop-s8s8-channel", "qdq-s8s8-channel"):
        graph = read_onnx(quantized("residual", way))
        quantized_tensors = [
            t for t in graph.tensors if t.dtype in ("int8", "uint8") and t.shape not in ((), (1,))
        ]
        named = {t.name: t for t in graph.tensors}
        filters = [t for t in quantized_tensors if t.is_constant and len(t.shape) > 1]
        assert len(filters) == 5
        for filter_ in filters:
            assert filter_.quantization is not None
            assert filter_.quantization.per_channel
            assert filter_.quantization.axis == 0
            scale = named[filter_.name.replace("_quantized", "_scale")]
            assert filter_.quantization.scale == tuple(scale.data.tolist())
        for tensor in quantized_tensors:
            if not tensor.is_constant:
                assert tensor.quantization is not None
    pooled = next(
        view for view in read_onnx(quantized("residual", "qop-u8s8")).views() if view.op == "MaxPool"
    )
    assert pooled.output().quantization == pooled.input(0).quantization is not None


def test_an_unknown_batch_is_read_as_one() -> None:
    graph = read_onnx(residual(batch="N").SerializeToString())
    image = graph.tensors[graph.inputs[0]]
    assert (image.shape, image.shape_signature) == ((1, 3, 16, 24), (-1, 3, 16, 24))
    assert graph.tensors[graph.outputs[0]].shape == (1, 10)
    assert read_onnx(write_onnx(graph)) == graph
    declared = onnx.load_model_from_string(write_onnx(graph)).graph.input[0].type.tensor_type.shape.dim
    assert declared[0].dim_param == "batch"
    model = residual()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(UnsupportedOp, match="'x': only the batch may be of unknown size"):
        read_onnx(model.SerializeToString())


def identity(constants: list[onnx.TensorProto], *nodes: onnx.NodeProto, opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes or [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("name", [*DTYPES])
def test_every_element_type_in_both_ways_of_storing(name: str, raw: bool) -> None:
    values = np.array([[0, 1, 1]]).astype(name) if name == "bool" else np.array([[0, 1, 100]]).astype(name)
    if np.issubdtype(values.dtype, np.signedinteger) or np.issubdtype(values.dtype, np.floating):
        values = -values
    proto = numpy_helper.from_array(values, "c")
    if not raw:
        flat = values.reshape(-1)
        proto = helper.make_tensor("c", proto.data_type, values.shape, flat.tolist())
        assert not proto.raw_data
    (constant,) = (t for t in read_onnx(identity([proto]).SerializeToString()).tensors if t.is_constant)
    assert constant.dtype == name
    np.testing.assert_array_equal(constant.data, values)


def test_constant_nodes_become_constants() -> None:
    node = helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0])
    add = helper.make_node("Add", ["x", "c"], ["y"])
    graph = read_onnx(identity([], node, add).SerializeToString())
    assert [layer.op for layer in graph.layers] == ["Add"]
    np.testing.assert_array_equal(graph.tensors[1].data, np.array([1, 2, 3], np.float32))
    assert read_onnx(write_onnx(graph)) == graph


def test_shapes_computed_by_the_model_itself() -> None:
    """PyTorch's way to flatten: Shape → Gather → Unsqueeze → Concat → Reshape."""
    s = Sketch()
    batch = s.node("Gather", s.node("Shape", "x"), s.constant(np.array(0, np.int64)), axis=0)
    sizes = s.node("Concat", s.node("Unsqueeze", batch, s.constant(np.array([0], np.int64))),
                   s.constant(np.array([-1], np.int64)), axis=0)  # fmt: skip
    graph = read_onnx(s.model([2, 3, 4, 5], s.node("Reshape", "x", sizes)).SerializeToString())
    assert graph.tensors[graph.outputs[0]].shape == (2, 60)
    assert [layer.op for layer in graph.layers] == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape"]


def test_ops_without_a_rule_take_the_files_word() -> None:
    node = helper.make_node("Trilu", ["x"], ["y"])
    model = identity([], node)
    with pytest.raises(UnsupportedOp, match="no shape rule for Trilu"):
        read_onnx(model.SerializeToString())
    model = onnx.shape_inference.infer_shapes(model)
    assert read_onnx(model.SerializeToString()).tensors[1].shape == (2, 3)


def external(tmp_path: Path, location: str, **entries: str) -> Path:
    proto = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        proto.external_data.add(key=key, value=value)
    path = tmp_path / "model" / "m.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(identity([proto], helper.make_node("Add", ["x", "c"], ["y"])).SerializeToString())
    return path


def test_values_in_a_file_beside_the_model(tmp_path: Path) -> None:
    path = external(tmp_path, "weights.bin", offset="4", length="12")
    path.with_name("weights.bin").write_bytes(np.arange(5, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(read_model(path).tensors[1].data, np.array([1, 2, 3], np.float32))
    with pytest.raises(ModelError, match="give the model as a path"):
        read_onnx(path.read_bytes())


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "link.bin", "", ".", "gone.bin", "a\0b"]
)
def test_values_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    path = external(tmp_path, location)
    path.with_name("link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="is not a file inside the folder"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"offset": "12"}, "bytes 12 to 24"),
        ({"offset": "-4"}, "bytes -4 to 8"),
        ({"length": "8"}, "has 8 bytes"),
        ({"offset": "four"}, "are not numbers"),
    ],
)
def test_external_values_that_do_not_fit(tmp_path: Path, entries: dict[str, str], said: str) -> None:
    path = external(tmp_path, "weights.bin", **entries)
    path.with_name("weights.bin").write_bytes(bytes(16))
    with pytest.raises(ModelError, match=said):
        read_onnx(path)


def refused(change, error: type[ModelError], said: str) -> None:
    model = identity([])
    change(model)
    with pytest.raises(error, match=said):
        read_onnx(model.SerializeToString())


def test_what_a_graph_cannot_hold_is_refused_by_name() -> None:
    body = helper.make_graph([], "b", [], [])
    refused(lambda m: m.graph.node[0].attribute.append(helper.make_attribute("then_branch", body)),
            UnsupportedOp, r"node 0 \(Identity, 'y'\) holds a graph")  # fmt: skip
    refused(lambda m: m.graph.sparse_initializer.add(), UnsupportedOp, "1 sparse constants")
    refused(lambda m: m.functions.add(name="f"), UnsupportedOp, "1 functions of its own")
    for version in (8, 29):
        refused(lambda m, v=version: setattr(m.opset_import[0], "version", v),
                UnsupportedOp, f"operator set {version}")  # fmt: skip
    refused(lambda m: setattr(m, "ir_version", 99), UnsupportedOp, "format version 99")
    refused(lambda m: setattr(m.graph.node[0], "domain", "my.ops"), ModelError, "set 'my.ops', which")
    refused(lambda m: m.graph.node[0].input.__setitem__(0, "z"), ModelError, "reads 'z', which nothing")
    refused(lambda m: m.graph.node[0].output.__setitem__(0, "x"), ModelError, "'x' gets a value twice")
    refused(lambda m: m.graph.output.add(name="q"), ModelError, "output 'q' is written by no node")
    refused(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99),
            UnsupportedOp, "element type number 99")  # fmt: skip
    refused(lambda m: m.graph.output[0].type.CopyFrom(helper.make_tensor_type_proto(1, [3, 2])),
            ModelError, r"declares float32 of shape \(3, 2\)")  # fmt: skip
    refused(lambda m: m.graph.initializer.append(TensorProto(name="c", data_type=1, dims=[9], raw_data=b"x")),
            ModelError, "constant 'c' holds 1 bytes")  # fmt: skip


@pytest.mark.parametrize("stored", ["raw", "numbers"])
def test_element_types_nobody_computes_with_have_their_name(stored: str) -> None:
    """A filter of 4-bit floats: its DequantizeLinear is lacking, and so is nothing else."""
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT4E2M1, dims=[2, 3])
    if stored == "raw":
        proto.raw_data = bytes([0x21, 0x43, 0x65])
    else:
        proto.int32_data.extend([0x21, 0x43, 0x65])
    scale = helper.make_tensor("s", TensorProto.FLOAT, [], [0.5])
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"]),
        helper.make_node("Add", ["x", "v"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3])
    graph = helper.make_graph(nodes, "float4", [x], [z], [proto, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    read = read_onnx(model.SerializeToString())
    assert [tensor.dtype for tensor in read.tensors if tensor.name == "w"] == ["float4_e2m1"]
    program = compile_graph(lower_qdq(read), missing="given")
    assert set(program.missing) == {0}
    assert "float4_e2m1" in program.missing[0]
    with pytest.raises(UnsupportedOp, match="'w' is of element type float4_e2m1"):
        write_onnx(read)


def dynamic(*sizes: int | str) -> bytes:
    """Relu of an input with symbolic sizes, -1 in between as some writers leave it."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    between = helper.make_tensor_value_info("r", TensorProto.FLOAT, [1] * len(sizes))
    for size in between.type.tensor_type.shape.dim:
        size.dim_value = -1
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Relu", ["r"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], value_info=[between])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


@pytest.mark.parametrize("sizes", [("N", 3, 4), (5, "batch_size", 4), ("anything", 3, 4), (2, 3, 4)])
def test_a_batch_of_unknown_size_is_one_wherever_it_stands(sizes: tuple[int | str, ...]) -> None:
    graph = read_onnx(dynamic(*sizes))
    assert graph.tensors[graph.outputs[0]].shape == tuple(1 if isinstance(n, str) else n for n in sizes)


def test_another_unknown_size_is_refused_by_its_name() -> None:
    with pytest.raises(UnsupportedOp, match=r"not axis 2 \('width'\) of .*make_dynamic_shape_fixed"):
        read_onnx(dynamic("N", 3, "width"))


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_model(tmp_path / "gone.onnx")
    (tmp_path / "odd.onnx").write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(ModelError, match=r"odd\.onnx: not an ONNX file"):
        read_model(tmp_path / "odd.onnx")


def test_graphs_that_cannot_be_written() -> None:
    builder = GraphBuilder("g", "onnx")
    x = builder.input("x", (1, 4), "float32", None)
    y = builder.layer("Relu", (x,), (builder.tensor("y", (1, 4), "float32"),), 17)
    graph: Graph = builder.build((y,))
    assert read_onnx(write_onnx(graph)) == graph
    with pytest.raises(ModelError, match="tflite layout"):
        write_onnx(dataclasses.replace(graph, format="tflite"))
    z = builder.layer("Relu", (y,), (builder.tensor("z", (1, 4), "float32"),), 13)
    with pytest.raises(ModelError, match="of version 13, another"):
        write_onnx(builder.build((z,)))
    wrong = GraphBuilder("g", "onnx")
    x = wrong.input("x", (1, 4), "int8", Quantization.per_tensor(1.0))
    y = wrong.layer("Sigmoid", (x,), (wrong.tensor("y", (1, 4), "int8"),), 17)
    with pytest.raises(ModelError, match="is not valid ONNX"):
        write_onnx(wrong.build((y,)))


@pytest.mark.parametrize("stored", ["raw", "numbers", "beside"])
def test_four_bit_constants_are_read_and_written(stored: str, tmp_path: Path) -> None:
    """Seven values in four bytes, stored in each of the three ways."""
    proto = TensorProto(name="w", data_type=TensorProto.UINT4, dims=[7])
    content = bytes([0x21, 0x43, 0x65, 0x0F])
    if stored == "raw":
        proto.raw_data = content
    elif stored == "numbers":
        proto.int32_data.extend(content)
    else:
        (tmp_path / "w.bin").write_bytes(content)
        proto.data_location = TensorProto.EXTERNAL
        proto.external_data.add(key="location", value="w.bin")
    scale = helper.make_tensor("s", TensorProto.FLOAT, [], [0.5])
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"]),
        helper.make_node("Add", ["x", "v"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [7]) for name in "xy")
    graph = helper.make_graph(nodes, "uint4", [x], [y], [proto, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    expected = np.array([1, 2, 3, 4, 5, 6, 15], np.float32) / 2
    for read in (read_onnx(path), read_onnx(write_onnx(read_onnx(path)))):
        (found,) = compile_graph(read, "ort-1.31", 1).run({"x": np.zeros(7, np.float32)}).outputs
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("content", [b"", b"abc", b"abcde"])
def test_four_bit_constants_of_too_few_or_many_bytes_are_refused(content: bytes) -> None:
    proto = TensorProto(name="w", data_type=TensorProto.INT4, dims=[7], raw_data=content)
    graph = helper.make_graph([], "int4", [], [], [proto])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(ModelError, match="7 values of 4 bits need 4"):
        read_onnx(model.SerializeToString())
