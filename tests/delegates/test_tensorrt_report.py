"""Reports of TensorRT's engine inspector in the form NVIDIA documents, as text and as JSON.

Written here after the developer guide's example and reports in public issues; none was made by a run.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from karat24.delegates.tensorrt_report import Operand, judge, parse_layers

INT8 = "Thirty-two wide channel vectorized row major Int8 format"
KERNEL = "sm80_xmma_fprop_implicit_gemm_interleaved_{}_nchw_vect_c_32kcrs_vect_c_32_tilesize256x128x64"
SEPARATOR = "\x1e"


def operand(name: str, described: str = INT8, shape: tuple[int, ...] = (1, 64, 56, 56)) -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": list(shape), "Format/Datatype": described}


def convolution(
    name: str,
    *metadata: str,
    read: str = INT8,
    weights: str = "Int8",
    types: str = "i8i8_i8i32_f32",
    **more: Any,
) -> dict[str, Any]:
    """A convolution as TensorRT 8.6 to 10 describe it at detailed verbosity."""
    return {
        "Name": name, "LayerType": "CaskConvolution",
        "Inputs": [operand("x", read)], "Outputs": [operand("y")],
        "ParameterType": "Convolution", "Kernel": [1, 1], "PaddingMode": "kEXPLICIT_ROUND_DOWN",
        "PrePadding": [0, 0], "PostPadding": [0, 0], "Stride": [1, 1], "Dilation": [1, 1], "OutMaps": 256,
        "Groups": 1, "Weights": {"Type": weights, "Count": 131072}, "Bias": {"Type": "Float", "Count": 256},
        "HasBias": 1, "HasReLU": 1, "Activation": "RELU", "TacticName": KERNEL.format(types),
        "TacticValue": "0x11bde0e1d9f2f35d", "StreamId": 0,
        "Metadata": SEPARATOR.join(f"[ONNX Layer: {layer}]" for layer in metadata), **more,
    }  # fmt: skip


REFORMAT = {
    "Name": "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1", "LayerType": "Reformat",
    "Inputs": [operand("image", "Row major linear FP32")], "Outputs": [operand("x", "Row major Int8 format")],
    "ParameterType": "Reformat", "Origin": "REFORMAT", "TacticValue": "0x00000000000003e8", "StreamId": 0,
    "Metadata": "",
}  # fmt: skip


def verdicts(layers: list[Any], *names: str) -> list[str]:
    """Of convolutions ``names``, from the JSON report and from the same layers as lines."""
    found = [
        judge(dict.fromkeys(names, "Conv"), parse_layers(report))
        for report in (as_json(layers), as_lines(layers))
    ]
    assert [[proof.verdict for proof in proofs] for proofs in found] == [[p.verdict for p in found[0]]] * 2
    return [proof.verdict for proof in found[0]]


def as_json(layers: list[Any]) -> str:
    """As ``trtexec --exportLayerInfo`` writes it."""
    public = [{"Name": "image", "IOMode": "Input", "DataType": "Float"}]
    return json.dumps({"Layers": layers, "Bindings": ["image", "y"], "I/O Tensors": public}, indent=1)


def as_lines(layers: list[Any]) -> str:
    """As ``trtexec --dumpLayerInfo`` and a verbose builder log it."""
    lines = []
    for layer in layers:
        parts = []
        for key, value in layer.items():
            if key in ("Inputs", "Outputs", "Constants"):
                inner = ", ".join(
                    "{ " + ", ".join(f"{k}: {_line(v)}" for k, v in entry.items()) + " }" for entry in value
                )
                parts.append(f"{key}: [ {inner}]")
            elif key in ("Weights", "Bias"):
                parts.append(f"{key}: {json.dumps(value)}")
            else:
                parts.append(f"{key}: {_line(value)}".replace(SEPARATOR, ""))
        lines.append(", ".join(parts))
    return "[V] [TRT] Layers:\n" + "\n".join(lines) + "\n\nBindings:\nimage\ny\n"


def _line(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)


def test_a_layer_of_the_json_report_as_data() -> None:
    first, second = parse_layers(as_json([REFORMAT, convolution("conv1 + relu1", "conv1", "relu1")]))
    assert not first.convolves
    assert second.convolves
    assert second.inputs == (Operand("x", (1, 64, 56, 56), "int8"),)
    assert second.onnx_layers == ("conv1", "relu1")
    assert second.weights == "int8"
    assert second.tactic.startswith("sm80_xmma_fprop")
    assert parse_layers(as_lines([REFORMAT, convolution("conv1 + relu1", "conv1", "relu1")])) == (
        first,
        second,
    )


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "int8"),
        ({"weights": "Half"}, "float"),
        ({"weights": "Float", "types": "f32f32_f32f32_f32"}, "float"),
        ({"read": "Row major linear FP32"}, "float"),
        ({"read": "Channel major FP16 format where channel % 8 == 0"}, "float"),
        ({"read": "Int8"}, "int8"),
        ({"read": "Row major Int8 format."}, "int8"),
        ({"LayerType": "CaskConvActPool"}, "int8"),
        ({"LayerType": "CaskGemmConvolution"}, "int8"),
        ({"LayerType": "Myelin"}, "not found"),
    ],
)
def test_types_as_they_are_described(changes: dict[str, Any], verdict: str) -> None:
    layers = [REFORMAT, convolution("conv1 + relu1", "conv1", "relu1", **changes)]
    assert verdicts(layers, "conv1") == [verdict]


@pytest.mark.parametrize(
    ("types", "verdict"),
    [
        ("i8i8_i8i32_f32", "int8"),
        ("i8f32_i8i32_f32", "int8"),
        ("i8f16_i8i32_f32", "int8"),
        ("f16f16_f16f16_f16", "float"),
        ("f32f32_tf32f32_f32", "float"),
        ("tf32f32_tf32f32_f32", "float"),
        ("of_no_known_types", "not found"),
    ],
)
def test_with_dynamic_shapes_the_kernel_tells(types: str, verdict: str) -> None:
    """``N/A due to dynamic shapes`` is no data type, and no reason to call a kernel float."""
    described = "N/A due to dynamic shapes"
    layer = convolution("conv1", "conv1", read=described, types=types)
    del layer["Weights"]
    assert verdicts([layer], "conv1") == [verdict]


@pytest.mark.parametrize("spelling", ["DataType", "Datatype"])
@pytest.mark.parametrize(("word", "verdict"), [("Int8", "int8"), ("Half", "float"), ("Float", "float")])
def test_types_apart_from_formats(spelling: str, word: str, verdict: str) -> None:
    """TensorRT 11 gives both a field of their own."""
    layer = convolution("conv1", "conv1")
    for tensor in (*layer["Inputs"], *layer["Outputs"]):
        tensor["Format"] = tensor.pop("Format/Datatype").replace("Int8 ", "")
        tensor[spelling] = word
    assert verdicts([layer], "conv1") == [verdict]


def test_operand_types_count_before_the_kernels_name() -> None:
    layer = convolution("conv1", "conv1", read="Row major linear FP32", weights="Float")
    assert verdicts([layer], "conv1") == ["float"]


def test_without_metadata_the_name_tells() -> None:
    """TensorRT 8.5: quantized weights, the convolution and what is fused into it, joined by plus signs."""
    layers = [
        convolution("w1 + w1_QuantizeLinear + /block.0/conv/Conv + PWN(/block.0/relu/Relu)"),
        convolution("/block.1/conv/Conv", read="Row major linear FP32", weights="Float"),
    ]
    for layer in layers:
        del layer["Metadata"]
    assert verdicts(layers, "/block.0/conv/Conv", "/block.1/conv/Conv") == ["int8", "float"]
    assert verdicts(layers, "/block.0/conv/Con") == ["not found"], "a part of a name is another name"


def test_convolutions_of_one_input_in_one_kernel() -> None:
    """Merged side by side: the kernel computes both; each verdict is its own."""
    both = convolution("a/Conv + a/Relu || b/Conv + b/Relu", "a/Conv", "a/Relu", "b/Conv", "b/Relu")
    assert verdicts([both], "a/Conv", "b/Conv") == ["int8", "int8"]
    assert verdicts([{**both, "Weights": {"Type": "Half", "Count": 4}}], "a/Conv", "b/Conv") == [
        "float",
        "float",
    ]
    one_after_the_other = convolution("a/Conv + b/Conv", "a/Conv", "b/Conv")
    assert verdicts([one_after_the_other], "a/Conv", "b/Conv") == ["not found", "not found"]
    third = convolution("b/Conv + c/Conv", "b/Conv", "c/Conv")
    assert verdicts([third, both], "a/Conv", "b/Conv", "c/Conv") == ["int8"] * 3, (
        "b's last step is fused into c"
    )


def test_a_residual_input_is_no_filter() -> None:
    """The second input of conv + add is larger than any filter; the weights are named apart."""
    layer = convolution("conv2 + add2", "conv2", "add2", weights="Int8")
    layer["Inputs"].append(operand("shortcut", "Row major linear FP32", (1, 64, 560, 560)))
    assert verdicts([layer], "conv2") == ["int8"]


def test_a_filter_that_is_an_input() -> None:
    """A dynamic filter has no weights of its own; it is the second input."""
    layer = convolution("conv3", "conv3", HasDynamicFilter=1)
    del layer["Weights"]
    layer["Inputs"].append(operand("filter", "Row major Int8 format", (256, 64, 1, 1)))
    assert verdicts([layer], "conv3") == ["int8"]
    layer["Inputs"][1]["Format/Datatype"] = "Row major linear FP32"
    assert verdicts([layer], "conv3") == ["float"]


def test_generated_code_says_half() -> None:
    """Myelin's kernels, TensorRT 10: types in one word; a float convolution inside one is found."""
    generated = {
        "Name": "__myl_ConvAdd_myl0_69", "LayerType": "fusion",
        "Inputs": [operand("__myln_k_arg__bb1_73", "Half", (1, 40, 256))],
        "Outputs": [operand("__myln_k_arg__bb1_74", "Half", (1, 40, 1024))],
        "TacticName": "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n_tilesize32x32x64", "StreamId": 0,
        "Metadata": SEPARATOR.join(("[ONNX Layer: conv4]", "[ONNX Layer: add4]")),
    }  # fmt: skip
    assert verdicts([generated], "conv4") == ["float"]
    generated["Inputs"][0]["Format/Datatype"] = "Int8"
    assert verdicts([generated], "conv4") == ["not found"], "code that may or may not multiply integers"


@pytest.mark.parametrize(
    "report",
    [
        "{", "{}", "[]", '{"Layers": 3}', '{"Layers": {"Name": "a"}}', '{"Layers": ["conv1 + relu1", "fc"]}',
        '{"Layers": [{"Name": "conv1"}, 7, null]}', "Layers:\nconv1 + relu1\nfc\n", "conv1",
    ],
)  # fmt: skip
def test_reports_without_layers_prove_nothing(report: str) -> None:
    """Damaged ones, and those made at a verbosity that lists names only."""
    assert parse_layers(report) == ()


@pytest.mark.parametrize("key", ["Inputs", "Weights", "TacticName", "Metadata", "Outputs"])
@pytest.mark.parametrize("value", [None, 3, "text", [], {}, [3], [{}], [{"Dimensions": "wide"}]])
def test_fields_of_another_kind_are_no_crash(key: str, value: Any) -> None:
    layer = {**convolution("conv1", "conv1"), key: value}
    (found,) = judge({"conv1": "Conv"}, parse_layers(as_json([layer])))
    assert found.verdict in ("int8", "not found")
