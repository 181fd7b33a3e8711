"""TensorRT: engines are built and proved on any machine; nothing here is run without a GPU.

A proof must be able to fail: each of these models has a twin whose verdict differs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import karat24.delegates.tensorrt as lane
from karat24.cli import main
from karat24.delegates import delegate_named
from karat24.delegates.tensorrt import EngineProof, TensorrtDelegate, with_named_convolutions
from karat24.delegates.tensorrt_report import BuiltLayer, Operand, judge, parse_layers
from karat24.delegates.workers import TENSORRT_WORKER
from karat24.refimpl.errors import DelegateUnavailable, ModelError, UsageError
from karat24.refimpl.graph import Array
from tests.cases.onnx_models import onnx_model

onnx = pytest.importorskip("onnx")
helper = onnx.helper

PRESENT = any(importlib.util.find_spec(module) for module in lane.MODULES)
needs_tensorrt = pytest.mark.skipif(not PRESENT, reason="no TensorRT here: pip install 'karat24[tensorrt]'")


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


DRIVER = loads("libcuda.so.1")


def chain(
    quantized: tuple[bool, ...] = (True, True, True),
    zero_point: int = 0,
    filter_type: str = "int8",
    names: tuple[str, ...] = ("first", "second", "third"),
) -> bytes:
    """3×3 convolutions of 16 channels, each between Q/DQ where ``quantized`` says so."""
    rng = np.random.default_rng(0)
    constants: dict[str, Array] = {"scale": np.float32(0.02), "zero": np.int8(zero_point)}
    nodes, x = [], "x"
    for number, (is_quantized, name) in enumerate(zip(quantized, names, strict=True)):
        low = 0 if filter_type == "uint8" else -100
        stored = rng.integers(low, 100, (16, 16, 3, 3)).astype(filter_type)
        w = f"w{number}"
        if is_quantized:
            constants |= {w: stored, f"{w}.zero": np.zeros((), filter_type), f"b{number}": np.ones(16, "f")}
            nodes += [
                helper.make_node("QuantizeLinear", [x, "scale", "zero"], [f"{x}.q"], f"q{number}"),
                helper.make_node("DequantizeLinear", [f"{x}.q", "scale", "zero"], [f"{x}.dq"], f"dq{number}"),
                helper.make_node("DequantizeLinear", [w, "scale", f"{w}.zero"], [f"{w}.dq"], f"wdq{number}"),
            ]
            factors = [f"{x}.dq", f"{w}.dq", f"b{number}"]
        else:
            constants[w] = stored.astype(np.float32)
            factors = [x, w]
        y = "y" if number == len(names) - 1 else f"y{number}"
        nodes.append(helper.make_node("Conv", factors, [y], name, pads=[1, 1, 1, 1]))
        x = y
    return onnx_model(nodes, {"x": np.zeros((1, 16, 8, 8), np.float32)}, {"y": "float32"}, constants)


def verdicts(proof: EngineProof) -> list[str]:
    return [found.verdict for found in proof.convolutions]


@pytest.fixture(scope="module")
def delegate() -> Iterator[TensorrtDelegate]:
    with TensorrtDelegate(time_limit=120.0) as found:
        yield found


@pytest.fixture(scope="module")
def flagships() -> dict[str, bytes]:
    """The networks in TensorRT's flavour, and the float TomoGAN; small images, the true widths."""
    from karat24.export.onnx import write_float_onnx, write_quantized_onnx
    from karat24.export.quantize import PRESETS, quantize_model
    from karat24.refimpl.networks import network
    from karat24.tomography.calibration_inputs import calibration_samples

    found = {}
    for name, upsampling in (("tomogan", "bilinear"), ("tomogan", "transposed"), ("fine-tune", "bilinear")):
        graph = network(name, 16, 16, upsampling)
        quantized = quantize_model(graph, calibration_samples(graph)[:2], PRESETS["int8-symmetric"])
        found[f"{name} {upsampling}"] = write_quantized_onnx(quantized, "tensorrt")
        found[f"{name} {upsampling} float"] = write_float_onnx(graph)
    return found


