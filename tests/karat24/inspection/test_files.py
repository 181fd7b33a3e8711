"""``karat24 inspect`` shows whatever file it can open: custom ops, odd versions and types, several graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from karat24.cli import main
from karat24.export.onnx import write_onnx, write_quantized_onnx
from karat24.export.tflite import write_tflite
from karat24.inspection import describe_file
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import KaratError, UsageError
from karat24.refimpl.graph import Quantization
from tests.support.damaged_files import mutations
from tests.support.qdq_convolution import qdq_convolution
from tests.support.small_network import small_graph
from tests.support.tflite_control_flow import branching, looping
from tests.support.tflite_edits import broken, tensor
from tests.support.tflite_subgraphs import two_graphs


def shown(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """What the command prints; it must succeed, in text and in JSON."""
    assert main(["inspect", str(path), *options, "--json"]) == 0
    json.loads(capsys.readouterr().out)
    assert main(["inspect", str(path), *options]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def compiled() -> bytes:
    """A model as compilers of vendors leave it: one opaque op with a payload between two that are known."""
    builder = GraphBuilder()
    quantization = Quantization.per_tensor(0.5)
    given = builder.input("x", (1, 4), "int8", quantization)
    before, one, two = (
        builder.tensor(name, (1, 4), "int8", quantization) for name in ("before", "one", "two")
    )
    output = builder.tensor("y", (1, 4), "int8", quantization)
    builder.layer("RELU", [given], [before])
    builder.layer("CUSTOM:vendor-npu", [before, given], [one, two], custom_options=b"\x00" * 1234)
    builder.layer("ADD", [one, two], [output], fused_activation_function="NONE")
    return write_tflite(builder.build([output]))


def test_a_compiled_model_shows_its_ops_tensors_and_payload(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "compiled.tflite"
    path.write_bytes(compiled())
    text = shown(path, capsys)
    assert "1! CUSTOM:vendor-npu" in text
    for detail in ("custom_options <1234 bytes>", "'before'", "'x'", "'one'", "'two'"):
        assert detail in text
    assert "0  RELU" in text
    assert "2  ADD" in text
    assert "only whoever made the op defines it" in text
    text = shown(path, capsys, "--layer", "1")
    assert "custom_options = <1234 bytes>" in text
    assert "input 1: tensor 0" in text


def test_several_subgraphs_are_all_shown_or_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.tflite"
    path.write_bytes(two_graphs({"first": 0, "second": 1}))
    text = shown(path, capsys)
    assert "subgraph 0 'main', signatures: 'first'" in text
    assert "subgraph 1 'second', signatures: 'second'" in text
    both = describe_file(path)["subgraphs"]
    assert [part["subgraph"] for part in both] == [0, 1]
    for choice in ("1", "second"):
        assert "subgraph" not in shown(path, capsys, "--subgraph", choice)
        assert "layer 0" in shown(path, capsys, "--subgraph", choice, "--layer", "0")
    with pytest.raises(UsageError, match="no subgraph 'third'; the file has 0 "):
        describe_file(path, subgraph="third")


def test_graphs_that_layers_enter_say_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content, lines in (
        (
            branching(),
            [
                "subgraph 1 'relu6', signatures: none\nentered by layer 1 (IF) of subgraph 0 if true",
                "subgraph 2 'relu_n1_to_1', signatures: none\nentered by layer 1 (IF) of subgraph 0 if false",
            ],
        ),
        (
            looping(),
            [
                "entered by layer 1 (WHILE) of subgraph 0 as its condition",
                "entered by layer 1 (WHILE) of subgraph 0 as its body",
            ],
        ),
    ):
        path = tmp_path / "entered.tflite"
        path.write_bytes(content)
        text = shown(path, capsys)
        assert all(line in text for line in lines)
        assert "karat24 computes no control flow" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (tensor("first", shape=np.array([1, -1, 8, 5], np.int32)), "unknown size"),
        (tensor("first", type=100), "number 100"),
    ],
)
def test_a_tflite_file_that_is_no_graph_is_listed(
    change: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.tflite"
    path.write_bytes(broken(change, small_graph()))
    text = shown(path, capsys)
    assert text.startswith("only listed, not checked: ")
    assert said in text
    for op in ("CONV_2D", "ADD", "MAX_POOL_2D"):
        assert op in text
    assert "'pooled'" in text
    assert main(["run", str(path)]) == 2


def model(nodes: list[Any], opset: int = 17, ir_version: int = 8, **parts: Any) -> bytes:
    given = helper.make_tensor_value_info("x", parts.get("type", TensorProto.FLOAT), ["N", 3])
    written = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "g", [given], [written], parts.get("constants", []))
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return bytes(proto.SerializeToString())


def int4() -> Any:
    return helper.make_tensor("w", TensorProto.INT4, [3], b"\x21\x03", raw=True)


def control_flow() -> Any:
    then = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    return helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=then)


CAST = helper.make_node("Cast", ["x"], ["y"], to=1)
CONTEXT = helper.make_node(
    "EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context=b"\xff\x00" * 500, main_context=1
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (model([helper.make_node("Relu", ["x"], ["y"])], opset=7), ("ai.onnx 7", "Relu")),
        (model([helper.make_node("Relu", ["x"], ["y"])], opset=99), ("ai.onnx 99", "Relu")),
        (model([helper.make_node("Relu", ["x"], ["y"])], ir_version=60), ("format version 60", "Relu")),
        (
            model([helper.make_node("DequantizeLinear", ["w", "s"], ["y"])], opset=21, constants=[int4()]),
            ("int4 3  'w'", "DequantizeLinear"),
        ),
        (model([CAST], type=99), ("type 99",)),
        (model([control_flow()]), ("If", "then_branch <graph of 1 nodes>")),
        (model([CONTEXT]), ("com.microsoft:EPContext", "ep_cache_context <1000 bytes>")),
    ],
    ids=[
        "old operator set", "new operator set", "new format", "int4", "unknown type",
        "control flow", "compiled",
    ],
)  # fmt: skip
def test_an_onnx_file_that_is_no_graph_is_listed(
    content: bytes, said: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(content)
    text = shown(path, capsys)
    assert text.startswith("only listed, not checked: ")
    for words in said:
        assert words in text


def test_element_types_are_named_in_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.onnx"
    for kind, said in (
        (17, "element type float8_e4m3fn"),
        (22, "element type int4"),
        (99, "element type number 99"),
    ):
        path.write_bytes(model([CAST], type=kind))
        assert main(["run", str(path)]) == 2
        assert said in capsys.readouterr().err


def test_names_of_all_onnx_types_are_known() -> None:
    """Fails when the installed onnx gets a type that has no name here."""
    from karat24.export.onnx.schema import type_label

    codes = [code for code in TensorProto.DataType.values() if code != TensorProto.UNDEFINED]
    assert [code for code in codes if type_label(code).startswith("type ")] == []
    assert {type_label(code).replace("_", "") for code in codes} >= {
        "int4",
        "uint2",
        "float8e5m2",
        "bfloat16",
    }


def test_with_a_profile_the_layers_a_runtime_makes_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "qdq.onnx"
    path.write_bytes(write_onnx(qdq_convolution()))
    assert "QLinearConv" not in shown(path, capsys)
    text = shown(path, capsys, "--profile", "ort-1.31")
    number = next(line.split()[0] for line in text.splitlines() if "QLinearConv" in line)
    assert "XNNPACK, ONNX Runtime (float32)   0.5 " in shown(
        path, capsys, "--profile", "ort-1.31", "--layer", number
    )
    assert main(["inspect", str(path), "--profile", "tflm"]) == 2
    assert "describes runtimes of .tflite files" in capsys.readouterr().err


def test_a_convolution_between_quantizations_shows_its_multipliers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a QDQ file's own float Conv: the scales stand in the nodes around it."""
    path = tmp_path / "qdq.onnx"
    path.write_bytes(write_quantized_onnx(small_graph(), "qdq"))
    content = describe_file(path)
    layer = next(entry["layer"] for entry in content["layers"] if entry["op"] == "Conv")
    assert main(["inspect", str(path), "--layer", str(layer), "--channel", "2", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["channels"]
    assert entry["channel"] == 2
    assert entry["real"] == pytest.approx(1 / 255 * 0.0078125 / 0.0234375, rel=1e-6)


def test_mutated_files_are_shown_or_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {0: 0, 2: 0}
    samples = {".tflite": compiled(), ".onnx": write_quantized_onnx(small_graph(), "qdq")}
    for suffix, content in samples.items():
        path = tmp_path / f"mutated{suffix}"
        for data in mutations(content, 150, 3):
            path.write_bytes(data)
            code = main(["inspect", str(path)])
            captured = capsys.readouterr()
            counts[code] += 1
            assert captured.err.count("\n") == (code == 2), captured.err
    assert min(counts.values()) > 15, f"too one-sided to mean anything: {counts}"


def test_what_is_no_container_is_refused(tmp_path: Path) -> None:
    for name, content in (
        ("a.tflite", b"PK\x03\x04"),
        ("b.onnx", b""),
        ("c.onnx", b"\xff" * 40),
        ("d.txt", b"x"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(KaratError):
            describe_file(tmp_path / name)
    assert onnx.ModelProto.FromString(b"").graph.name == ""  # an empty file is a valid, empty message
