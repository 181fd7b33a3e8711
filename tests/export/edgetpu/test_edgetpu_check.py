"""The Edge TPU's documented limits: each broken once, all kept by our networks, and public compiled files
show the same division between device and CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from karat24.cli import main
from karat24.export.edgetpu import constraints
from karat24.export.edgetpu.check import check_graph
from karat24.export.edgetpu.constraints import GENERAL, LIMITS, message
from karat24.export.tflite import read_tflite
from karat24.golden.edgetpu.mapping import map_layers
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.errors import UsageError
from karat24.refimpl.graph import Array, Graph, Quantization
from tests.support.edgetpu_chain import chain
from tests.support.edgetpu_pairs import PAIRS, pair
from tests.support.edgetpu_standin import compiled
from tests.support.flagships import TITLES, quantized

Q = Quantization.per_tensor(0.5, 3)
DOUBTFUL = {"RESIZE_BILINEAR", "TRANSPOSE_CONV"}


def one_layer(
    op: str,
    shape: tuple[int, ...],
    output: tuple[int, ...],
    *constants: Array,
    dtype: str = "uint8",
    **attributes,
) -> Graph:
    """``op`` of one image and constants; 8-bit constants are quantized like the image."""
    builder = GraphBuilder()
    quantization = Q if dtype == "uint8" else None
    x = builder.input("x", shape, dtype, quantization)
    given = [
        builder.constant(f"c{i}", c, Q if c.dtype == np.uint8 else None) for i, c in enumerate(constants)
    ]
    y = builder.tensor("y", output, dtype, quantization)
    inputs = [*given, x] if op == "SPLIT" else [x, *given]
    return builder.build((builder.layer(op, inputs, (y,), **attributes),))


def u8(*shape: int) -> Array:
    return np.full(shape, 3, np.uint8)


def i32(*values: int) -> Array:
    return np.array(values, np.int32)


def computed_filter() -> Graph:
    builder = GraphBuilder()
    x, w = (builder.input(name, (1, 1, 1, 4), "uint8", Q) for name in "xw")
    y = builder.tensor("y", (1, 1, 1, 1), "uint8", Q)
    return builder.build((builder.layer("CONV_2D", (x, w, -1), (y,)),))


def dynamic() -> Graph:
    from dataclasses import replace

    graph = one_layer("RELU", (1, 4, 4, 2), (1, 4, 4, 2))
    tensors = tuple(replace(t, shape_signature=(1, -1, -1, 2)) for t in graph.tensors)
    return replace(graph, tensors=tensors)


def padded(*amounts: tuple[int, int]) -> Graph:
    output = tuple(n + a + b for n, (a, b) in zip((1, 4, 4, 2), amounts, strict=True))
    return one_layer("PAD", (1, 4, 4, 2), output, np.array(amounts, np.int32))


def sliced(**masks: int) -> Graph:
    sizes = i32(0, 0, 0, 0), i32(1, 4, 4, 2), i32(1, 1, 1, 1)
    return one_layer("STRIDED_SLICE", (1, 4, 4, 2), (1, 4, 4, 2), *sizes, **masks)


BROKEN: dict[str, Callable[[], Graph]] = {
    "eight_bit_tensors": lambda: one_layer("ADD", (1, 4), (1, 4), np.ones(4, np.float32), dtype="float32"),
    "fixed_sizes": dynamic,
    "three_inner_dimensions": lambda: one_layer("RELU", (2, 4, 4, 2), (2, 4, 4, 2)),
    "constant_parameters": computed_filter,
    "no_fused_activation": lambda: one_layer(
        "CONCATENATION", (1, 4), (1, 8), u8(1, 4), axis=1, fused_activation_function="RELU"
    ),
    "equal_dilation": lambda: one_layer(
        "CONV_2D", (1, 4, 4, 2), (1, 4, 4, 2), u8(2, 1, 1, 2), dilation_w_factor=2, dilation_h_factor=1
    ),
    "default_weights_format": lambda: one_layer(
        "FULLY_CONNECTED", (1, 4), (1, 2), u8(2, 4), weights_format="SHUFFLED4x16INT8"
    ),
    "one_dimensional_output": lambda: one_layer("FULLY_CONNECTED", (3, 4), (3, 2), u8(2, 4)),
    "short_softmax": lambda: one_layer("SOFTMAX", (1, 16_001), (1, 16_001)),
    "zero_constants": lambda: one_layer("CONCATENATION", (1, 4), (1, 8), u8(1, 4) + np.uint8(1), axis=1),
    "two_inputs_with_a_constant": lambda: one_layer(
        "CONCATENATION", (1, 4), (1, 12), u8(1, 4), u8(1, 4), axis=1
    ),
    "constant_axes": lambda: one_layer("SUM", (1, 4, 4, 2), (1, 4, 4, 2)),
    "no_reduction_of_the_batch": lambda: one_layer("REDUCE_MAX", (1, 4, 4, 2), (4, 4, 2), i32(0)),
    "channels_in_fours": lambda: one_layer("MEAN", (1, 4, 4, 6), (1, 4, 4), i32(-1)),
    "known_padding": lambda: one_layer("PAD", (1, 4, 4, 2), (1, 4, 4, 2)),
    "no_padding_of_the_batch": lambda: padded((0, 1), (0, 0), (0, 0), (0, 0)),
    "not_along_the_batch": lambda: one_layer("PACK", (4, 4, 2), (1, 4, 4, 2), axis=0),
    "no_masks": lambda: sliced(new_axis_mask=1),
    "not_over_batch": lambda: one_layer("SPLIT", (1, 4, 4, 2), (1, 4, 4, 2), i32(0)),
    "unit_strides": lambda: one_layer(
        "STRIDED_SLICE", (1, 4, 4, 2), (1, 2, 4, 2), i32(0, 0, 0, 0), i32(1, 4, 4, 2), i32(1, 2, 1, 1)
    ),
    "one_alpha_per_channel": lambda: one_layer("PRELU", (1, 4, 4, 2), (1, 4, 4, 2), u8(4, 4, 2)),
}


def every_constraint() -> set[str]:
    return {c.__name__ for c in (*GENERAL, *(c for limits in LIMITS.values() for c in limits.constraints))}


def test_every_constraint_is_broken_by_a_case() -> None:
    assert set(BROKEN) == every_constraint()


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_limit_is_told_in_its_own_words(name: str) -> None:
    (check,) = check_graph(BROKEN[name]())
    assert check.outcome == "stays"
    assert any(reason.startswith(message(getattr(constraints, name))) for reason in check.reasons)
    assert "; here " in check.reasons[0]


@pytest.mark.parametrize("name", sorted(every_constraint()))
def test_a_limit_says_what_to_change(name: str) -> None:
    words = message(getattr(constraints, name))
    assert ":" in words
    assert "\n" not in words


@pytest.mark.parametrize(
    "graph",
    [
        one_layer("MEAN", (1, 4, 4, 2), (1, 2), i32(2, 1)),
        one_layer("MEAN", (1, 4, 4, 2), (1, 2), i32(-3, -2)),
        one_layer("MEAN", (1, 4, 4, 2), (1, 4, 2), i32(2)),
        one_layer("MEAN", (1, 4, 4, 8), (1, 4, 4), i32(3)),
        one_layer("SUM", (4, 4, 2), (4, 2), i32(0)),
        one_layer("PACK", (4, 2), (4, 1, 2), axis=-2),
        padded((0, 0), (0, 1), (1, 0), (2, 3)),
        sliced(begin_mask=15, shrink_axis_mask=0),
        one_layer("SPLIT", (1, 4, 4, 2), (1, 4, 4, 2), i32(-1)),
        one_layer("SOFTMAX", (1, 16_000), (1, 16_000)),
        one_layer("CONCATENATION", (1, 4), (1, 8), u8(1, 4), axis=1),
        one_layer("PRELU", (1, 4, 4, 2), (1, 4, 4, 2), u8(1, 1, 2)),
        one_layer("RELU", (1, 1, 1, 1, 9, 9, 9), (1, 1, 1, 1, 9, 9, 9)),
    ],
)
def test_the_edge_of_a_limit_is_inside(graph: Graph) -> None:
    assert [check.outcome for check in check_graph(graph)] == ["maps"]


@pytest.mark.parametrize(
    ("graph", "runtime"),
    [
        (one_layer("MEAN", (1, 4, 4, 8), (1, 8), i32(1, 2)), 10),
        (one_layer("MEAN", (1, 4, 4, 8), (1, 4, 4), i32(3)), 13),
        (padded((0, 0), (0, 1), (1, 0), (0, 0)), 10),
        (padded((0, 0), (0, 0), (0, 0), (0, 4)), 13),
        (one_layer("DEPTHWISE_CONV_2D", (1, 4, 4, 2), (1, 4, 4, 2), u8(1, 1, 1, 2)), 10),
        (
            one_layer(
                "DEPTHWISE_CONV_2D", (1, 4, 4, 2), (1, 4, 4, 2), u8(1, 1, 1, 2), dilation_w_factor=2,
                dilation_h_factor=2,
            ),
            13,
        ),
    ],
)  # fmt: skip
def test_a_variant_may_need_a_newer_runtime(graph: Graph, runtime: int) -> None:
    (check,) = check_graph(graph)
    assert (check.outcome, check.runtime) == ("maps", runtime)


def test_a_scalar_breaks_no_check() -> None:
    (check,) = check_graph(one_layer("SOFTMAX", (), ()))
    assert check.outcome == "maps"


def test_a_compiled_model_is_not_checked_again() -> None:
    with pytest.raises(UsageError, match="compiled for the Edge TPU already"):
        check_graph(read_tflite(compiled(chain())))


@pytest.mark.parametrize("name", PAIRS)
def test_the_checker_agrees_with_what_was_mapped(name: str) -> None:
    """Exactly the layers a public compiled file left on the CPU are those not sure to be mapped."""
    source, model = pair(name)
    mapping = map_layers(source, [model])
    checks = check_graph(source)
    assert {check.layer for check in checks if check.outcome != "maps"} == set(mapping.cpu)
    assert {check.layer for check in checks if check.outcome == "maps"} == set(mapping.device)


@pytest.mark.parametrize("scheme", ["uint8-2019", "int8-mobile"])
@pytest.mark.parametrize("title", TITLES)
def test_our_networks_keep_every_limit(title: str, scheme: str) -> None:
    checks = check_graph(quantized(title, 64, scheme))
    assert "stays" not in {check.outcome for check in checks}
    assert {check.op for check in checks if check.outcome == "may_stay"} <= DOUBTFUL


def test_only_tflite_is_compiled() -> None:
    from karat24.refimpl.graph import Graph

    with pytest.raises(UsageError, match=r"takes \.tflite files only"):
        check_graph(Graph((), (), (), (), format="onnx"))


def test_quantizing_for_the_device_writes_uint8_that_passes(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, samples = tmp_path / "fine-tune.tflite", tmp_path / "samples.npy"
    np.save(samples, np.random.default_rng(0).random((2, 16, 16, 1), np.float32))
    quantize = ["quantize", "fine-tune", "--height", "16", "--width", "16", "--calibration", str(samples)]
    assert main([*quantize, "--target", "edgetpu", "--output", str(path)]) == 0
    assert main(["check-edgetpu", str(path)]) == 0
    out = capsys.readouterr().out
    assert "2 maps" in out
    assert "runtime 10 or later" in out
    refused = tmp_path / "refused.tflite"
    assert main([*quantize, "--target", "edgetpu", "--scheme", "int8", "--output", str(refused)]) == 2
    assert "makes 'input' int8" in capsys.readouterr().err
    assert not refused.exists()


@pytest.mark.parametrize(
    ("network", "channels", "more"),
    [
        ("tomogan", 3, ()),
        ("tomogan", 3, ("--upsampling", "transposed")),
        ("chained", 3, ()),
        ("fine-tune", 1, ()),
    ],
)
def test_every_network_is_written_for_the_device(
    tmp_path, network: str, channels: int, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """At the size and in the form of the paper, uint8 in and out; doubtful ops are named as it is written."""
    path, samples = tmp_path / f"{network}.tflite", tmp_path / "samples.npy"
    np.save(samples, np.random.default_rng(0).random((2, 64, 64, channels), np.float32))
    quantize = ["quantize", network, "--calibration", str(samples), *more]
    assert main([*quantize, "--target", "edgetpu", "--output", str(path)]) == 0
    doubts = [line for line in capsys.readouterr().out.splitlines() if line.startswith("layer ")]
    assert len(doubts) == (0 if network == "fine-tune" else 3)
    graph = read_tflite(path)
    ends = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    assert [(tensor.dtype, tensor.shape[:3]) for tensor in ends] == [("uint8", (1, 64, 64))] * 2
    outcomes = {check.outcome for check in check_graph(graph)}
    assert "stays" not in outcomes


def test_the_command_says_what_stays(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    from karat24.export.tflite import write_tflite

    path = tmp_path / "softmax.tflite"
    path.write_bytes(write_tflite(BROKEN["short_softmax"]()))
    assert main(["check-edgetpu", str(path)]) == 1
    assert "at most 16,000 values" in capsys.readouterr().out
    assert main(["check-edgetpu", str(path), "--json"]) == 1
    assert '"outcome": "stays"' in capsys.readouterr().out