@needs_tensorrt
class TestProof:
    @pytest.mark.parametrize(("name", "count"), [("tomogan bilinear", 16), ("fine-tune bilinear", 2)])
    def test_every_convolution_of_the_networks_is_int8(
        self, delegate: TensorrtDelegate, flagships: dict[str, bytes], name: str, count: int
    ) -> None:
        proof = delegate.prove(flagships[name])
        assert verdicts(proof) == ["int8"] * count
        assert proof.all_int8
        assert all(found.kernel for found in proof.convolutions)

    def test_transposed_convolutions_stay_in_float_and_are_named(
        self, delegate: TensorrtDelegate, flagships: dict[str, bytes]
    ) -> None:
        proof = delegate.prove(flagships["tomogan transposed"])
        by_op = {
            op: {f.verdict for f in proof.convolutions if f.op == op} for op in ("Conv", "ConvTranspose")
        }
        assert by_op["Conv"] == {"int8"}
        assert not proof.all_int8
        floats = [found for found in proof.convolutions if found.verdict == "float"]
        assert {found.op for found in floats} == {"ConvTranspose"}
        assert all("deconv" in found.kernel for found in floats)
        assert len(floats) == 3

    def test_a_float_network_proves_nothing(
        self, delegate: TensorrtDelegate, flagships: dict[str, bytes]
    ) -> None:
        proof = delegate.prove(flagships["tomogan bilinear float"])
        assert verdicts(proof) == ["float"] * 16
        assert {(found.input, found.filter) for found in proof.convolutions} == {("float32", "float32")}

    @pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
    def test_a_half_precision_engine(
        self, delegate: TensorrtDelegate, flagships: dict[str, bytes], upsampling: str
    ) -> None:
        from karat24.export.onnx import half_precision

        proof = delegate.prove(half_precision(flagships[f"tomogan {upsampling} float"]))
        assert {(found.input, found.filter) for found in proof.convolutions} == {("float16", "float16")}
        assert set(verdicts(proof)) == {"float"}

    @pytest.mark.parametrize("left", range(3))
    def test_one_convolution_left_in_float_is_found(self, delegate: TensorrtDelegate, left: int) -> None:
        proof = delegate.prove(chain(tuple(number != left for number in range(3))))
        assert [found.verdict == "float" for found in proof.convolutions] == [n == left for n in range(3)]
        assert not proof.all_int8

    @pytest.mark.parametrize("names", [("", "", ""), ("same", "same", "same"), ("a, b", "c]", "{ d")])
    def test_names_the_report_cannot_carry_are_replaced(
        self, delegate: TensorrtDelegate, names: tuple[str, ...]
    ) -> None:
        proof = delegate.prove(chain((True, False, True), names=names))
        assert verdicts(proof) == ["int8", "float", "int8"]

    def test_the_same_model_gives_the_same_engine(
        self, delegate: TensorrtDelegate, flagships: dict[str, bytes]
    ) -> None:
        """Where nothing is timed. Each proof has a process of its own."""
        if DRIVER:
            pytest.skip("with a GPU a builder may time its kernels, and engines differ")
        first, again = (delegate.prove(flagships["fine-tune bilinear"]) for _ in range(2))
        assert first == again
        other = delegate.prove(chain())
        assert other.engine_sha256 != first.engine_sha256

    def test_marked_outputs_keep_convolutions_in_int8(
        self, delegate: TensorrtDelegate, flagships: dict[str, bytes]
    ) -> None:
        """Every QuantizeLinear an output: what a run that shows all tensors builds."""
        from karat24.delegates.onnxruntime import expose
        from karat24.export.onnx import read_onnx

        content = flagships["tomogan bilinear"]
        graph = read_onnx(content)
        shown, unreadable = delegate._edges(graph)
        assert {graph.tensors[index].dtype for index in shown} == {"int8"}
        assert {graph.tensors[index].dtype for index in unreadable} == {"float32"}
        proof = delegate.prove(expose(content, graph, shown))
        assert verdicts(proof) == ["int8"] * 16
        assert proof.engine_sha256 != delegate.prove(content).engine_sha256

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (chain(zero_point=3), r"refuses node 'q0' \(QuantizeLinear\).*zero.*--flavour tensorrt"),
            (chain(filter_type="uint8"), r"refuses node 'wdq0' \(DequantizeLinear\).*--flavour tensorrt"),
        ],
        ids=["zero point", "uint8 filter"],
    )
    def test_what_the_parser_refuses_is_one_line(
        self, delegate: TensorrtDelegate, content: bytes, message: str
    ) -> None:
        with pytest.raises(ModelError, match=message) as caught:
            delegate.prove(content)
        assert "\n" not in str(caught.value)

    def test_without_a_driver_nothing_runs_and_one_line_says_so(self, delegate: TensorrtDelegate) -> None:
        if DRIVER:
            pytest.skip("there is an NVIDIA driver here")
        probe = delegate.probe()
        assert not probe.available
        assert probe.version
        assert "no NVIDIA driver here: libcuda.so.1 does not load" in probe.reason
        assert "karat24 prove" in probe.remedy
        with pytest.raises(
            DelegateUnavailable, match=r"libcuda\.so\.1 does not load; .*karat24 prove"
        ) as caught:
            delegate.run(chain(), [np.zeros((1, 16, 8, 8), np.float32)])
        assert "\n" not in str(caught.value)
        assert delegate.prove(chain()).all_int8, "and proving goes on"


