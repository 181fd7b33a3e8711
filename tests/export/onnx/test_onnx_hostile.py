"""Damaged and hostile ONNX files: a graph or one clear line, never a crash, a hang or gigabytes."""

from __future__ import annotations

import contextlib
import resource

import pytest
from onnx import TensorProto, helper

from karat24.export.onnx import lower_qdq, read_onnx, write_onnx
from karat24.refimpl.errors import KaratError
from tests.support.damaged_files import mutations
from tests.support.lying_onnx import wrong_fields
from tests.support.onnx_sketches import quantized

FILES = 2000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), [("residual", "qdq-s8s8-channel"), ("moving", "qdq-u8s8")])
def test_mutated_models_are_lowered_and_written_or_refused(name: str, way: str) -> None:
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
