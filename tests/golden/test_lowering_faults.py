"""Faults put into what is believed to run: layers that agree with themselves, but are not what ran.

Cut out, a layer of a faulty graph is computed alike by the oracle and by the runtime, so every layer is
exact; only the outputs of the whole model, and what float layers read, tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from karat24.delegates.onnxruntime import OnnxDelegate
from karat24.delegates.protocol import ExecutedGraph
from karat24.export.onnx import lower_qdq, read_onnx
from karat24.export.onnx.lowering import fusions, lower, pairs
from karat24.golden.layer_record import NOT_WHAT_RAN
from karat24.golden.report import Mode, Report
from karat24.golden.verify import verify
from karat24.refimpl.graph import Array, AttributeValue, Graph, Layer, Tensor
from tests.cases.qdq_kinds import KINDS, image, many_integer_ops
from tests.support.runtimes import Runtimes

pytest.importorskip("onnxruntime")

Fault = Callable[[Graph], Graph]


class Misled(OnnxDelegate):
    """A default session that is believed to run a faulty graph. It asks the process of a ``sound`` one."""

    def __init__(self, sound: OnnxDelegate, fault: Fault) -> None:
        super().__init__(sound.lane)
        self._child, self._fault = sound._child, fault

    def _layers_of(self, placed: object, graph: Graph) -> ExecutedGraph:
        executed = super()._layers_of(placed, graph)  # type: ignore[arg-type]
        return replace(executed, graph=self._fault(executed.graph))


@pytest.fixture
def ort(runtimes: Runtimes) -> OnnxDelegate:
    found = runtimes("ort")
    assert isinstance(found, OnnxDelegate)
    return found


def judged(ort: OnnxDelegate, content: bytes, fault: Fault, mode: Mode) -> Report:
    return verify(content, read_onnx(content), Misled(ort, fault), [{"x": image()}], mode=mode, threads=1)


def the_layer(graph: Graph, op: str, number: int = 0) -> Layer:
    return [layer for layer in graph.layers if layer.op == op][number]


def with_layer(graph: Graph, layer: Layer) -> Graph:
    layers = list(graph.layers)
    layers[layer.index] = layer
    return replace(graph, layers=tuple(layers))


def with_constant(graph: Graph, layer: Layer, position: int, change: Callable[[Array], Array]) -> Graph:
    """The layer reads a changed copy of its constant input ``position``; nobody else does."""
    old = graph.tensors[layer.inputs[position]]
    assert old.data is not None
    values = np.asarray(change(old.data.copy()), old.data.dtype)
    assert values.tobytes() != old.data.tobytes()
    new = Tensor(
        len(graph.tensors), f"{old.name}/fault", old.shape, old.dtype, data=values.reshape(old.shape)
    )
    inputs = list(layer.inputs)
    inputs[position] = new.index
    return with_layer(replace(graph, tensors=(*graph.tensors, new)), replace(layer, inputs=tuple(inputs)))


def with_attribute(graph: Graph, layer: Layer, name: str, value: AttributeValue) -> Graph:
    return with_layer(graph, replace(layer, attributes={**layer.attributes, name: value}))


def swapped(graph: Graph, layer: Layer, *positions: tuple[int, int]) -> Graph:
    inputs = list(layer.inputs)
    for first, second in positions:
        inputs[first], inputs[second] = inputs[second], inputs[first]
    return with_layer(graph, replace(layer, inputs=tuple(inputs)))


def bias_wrongly_quantized(graph: Graph) -> Graph:
    return with_constant(graph, the_layer(graph, "QLinearConv"), 8, lambda bias: bias * 2)


def output_scale_of_the_input(graph: Graph) -> Graph:
    return with_constant(graph, the_layer(graph, "QLinearConv", 1), 6, lambda scale: scale / 4)


def output_zero_point_off_by_one(graph: Graph) -> Graph:
    return with_constant(graph, the_layer(graph, "QLinearConv"), 7, lambda zero: zero + 1)


def filter_channels_reversed(graph: Graph) -> Graph:
    return with_constant(graph, the_layer(graph, "QLinearConv"), 3, lambda weights: weights[::-1])


def padding_on_one_side(graph: Graph) -> Graph:
    return with_attribute(graph, the_layer(graph, "QLinearConv"), "pads", (0, 0, 2, 2))


def operands_parameters_swapped(graph: Graph) -> Graph:
    return swapped(graph, the_layer(graph, "com.microsoft:QLinearAdd"), (1, 4), (2, 5))


def product_without_zero_point(graph: Graph) -> Graph:
    return with_constant(graph, the_layer(graph, "com.microsoft:QLinearMul"), 2, np.zeros_like)


def function_of_other_parameters(graph: Graph) -> Graph:
    return with_constant(graph, the_layer(graph, "com.microsoft:QLinearSigmoid"), 1, lambda s: s * 2)


def concatenated_in_another_order(graph: Graph) -> Graph:
    return swapped(graph, the_layer(graph, "com.microsoft:QLinearConcat"), (2, 5), (3, 6), (4, 7))


def mean_of_another_zero_point(graph: Graph) -> Graph:
    pool = the_layer(graph, "com.microsoft:QLinearAveragePool")
    return with_constant(graph, pool, 2, lambda zero: zero + 1)


FAULTS = (
    bias_wrongly_quantized, output_scale_of_the_input, output_zero_point_off_by_one, filter_channels_reversed,
    padding_on_one_side, operands_parameters_swapped, product_without_zero_point,
    function_of_other_parameters, concatenated_in_another_order, mean_of_another_zero_point,
)  # fmt: skip


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize("float_tail", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_layer_never_passes(ort: OnnxDelegate, fault: Fault, float_tail: bool, mode: Mode) -> None:
    """With a float tail, which goes on with the runtime's own values, the outputs themselves agree."""
    report = judged(ort, many_integer_ops(float_tail), fault, mode)
    assert report.exit_code() == report.exit_code(accept_explained=True) == 1
    (output,) = report.outputs
    assert output.verdict == "mismatch"
    if mode == "isolated":
        assert not any(layer.differs for layer in report.layers)
        assert NOT_WHAT_RAN in output.reason
    if float_tail:
        assert output.diff is not None
        assert output.diff.equal
        assert "differ in the whole run" in output.reason


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize("float_tail", [False, True])
def test_the_sound_graph_passes(ort: OnnxDelegate, float_tail: bool, mode: Mode) -> None:
    report = judged(ort, many_integer_ops(float_tail), lambda graph: graph, mode)
    assert {found.verdict for found in report.outputs} == {"bit_exact"}
    assert not any(layer.differs for layer in report.layers)