BUILD = """
import sys
sys.path.insert(0, sys.argv[1])
import tensorrt_worker
print(len(tensorrt_worker.Lane(sys.argv[3:]).build(sys.argv[2])))
"""


@needs_tensorrt
def test_values_beside_the_model_are_found(tmp_path: Path) -> None:
    """The engine of a model whose constants lie in another file, which the parser must be told where."""
    folder, sizes = str(TENSORRT_WORKER.parent), []
    for name, beside in (("whole.onnx", False), ("parts.onnx", True)):
        path = tmp_path / name
        onnx.save(onnx.load_from_string(chain()), path, save_as_external_data=beside, location="values.bin",
                  size_threshold=16)  # fmt: skip
        command = [sys.executable, "-c", BUILD, folder, str(path), *lane.MODULES]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd="/")
        assert done.returncode == 0, done.stderr[-2000:]
        sizes.append(int(done.stdout))
    assert sizes[0] > 1000
    if not DRIVER:
        assert sizes[0] == sizes[1]


@needs_tensorrt
@pytest.mark.parametrize(("quantized", "code"), [((True, True, True), 0), ((True, False, True), 1)])
def test_the_command(
    quantized: tuple[bool, ...], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(chain(quantized))
    assert main(["prove", str(path)]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["first", "int8", "int8", "x", "int8"]
    assert ("correlation" in lines[1]) == (code == 1), "the kernel of what is not int8"
    assert lines[3].endswith(f"{sum(quantized)} of 3 convolutions int8 x int8")
    assert main(["prove", str(path), "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["all_int8"] is (code == 0)
    assert [f["verdict"] for f in found["convolutions"]] == ["int8" if q else "float" for q in quantized]


def test_the_command_on_what_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junk, empty = tmp_path / "junk.onnx", tmp_path / "empty.onnx"
    junk.write_bytes(b"\x0a\xff\xff\xff\xff\xff")
    empty.write_bytes(b"")
    for path, message in [(junk, "not an ONNX file"), (empty, "nothing to prove"), (tmp_path, "directory")]:
        assert main(["prove", str(path)]) == 2
        assert message in capsys.readouterr().err


def test_without_tensorrt_the_answer_is_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lane, "MODULES", ("tensorrt_that_is_not_there",))
    path = tmp_path / "model.onnx"
    path.write_bytes(chain())
    assert main(["prove", str(path)]) == 3
    error = capsys.readouterr().err
    assert "no TensorRT is installed; pip install 'karat24[tensorrt]'" in error
    assert error.count("\n") == 1
    with delegate_named("tensorrt") as found:
        probe = found.probe()
    assert not probe.available
    assert "karat24[tensorrt]" in probe.remedy


def test_a_file_that_is_not_there() -> None:
    with TensorrtDelegate() as found, pytest.raises(UsageError, match=r"absent\.onnx: No such file"):
        found.prove(Path("absent.onnx"))


def test_convolutions_inside_other_graphs_are_listed_too() -> None:
    """An If's branches and a local function: none escapes the proof."""
    conv = helper.make_node("Conv", ["x", "w"], ["z"], "inner")
    output = helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)
    branch = helper.make_graph([conv], "branch", [], [output])
    choice = helper.make_node("If", ["c"], ["y"], "choice", then_branch=branch, else_branch=branch)
    inputs = {"x": np.zeros((1, 1, 4, 4), np.float32), "c": np.zeros((), np.bool_)}
    weights = {"w": np.ones((1, 1, 1, 1), np.float32)}
    names = with_named_convolutions(onnx_model([choice], inputs, {"y": "float32"}, weights))[1]
    assert len(names) == 2

    proto = onnx.load_from_string(onnx_model([helper.make_node("Own", ["x", "w"], ["y"], domain="own")],
                                             inputs, {"y": "float32"}, weights))  # fmt: skip
    body = [helper.make_node("Conv", ["a", "b"], ["o"])]
    opsets = [helper.make_opsetid("", 21)]
    proto.functions.append(helper.make_function("own", "Own", ["a", "b"], ["o"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    names = with_named_convolutions(proto.SerializeToString())[1]
    assert list(names.values()) == ["Conv"]


RTX_LINE = (
    "Name: a/float_U1_myl0_3, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [1,16,8,8], "
    "Strides: [1024,1,128,16], StrideOrder: [3,0,2,1], Datatype: Int8, "
    "Format: (NHWC) Channel major format }], "
    "Constants: [ { Name: bias, Dimensions: [1,32,1,1], Strides: [32,1,1,1], StrideOrder: [3,0,2,1], "
    "Datatype: Float, Format: (NHWC) Channel major format }, { Name: w, Dimensions: [32,16,3,3], "
    "Strides: [144,1,48,16], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], "
    "Outputs: [ { Name: y, Dimensions: [1,32,8,8], Strides: [1,1,1,1], StrideOrder: [3,0,2,1], "
    "Datatype: Float, Format: (Linear) Row major linear format }], TacticName: __myelin_CASK_STUB, "
    "StreamId: 0, Metadata: [ONNX Layer: a/float][ONNX Layer: x/dequantized]"
)
INSPECTOR_LINE = (
    "Name: conv1 + relu1, LayerType: CaskConvolution, Inputs: [ { Name: x, Location: Device, "
    "Dimensions: [1,3,224,224], "
    "Format/Datatype: Thirty-two wide channel vectorized row major Int8 format }], Outputs: [ { Name: y, "
    "Location: Device, Dimensions: [1,64,112,112], Format/Datatype: Row major linear FP32 format }], "
    'ParameterType: Convolution, Kernel: [7,7], Weights: {"Type": "Int8", "Count": 9408}, '
    'Bias: {"Type": "Float", "Count": 64}, TacticName: sm80_xmma_fprop, StreamId: 0, '
    "Metadata: [ONNX Layer: conv1]"
)


class TestReport:
    def test_a_line_as_data(self) -> None:
        (layer,) = parse_layers(f"Layers:\n{RTX_LINE}\n\nI/O Tensors:\n Name: x, IOMode: Input\n")
        assert (layer.name, layer.type, layer.tactic) == (
            "a/float_U1_myl0_3",
            "correlation",
            "__myelin_CASK_STUB",
        )
        assert layer.inputs == (Operand("x", (1, 16, 8, 8), "int8"),)
        assert layer.constants[1] == Operand("w", (32, 16, 3, 3), "int8")
        assert layer.outputs == (Operand("y", (1, 32, 8, 8), "float32"),)
        assert layer.onnx_layers == ("a/float", "x/dequantized")
        assert layer.factors == ("int8", "int8"), "the filter is the largest constant, not the first"

    def test_the_words_of_the_engine_inspector(self) -> None:
        (layer,) = parse_layers(f"Layers:\n{INSPECTOR_LINE}\n")
        assert layer.convolves
        assert layer.factors == ("int8", "int8")
        (layer,) = parse_layers("Layers:\n" + INSPECTOR_LINE.replace('"Int8"', '"Half"'))
        assert layer.factors == ("int8", "float16")

    @pytest.mark.parametrize(
        ("find", "replace", "verdict"),
        [
            ("", "", "int8"),
            ("[1,16,8,8], Strides: [1024,1,128,16], StrideOrder: [3,0,2,1], Datatype: Int8",
             "[1,16,8,8], Strides: [1024,1,128,16], StrideOrder: [3,0,2,1], Datatype: Half", "float"),
            ("[144,1,48,16], StrideOrder: [3,0,2,1], Datatype: Int8",
             "[144,1,48,16], StrideOrder: [3,0,2,1], Datatype: Float", "float"),
            ("LayerType: correlation", "LayerType: kgen", "not found"),
            (RTX_LINE, RTX_LINE.replace("Int8", "Half").replace("correlation", "kgen"), "float"),
            ("[ONNX Layer: a/float]", "", "not found"),
            ("Inputs: [ {", "Inputs: [ ", "not found"),
        ],
    )  # fmt: skip
    def test_verdicts(self, find: str, replace: str, verdict: str) -> None:
        assert find in RTX_LINE
        layers = parse_layers(f"Layers:\n{RTX_LINE.replace(find, replace, 1)}\n")
        (found,) = judge({"a/float": "Conv"}, layers)
        assert found.verdict == verdict
        assert bool(found.note) == (verdict == "not found")

    def test_a_kernel_two_convolutions_claim_proves_neither(self) -> None:
        def kernel(*names: str, dtype: str = "int8") -> BuiltLayer:
            x, w = Operand("x", (1, 1, 4, 4), dtype), Operand("w", (1, 1, 3, 3), dtype)
            return BuiltLayer("+".join(names), "correlation", (x,), (w,), (), "", names)

        convolutions = {"a": "Conv", "b": "Conv"}

        def judged(*layers: BuiltLayer) -> list[str]:
            return [found.verdict for found in judge(convolutions, layers)]

        assert judged(kernel("a", "b")) == ["not found", "not found"]
        assert judged(kernel("a"), kernel("a", "b")) == ["int8", "int8"], "a's last step is fused into b"
        assert judged(kernel("a", dtype="float32"), kernel("a", "b")) == ["float", "int8"]
        assert judged(kernel("a"), kernel("a", dtype="float32"), kernel("b")) == ["float", "int8"]

    def test_an_empty_report_proves_nothing(self) -> None:
        assert parse_layers("") == ()
        assert judge({"a": "Conv"}, ())[0].verdict == "not found"
