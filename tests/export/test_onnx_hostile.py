"""Damaged and hostile ONNX files: a graph or one clear line, never a crash, a hang or gigabytes."""

from __future__ import annotations

import contextlib
import resource

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.onnx import lower_qdq, read_onnx, write_onnx
from refimpl.errors import KaratError
from tests.export.onnx_models import quantized
from tests.karat.test_hostile_files import mutations

FILES = 2000


def wrong_fields(content: bytes, seed: int) -> bytes:
    """The model with one number, name or list in it replaced: well-formed protobuf that lies."""
    random = np.random.default_rng(seed)
    model = onnx.load_model_from_string(content)
    node = model.graph.node[int(random.integers(len(model.graph.node)))]
    proto = model.graph.initializer[int(random.integers(len(model.graph.initializer)))]
    number = int(random.choice([0, 1, -1, 2, 3, 7, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]))
    match int(random.integers(9)):
        case 0 if node.attribute:
            attribute = node.attribute[int(random.integers(len(node.attribute)))]
            attribute.i = number
            if attribute.ints:
                attribute.ints[int(random.integers(len(attribute.ints)))] = number
        case 1 if node.attribute:
            node.attribute[int(random.integers(len(node.attribute)))].ints.extend([number] * 3)
        case 2:
            node.input[int(random.integers(len(node.input)))] = str(random.choice(["", "x", proto.name]))
        case 3:
            node.op_type = str(random.choice(["Conv", "Reshape", "Resize", "Split", "QLinearConv", "Gather"]))
        case 4 if proto.dims:
            proto.dims[int(random.integers(len(proto.dims)))] = number
        case 5:
            proto.data_type = int(random.integers(0, 30))
        case 6 if proto.raw_data:
            value = random.choice([np.nan, np.inf, 0, -1, 1e38])
            proto.raw_data = np.full(len(proto.raw_data) // 4 or 1, value, np.float32).tobytes()
        case 7:
            model.graph.input[0].type.tensor_type.shape.dim[int(random.integers(4))].dim_value = number
        case _:
            del node.input[int(random.integers(len(node.input))) :]
    return model.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), [("residual", "qdq-s8s8-channel"), ("moving", "qdq-u8s8")])
def test_what_is_read_can_be_lowered_and_written_or_is_refused(name: str, way: str) -> None:
    content = quantized(name, way)
    done = 0
    for seed in range(FILES // 2):
        try:
            graph = read_onnx(wrong_fields(content, seed + FILES))
        except KaratError:
            continue
        for operation in (lower_qdq, write_onnx):
            with contextlib.suppress(KaratError):
                operation(graph)
                done += 1
    assert done > FILES // 8


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), [("residual", "qdq-s8s8-channel"), ("moving", "qop-u8s8")])
def test_mutated_files_never_crash(name: str, way: str) -> None:
    """Bytes at random, then fields at random: what is no graph is refused with a message of one line."""
    content = quantized(name, way)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for label, files in (
        ("bytes", mutations(content, FILES, 5)),
        ("fields", (wrong_fields(content, seed) for seed in range(FILES))),
    ):
        read, refused = 0, 0
        for number, data in enumerate(files):
            try:
                read_onnx(data)
                read += 1
            except KaratError as error:
                refused += 1
                message = str(error)
                assert message.startswith("model in memory: "), f"{label} {number}: {message}"
                assert 25 < len(message) < 2000, f"{label} {number}: {message}"
                assert "\n" not in message, f"{label} {number}: {message}"
        assert min(read, refused) > FILES // 20, f"{label}: {read} read, {refused} refused"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kilobytes"


def one_node(op: str, *constants: TensorProto, shape=(1, 4, 8, 8), **attributes) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *(c.name for c in constants)], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    versions = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=versions).SerializeToString()


def integers(*values: int) -> TensorProto:
    return helper.make_tensor("c", TensorProto.INT64, [len(values)], values)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08",
        b"\xff" * 64,
        one_node("Tile", integers(2**40, 1, 1, 1)),
        one_node("Expand", integers(2**31, 2**31, 2**31, 1)),
        one_node("Expand", integers(*[1] * 10_000)),
        one_node("Reshape", integers(-1, -1)),
        one_node("Reshape", integers(0, 0, 0, 0, 0)),
        one_node("Reshape", integers(-(2**63), -1)),
        one_node("Unsqueeze", integers(*range(40))),
        one_node("Pad", integers(0, 0, 2**62, 0, 0, 0, 2**62, 0)),
        one_node("MaxPool", kernel_shape=[2**62, 1]),
        one_node("MaxPool", kernel_shape=[2, 2], strides=[0, 0]),
        one_node("MaxPool", kernel_shape=[2, 2], auto_pad="SAME"),
        one_node("Transpose", perm=[0, 0, 1, 2]),
        one_node("Split", integers(), axis=1),
        one_node("Concat", axis=-5),
        one_node("Softmax", shape=(2**31, 2**31)),
        one_node("Relu", shape=(0, 3)),
        one_node("Relu", shape=(-3, 3)),
    ],
)
def test_sizes_that_make_no_sense(data: bytes) -> None:
    with pytest.raises(KaratError, match="model in memory: "):
        read_onnx(data)