def _every_bias_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusions, "bias_fits", lambda *_: True)


def _every_relu_is_redundant(monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(rewriting: lower.Rewriting) -> None:
        for node in rewriting.each("Relu"):
            rewriting.bypass(node)

    monkeypatch.setattr(lower, "_remove_clips", remove)


def _second_pairs_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def merge(rewriting: lower.Rewriting) -> bool:
        for second in rewriting.each(lower.QUANTIZE):
            between = rewriting.dequantize_of(second, 0)
            if between is not None:
                for reader, slot in rewriting.readers(second.outputs[0]):
                    rewriting.read(reader, slot, between.inputs[0])
                rewriting.remove(second)
        return False

    monkeypatch.setattr(lower, "merge_double_pairs", merge)


def _signed_stays_signed_with_the_zero_point_of_unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = pairs.make_unsigned

    def make(rewriting: lower.Rewriting) -> None:
        sound(rewriting)
        for node in rewriting.each(lower.QUANTIZE):
            zero = rewriting.data(node.inputs[2])
            if zero is not None and zero.dtype == np.uint8:
                node.inputs[2] = rewriting.add_constant("fault", np.array(127, np.uint8))

    monkeypatch.setattr(lower, "make_unsigned", make)


@pytest.mark.parametrize("mode", ["isolated", "cumulative"])
@pytest.mark.parametrize(
    ("kind", "break_lowering"),
    [
        ("bias_of_another_scale", _every_bias_fits),
        ("shared_bias", _every_bias_fits),
        ("relu_above_the_zero_point", _every_relu_is_redundant),
        ("two_pairs_in_a_row", _second_pairs_are_dropped),
        ("signed_activations", _signed_stays_signed_with_the_zero_point_of_unsigned),
    ],
)
def test_a_faulty_lowering_never_passes(
    ort: OnnxDelegate,
    kind: str,
    break_lowering: Callable[[pytest.MonkeyPatch], None],
    mode: Mode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The prediction in place of the runtime's graph, as where the runtime cannot be asked."""
    content = KINDS[kind]()
    sound = lower_qdq(read_onnx(content))
    break_lowering(monkeypatch)
    faulty = lower_qdq(read_onnx(content))
    assert faulty.layers != sound.layers
    assert judged(ort, content, lambda _: faulty, mode).exit_code() in (1, 3)
